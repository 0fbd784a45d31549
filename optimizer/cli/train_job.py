"""``sendtide train-job``: the scheduler's child. Hidden: people call ``retrain``."""

from __future__ import annotations

import os
import resource
import threading
import time

import click
import orjson

from optimizer.cli.call import Call, command
from optimizer.cli.group import EXIT_CODES

#: Scheduling priority of a training: decisions go first.
NICE = 10
_PARENT_SECONDS = 0.5


@click.command(name="train-job", hidden=True, epilog=EXIT_CODES)
@click.option("--run", required=True, help="The training run, claimed already.")
@click.option("--parent", required=True, type=int, help="The process that keeps the lease; its death ends this one.")
@command()
def train_job(call: Call, run: str, parent: int) -> None:
    """Carry out one claimed training run and print how it ended as JSON."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    step_back(call.settings.train_memory_mib)

    from optimizer.errors import NotFound
    from optimizer.service.training import carry_out

    with call.services() as services:
        with services.store.read() as reader:
            claimed = reader.training_run(call.workspace, run)
        if claimed is None:
            raise NotFound(f"no training run {run!r} in this workspace")
        ended = carry_out(services, claimed)
    click.echo(orjson.dumps(ended, option=orjson.OPT_SERIALIZE_NUMPY))


def step_back(memory_mib: int) -> None:
    """Gives this process low priority and at most ``memory_mib`` MiB of data; more is a ``MemoryError``."""
    os.nice(NICE)
    limit = memory_mib << 20
    # Data, not address space: torch reserves far more addresses than it ever fills.
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone: nobody renews the lease, so somebody else may start."""
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)
