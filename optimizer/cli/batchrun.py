"""A run of ``sendtide decide`` over a folder: what was asked for, kept in the folder of its answers.

What makes the answers (the time, the policy, the ids) is fixed when a run begins, so that a run that was cut short goes
on as the same run, and rows that are decided keep their answers. What is past by then is no choice any more: rows that
are left are planned from the moment on at which they are decided, or nobody would be offered their messages in time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import msgspec

from optimizer.errors import Invalid
from optimizer.service.header import require_known
from optimizer.service.ids import COLD_POLICY, derived
from optimizer.service.importrows import REQUEST_ROW
from optimizer.service.rowfiles import READABLE, RowFile, fingerprint, suffix_of
from optimizer.service.wiring import Services

#: In the folder of the answers: the run, and what says that all of them are there. Readers of Parquet folders pass over
#: names that begin so.
RUN, SUCCESS = "_run.json", "_SUCCESS"


@dataclass(frozen=True)
class Source:
    """A file of recipients: its place in the folder, and the name that its rows' request ids begin with."""

    name: str
    run_id: str


@dataclass(frozen=True)
class Run:
    """A run. ``now`` is the time that all of it is decided at, ``policy_id`` the policy that decides all of it,
    ``part_rows`` how many rows stand in a file of answers, ``installation`` where the decisions are stored. ``told``:
    whoever began it named the time, and so means what is past as well."""

    installation: str
    workspace_id: str
    campaign_id: str
    files: tuple[Source, ...]
    part_rows: int
    now: datetime
    policy_id: str
    told: bool = False


def folder_of(file: Path) -> Path:
    """What the names of a run's files are relative to."""
    return file if file.is_dir() else file.parent


def sources(file: Path, campaign: str) -> tuple[Source, ...]:
    """A file, or all files below a folder by name, without those whose name (or folder's name) begins with . or _.

    Raises:
        Invalid: there is none, or one that can't be read or whose columns are none of a request's.
    """
    if not file.is_dir():
        _require_usable(file)
        return (Source(file.name, "file-" + fingerprint(file, campaign)),)
    names = sorted(path.relative_to(file).as_posix() for path in file.rglob("*") if path.is_file())
    wanted = [name for name in names if not any(part[0] in "._" for part in name.split("/"))]
    if not wanted:
        raise Invalid.field("file", f"{file} holds no file of recipients", code="unknown_file_format")
    for name in wanted:
        _require_usable(file / name)
    # Two files of a folder may hold the same rows; their names tell them apart.
    return tuple(Source(name, "file-" + fingerprint(file / name, campaign, name)) for name in wanted)


def _require_usable(path: Path) -> None:
    with RowFile(path) as rows:
        require_known(rows, REQUEST_ROW)


def rows_in(folder: Path, run: Run) -> int | None:
    """How many rows the run's files below ``folder`` hold; None where that takes reading them."""
    total = 0
    for source in run.files:
        if suffix_of(folder / source.name, READABLE) != ".parquet":
            return None
        with RowFile(folder / source.name) as rows:
            total += rows.total
    return total


def planned(
    services: Services,
    workspace_id: str,
    campaign_id: str,
    files: tuple[Source, ...],
    part_rows: int,
    now: datetime,
    *,
    told: bool = False,
) -> Run:
    """A run that begins now, with the policy that the campaign serves; ``told``: as in ``Run``."""
    with services.store.read() as reader:
        served = {(p.workspace_id, p.campaign_id): p.policy_id for p in reader.pointers()}
    return Run(
        installation=derived("ins", services.salt, "run"),
        workspace_id=workspace_id,
        campaign_id=campaign_id,
        files=files,
        part_rows=part_rows,
        now=now,
        policy_id=served.get((workspace_id, campaign_id), COLD_POLICY),
        told=told,
    )


def begin(out: Path, run: Run, *, same_now: bool) -> Run:
    """The run that the folder holds, if it is this one but for when it began; else this one, noted there.

    Args:
        out: the folder of the answers; made where it is not there.
        run: the run.
        same_now: whether an earlier run must have been of the same time.

    Raises:
        Invalid: the folder holds something else.
    """
    noted = out / RUN
    if noted.exists():
        earlier = msgspec.json.decode(noted.read_bytes(), type=Run)
        as_wanted = replace(earlier, policy_id=run.policy_id, told=run.told)
        if (as_wanted if same_now else replace(as_wanted, now=run.now)) != run:
            raise Invalid.field("out", f"{out} holds the answers of another run: {', '.join(_differs(earlier, run))}")
        return earlier
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Invalid.field("out", f"{out} must be an empty folder, a new one, or that of an unfinished run")
    out.mkdir(parents=True, exist_ok=True)
    draft = out / f".{RUN}.{os.getpid()}.part"
    draft.write_bytes(msgspec.json.encode(run))
    draft.replace(noted)
    return run


def _differs(one: Run, other: Run) -> Iterator[str]:
    names = {
        "installation": "another database",
        "workspace_id": "another workspace",
        "campaign_id": "another campaign",
        "files": "other files, or in another folder",
        "part_rows": "other --part-rows",
        "now": "another --now",
    }
    for field, told in names.items():
        if getattr(one, field) != getattr(other, field):
            yield told


def part(out: Path, number: int) -> Path:
    """The file of the run's answers of that number, from 0."""
    return out / f"part-{number:06}.parquet"


def clear_drafts(out: Path) -> None:
    """Removes what a killed run left half written."""
    for draft in out.glob(".*.part"):
        draft.unlink(missing_ok=True)
