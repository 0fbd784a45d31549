"""The work of a run over a folder: blocks of rows, decided by one or by many, and written as one file each.

A block is cut by recipient into lanes. Pieces of one lane are decided one after the other, in the order of the rows,
and those of different lanes side by side. So whoever decides them, a recipient's rows meet the same state; and a
block's answers are written, at once and in the order of its rows, when its last piece is done.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from optimizer.cli.answerrows import COLUMNS, Cellular, answer_row, request_of
from optimizer.cli.batchrun import SUCCESS, Run, clear_drafts, part
from optimizer.config import Settings
from optimizer.errors import SendtideError
from optimizer.service.cells import Cells
from optimizer.service.garbage import rarely_collected
from optimizer.service.rowfiles import RowFile, open_writer
from optimizer.service.wiring import Clock, open_services, utc_now

#: Blocks that are worked on at a time: the last piece of one doesn't keep those of the next waiting.
OPEN = 3
#: A lane's share of a block should be worth a transaction or two.
LEAST_PIECE = 250
#: Lanes for each of those who decide.
LANES = 4

_COLUMNS = {"file": "string", **COLUMNS}


class Asked(NamedTuple):
    """A row: its file and line there, the request id that it has unless it names one, its cells."""

    file: str
    line: int
    request_id: str
    cells: Cellular
    typed: bool


class Piece(NamedTuple):
    """Rows of a block that are decided together, each with its place in the block."""

    block: int
    lane: int
    rows: list[tuple[int, Asked]]


#: A row of answers, with its place in the block.
Placed = tuple[int, dict[str, Any]]


@dataclass(frozen=True)
class Done:
    """How many rows have been decided, and how many can't be."""

    decided: int = 0
    failed: int = 0

    def __add__(self, other: Done) -> Done:
        return Done(self.decided + other.decided, self.failed + other.failed)

    @property
    def rows(self) -> int:
        """All."""
        return self.decided + self.failed


class Crew(Protocol):
    """Whoever decides; ``size`` of them."""

    size: int

    def submit(self, argument: Piece) -> None:
        """Takes a piece."""

    def next(self) -> tuple[Piece, list[Placed]]:
        """A piece that has been decided."""


class Desk:
    """Decides pieces of a run: the service, at the run's time and with its policy. Nothing is planned for a time that
    ``clock`` says is past, unless the run was told its time."""

    def __init__(self, settings: Settings, run: Run, clock: Clock = utc_now) -> None:
        self._run = run
        real = None if run.told else clock
        self._services = open_services(settings, lambda: run.now, watch=False, real=real)
        self._services.policies.hold(run.workspace_id, run.campaign_id, run.policy_id)

    def __call__(self, piece: Piece) -> list[Placed]:
        """The answers; the same again when a piece comes again."""
        run = self._run
        with rarely_collected(len(piece.rows)):
            requests = [request_of(a.cells, run.campaign_id, a.request_id, typed=a.typed) for _, a in piece.rows]
            answers = self._services.decider.decide_batch(run.workspace_id, requests, "")
            return [
                (place, {**answer_row(asked.cells, answer), "file": asked.file, "line": asked.line})
                for (place, asked), answer in zip(piece.rows, answers, strict=True)
            ]

    def close(self) -> None:
        """Closes the store."""
        self._services.close()


class Alone:
    """A crew of one, in this process."""

    size = 1

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._waiting: deque[Piece] = deque()

    def submit(self, argument: Piece) -> None:
        """Takes a piece."""
        self._waiting.append(argument)

    def next(self) -> tuple[Piece, list[Placed]]:
        """Decides the next one."""
        piece = self._waiting.popleft()
        return piece, self._desk(piece)


def decide_all(folder: Path, run: Run, out: Path, crew: Crew, on_progress: Callable[[int], None]) -> Done:
    """Decides what is left of a run and writes its parts.

    Args:
        folder: of the run's files.
        run: what to decide.
        out: the folder of the answers. Parts that are there and whole are taken as they are.
        crew: who decides.
        on_progress: told how many rows are done.
    """
    clear_drafts(out)
    lanes = Lanes(crew, 1 if crew.size == 1 else max(crew.size, min(LANES * crew.size, run.part_rows // LEAST_PIECE)))
    done, blocks = Done(), enumerate(_blocks(folder, run))
    while True:
        while len(lanes.open) < OPEN and (found := next(blocks, None)) is not None:
            number, rows = found
            told = _told(part(out, number), len(rows))
            if told is not None:
                done += told
                on_progress(done.rows)
            else:
                lanes.put(number, rows)
        if not lanes.open:
            break
        finished = lanes.step()
        if finished is not None:
            done += _write(part(out, finished[0]), finished[1])
            on_progress(done.rows)
    (out / SUCCESS).touch()
    return done


class Lanes:
    """Pieces that wait for the one before them in their lane, and blocks of which some answers are there."""

    def __init__(self, crew: Crew, lanes: int) -> None:
        self._crew = crew
        self._behind: list[deque[Piece]] = [deque() for _ in range(lanes)]
        self._busy = [False] * lanes
        #: By block, the rows of answers; None = not there yet.
        self.open: dict[int, list[dict[str, Any] | None]] = {}

    def put(self, block: int, rows: list[Asked]) -> None:
        """Takes a block."""
        pieces: dict[int, Piece] = {}
        for place, asked in enumerate(rows):
            lane = _lane(asked, len(self._busy))
            pieces.setdefault(lane, Piece(block, lane, [])).rows.append((place, asked))
        self.open[block] = [None] * len(rows)
        for lane, piece in pieces.items():
            self._behind[lane].append(piece)
            self._go_on(lane)

    def step(self) -> tuple[int, list[dict[str, Any]]] | None:
        """Waits for a piece; the block that it was the last of, with all answers."""
        piece, answers = self._crew.next()
        self._busy[piece.lane] = False
        self._go_on(piece.lane)
        rows = self.open[piece.block]
        for place, row in answers:
            rows[place] = row
        if None in rows:
            return None
        del self.open[piece.block]
        return piece.block, [row for row in rows if row is not None]

    def _go_on(self, lane: int) -> None:
        if self._behind[lane] and not self._busy[lane]:
            self._busy[lane] = True
            self._crew.submit(self._behind[lane].popleft())


def _lane(asked: Asked, lanes: int) -> int:
    """Where all rows of a recipient go."""
    if isinstance(asked.cells, SendtideError):
        return 0
    try:
        name = Cells(asked.cells, typed=asked.typed).id("recipient_id") or ""
    except SendtideError:  # which is the row's answer
        return 0
    return zlib.crc32(name.encode()) % lanes


def _blocks(folder: Path, run: Run) -> Iterator[list[Asked]]:
    """All rows in order, as many together as a part has."""
    block: list[Asked] = []
    for source in run.files:
        with RowFile(folder / source.name) as file:
            for place, (line, cells) in enumerate(file.rows()):
                block.append(Asked(source.name, line, f"{source.run_id}/{place}", cells, file.typed))
                if len(block) == run.part_rows:
                    yield block
                    block = []
    if block:
        yield block


def _write(path: Path, rows: list[dict[str, Any]]) -> Done:
    with open_writer(path, _COLUMNS) as writer:
        for row in rows:
            writer.write(row)
    failed = sum(row["error"] is not None for row in rows)
    return Done(len(rows) - failed, failed)


def _told(path: Path, rows: int) -> Done | None:
    """What an earlier part of so many rows says; None = there is none that is whole."""
    from pyarrow import ArrowException, parquet

    if not path.exists():
        return None
    try:
        errors = parquet.read_table(path, columns=["error"]).column("error")
    except (ArrowException, OSError, KeyError):  # cut short, no Parquet, or of something else
        return None
    return Done(errors.null_count, len(errors) - errors.null_count) if len(errors) == rows else None
