"""Independent repetitions in one process with live progress, over several processes, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from optimizer.cli.onprocesses import THREADS

T = TypeVar("T")


def in_processes(
    work: Callable[..., T],
    arguments: Sequence[tuple[Any, ...]],
    *,
    processes: int,
    console: Console,
    label: str,
    total: int,
    on_ray: bool = False,
) -> list[T]:
    """Calls ``work(*arguments[i])`` for each i and returns the results in that order.

    Args:
        work: a function of a module. In one process it is also given a function that takes its progress.
        arguments: of each call.
        processes: how many calls run at a time; 1 = all in this process.
        console: where the progress is shown.
        label: what it is called there.
        total: the progress of a finished call.
        on_ray: whether the calls go to the Ray cluster that this process is connected to, whatever ``processes`` says.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        if on_ray:
            return _on_ray(work, arguments, progress, label)
        if processes == 1:
            return [
                _one(work, one, progress, f"{label} {i}/{len(arguments)}", total) for i, one in enumerate(arguments, 1)
            ]
        return _many(work, arguments, processes, progress, label)


def _one(work: Callable[..., T], arguments: tuple[Any, ...], progress: Progress, label: str, total: int) -> T:
    task = progress.add_task(label, total=total)
    result = work(*arguments, lambda done: progress.update(task, completed=done))
    progress.update(task, completed=total)
    return result


def _many(
    work: Callable[..., T], arguments: Sequence[tuple[Any, ...]], processes: int, progress: Progress, label: str
) -> list[T]:
    task = progress.add_task(label, total=len(arguments))
    for name in THREADS:
        os.environ.setdefault(name, "1")
    # Spawned, not forked: threads, store connections and numeric libraries don't survive a fork.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(work, *one) for one in arguments]
        for _ in as_completed(futures):
            progress.advance(task)
        return [future.result() for future in futures]


def _on_ray(work: Callable[..., T], arguments: Sequence[tuple[Any, ...]], progress: Progress, label: str) -> list[T]:
    from optimizer.cli import onray  # an extra: not everyone has Ray

    task = progress.add_task(label, total=len(arguments))
    return onray.each(partial(_call, work), arguments, lambda done: progress.update(task, completed=done))


def _call(work: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    return work(*arguments)
