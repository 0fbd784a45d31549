"""``sendtide decide``: choices for a file or a folder of recipients, by one process, several, or a cluster."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from optimizer.cli.call import Call, command, option, require_some
from optimizer.cli.group import EXIT_CODES
from optimizer.cli.progress import progress
from optimizer.cli.rayoption import ray_option
from optimizer.errors import ConfigError, Invalid

if TYPE_CHECKING:
    from optimizer.cli.batch import Done
    from optimizer.cli.batchrun import Run
    from optimizer.config import Settings
    from optimizer.service.rowfiles import RowFile
    from optimizer.service.rowparts import NumberedRow
    from optimizer.service.wiring import Services

#: Rows of a file that are decided together.
CHUNK = 1000


@click.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@option("--campaign", required=True, help="The campaign to decide for.")
@option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="OUT.parquet or OUT.ndjson; of a folder, or with --processes or --ray, a folder for Parquet files.",
)
@option("--now", metavar="TIME", help="Decide as of this time [when it begins].")
@option(
    "--part-rows",
    type=click.IntRange(1, 1_000_000),
    default=20_000,
    show_default=True,
    help="Rows of each file in the folder of answers.",
)
@option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Decide in so many processes of this machine: one for each processor that is free.",
)
@ray_option("Decide on the processors of a Ray cluster.")
@command()
def decide(
    call: Call,
    file: Path,
    campaign: str,
    out: Path,
    now: str | None,
    part_rows: int,
    processes: int,
    ray: str | None,
) -> None:
    """Decide for every recipient of FILE (CSV, NDJSON or Parquet) and write one row each, in order.

    Columns: recipient_id, and if wanted request_id, timezone, attributes.NAME, channels.NAME (true or false),
    context.NAME, metadata.NAME. Messages are reserved as over the API; the window is the campaign's default, from now.
    A row that can't be decided has its reason in the column `error`; it spoils no other. Where none can, the exit code
    is 1. The same file again gets the
    same decisions and reserves nothing more.

    FILE may be a folder of such files. Then the whole of it is decided as of the time when it began, with the policy
    that was served then, into a folder of Parquet files; a run that was cut short goes on where it was when it is
    called again. A row's window begins when the row is decided, and with --now at that time. With --processes or --ray,
    all of that is the same, of a file too, and many decide; a cluster's nodes need Sendtide, and the same PostgreSQL.
    """
    from optimizer.service.cells import instant

    if ray is not None and processes > 1:
        raise Invalid.field("processes", "--ray decides on a cluster's processors; give one of the two")
    at = None if now is None else instant("now", now)
    if ray is None and processes == 1 and not file.is_dir():
        _decide_file(call, file, campaign, out, at)
        return
    done = _decide_folder(call, file, campaign, out, at, part_rows, processes, ray)
    told = {"decided": done.decided, "failed": done.failed, "folder": click.format_filename(out)}
    call.answer(told, f"{done.decided} decided, {done.failed} failed: {out}")
    require_some(done.decided, done.failed, f"the column `error` in {out} says why")


def _require_campaign(services: Services, workspace_id: str, campaign: str) -> None:
    """Tells what all rows lack once, and not in each.

    Raises:
        Invalid: there is no campaign of that id, or it is archived.
    """
    with services.store.read() as reader:
        services.catalog.view(reader, workspace_id).campaign(reader, campaign)


def _decide_file(call: Call, file: Path, campaign: str, out: Path, now: datetime | None) -> None:
    from optimizer.cli.answerrows import COLUMNS, answer_row, request_of
    from optimizer.service.garbage import rarely_collected
    from optimizer.service.header import require_known
    from optimizer.service.importrows import REQUEST_ROW
    from optimizer.service.rowfiles import RowFile, fingerprint, open_writer

    run, counts = "file-" + fingerprint(file, campaign), {"decided": 0, "failed": 0}
    with (
        call.services(now) as services,
        open_writer(out, COLUMNS) as writer,
        RowFile(file) as rows,
        progress("decide") as on_progress,
        rarely_collected(CHUNK),
    ):
        _require_campaign(services, call.workspace, campaign)
        require_known(rows, REQUEST_ROW)
        for first, chunk in _chunks(rows):
            requests = [
                request_of(row, campaign, f"{run}/{first + i}", typed=rows.typed) for i, (_, row) in enumerate(chunk)
            ]
            answers = services.decider.decide_batch(call.workspace, requests, run)
            for (line, asked), answer in zip(chunk, answers, strict=True):
                counts["failed" if isinstance(answer, Exception) else "decided"] += 1
                writer.write({**answer_row(asked, answer), "line": line})
            on_progress(rows.done(), rows.total)
    call.answer(
        {**counts, "file": click.format_filename(out)}, f"{counts['decided']} decided, {counts['failed']} failed: {out}"
    )
    require_some(counts["decided"], counts["failed"], f"the column `error` in {out} says why")


def _chunks(rows: RowFile) -> Iterator[tuple[int, list[NumberedRow]]]:
    numbered, first = rows.rows(), 0
    while chunk := list(itertools.islice(numbered, CHUNK)):
        yield first, chunk
        first += len(chunk)


def _decide_folder(
    call: Call,
    file: Path,
    campaign: str,
    out: Path,
    now: datetime | None,
    part_rows: int,
    processes: int,
    ray: str | None,
) -> Done:
    from optimizer.cli import batchrun
    from optimizer.cli.batch import Alone, Desk, decide_all
    from optimizer.service.rowfiles import READABLE

    if out.name.endswith(READABLE) and not out.exists():
        raise Invalid.field("out", f"{out} is named like a file, and the answers are a folder of them; name a folder")
    if out.resolve().is_relative_to(file.resolve()):
        raise Invalid.field("out", f"{out} lies in {file}, all of which is decided")
    files = batchrun.sources(file, campaign)
    with call.services(now) as services:
        wanted = batchrun.planned(
            services, call.workspace, campaign, files, part_rows, services.clock(), told=now is not None
        )
        if not (out / batchrun.RUN).exists():  # else that run is compared with this one first
            _require_campaign(services, call.workspace, campaign)
        run = batchrun.begin(out, wanted, same_now=now is not None)
    folder = batchrun.folder_of(file)
    total = batchrun.rows_in(folder, run)
    with progress("decide") as on_progress:
        if ray is not None:
            return _on_cluster(call, run, folder, out, ray, lambda done: on_progress(done, total))
        if processes > 1:
            return _in_processes(call, run, folder, out, processes, lambda done: on_progress(done, total))
        with closing(Desk(call.settings, run)) as desk:
            return decide_all(folder, run, out, Alone(desk), lambda done: on_progress(done, total))


def _in_processes(
    call: Call, run: Run, folder: Path, out: Path, processes: int, on_progress: Callable[[int], None]
) -> Done:
    from optimizer.cli import onprocesses
    from optimizer.cli.batch import Desk, Piece, Placed, decide_all

    crew: onprocesses.Crew[Piece, list[Placed]]
    with onprocesses.Crew(partial(Desk, call.settings, run), processes) as crew:
        return decide_all(folder, run, out, crew, on_progress)


def _on_cluster(
    call: Call, run: Run, folder: Path, out: Path, address: str, on_progress: Callable[[int], None]
) -> Done:
    from optimizer.cli import onray
    from optimizer.cli.batch import Desk, Piece, Placed, decide_all

    with onray.connected(address):
        settings = _reachable(call, alone=onray.alone())
        crew: onray.Crew[Piece, list[Placed]] = onray.Crew(partial(Desk, settings, run))
        return decide_all(folder, run, out, crew, on_progress)


def _reachable(call: Call, *, alone: bool) -> Settings:
    """The settings for the nodes.

    Raises:
        ConfigError: they can't reach the database.
    """
    from storage.open import embedded

    path = embedded(call.settings.database)
    if path is None:
        return call.settings
    if not alone:
        raise ConfigError("--ray: a SQLite file can't be shared by several nodes; move to PostgreSQL (sendtide copy)")
    call.note("SQLite takes one writer at a time: only the choosing is spread over this machine's processors")
    return call.settings.override(database=f"sqlite:///{path.absolute()}")
