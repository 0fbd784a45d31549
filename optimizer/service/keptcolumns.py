"""The columns of long logs are kept in files, so that a report reads only what is new or was changed.

A file is a cache: it may be deleted at any time, and one that can't be read counts for nothing. Each campaign has one.
It holds what the store's rows said, block by block, with the stamps by which the store tells a changed block
(``storage.blocks``). What a report is computed from is the same arrays whether a file was there or not, so its figures
are the same to the last digit. A short log is read from the store by its campaign, which costs less.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from optimizer.service.ledger import Ledger, ledger_of, read_ledger
from optimizer.service.logcolumns import DECISIONS, EVENTS, MASKED, Gathered, LogColumns, Meaning, empty
from storage.blocks import BLOCK, Stamps
from storage.port import Reader
from storage.records import Campaign

log = logging.getLogger(__name__)

#: Decisions of a campaign from which on its columns are kept: below, they are read in about a tenth of a second.
LEAST: Final = 20_000
#: Blocks that have to be new before the file is written again.
_WORTH_WRITING: Final = 8
#: Another number makes nothing of older files.
_FORMAT: Final = "2"


@dataclass(frozen=True)
class KeptColumns:
    """Where the columns of an installation's campaigns are kept.

    Attributes:
        folder: None = nowhere: every report reads the log anew.
        salt: of the installation; keys the hashes of recipients, and names the files.
        least: decisions from which on a campaign's columns are kept.
    """

    folder: Path | None
    salt: bytes
    least: int = LEAST

    def ledger(self, reader: Reader, campaign: Campaign, since: Any, until: Any) -> Ledger:
        """``ledger_of`` the campaign's log as the reader sees it."""
        if self.folder is None or not reader.has_decisions(campaign.workspace_id, campaign.campaign_id, self.least):
            return read_ledger(reader, campaign, since, until)
        return ledger_of(self.columns(reader, campaign), campaign, since, until)

    def columns(self, reader: Reader, campaign: Campaign, worth_writing: int = _WORTH_WRITING) -> LogColumns:
        """The whole log of a campaign: kept blocks whose stamps still hold, and the others read anew."""
        meaning = Meaning.of(campaign)
        path = self._path(campaign)
        kept = _File.read(path, meaning) if path is not None else None
        now = reader.block_stamps(campaign.workspace_id)
        found, anew = _brought_up(kept or _File(empty(), Stamps({}, {})), reader, campaign, meaning, now, self.salt)
        if path is not None and (kept is None or anew >= worth_writing):
            found.write(path, meaning)
        return found.columns

    def keep(self, reader: Reader, campaign: Campaign) -> None:
        """Brings a campaign's file up to date, if it has one or should: nothing stays in it of rows that the store has
        deleted, and the next report has little to read."""
        if self.folder is not None and reader.has_decisions(campaign.workspace_id, campaign.campaign_id, self.least):
            self.columns(reader, campaign, worth_writing=1)
        else:
            path = self._path(campaign)
            if path is not None:
                path.unlink(missing_ok=True)

    def _path(self, campaign: Campaign) -> Path | None:
        name = orjson.dumps([campaign.workspace_id, campaign.campaign_id])
        key = blake2b(name, digest_size=16, key=self.salt, person=b"sendtide.columns").hexdigest()
        return None if self.folder is None else self.folder / f"{key}.columns"


@dataclass(frozen=True)
class _File:
    """What a file holds: columns, and the stamps of the blocks that they are whole of."""

    columns: LogColumns
    stamps: Stamps

    @classmethod
    def read(cls, path: Path, meaning: Meaning) -> _File | None:
        """The file's content; None = none that can be used. Events are left out where they now mean something else."""
        try:
            with safe_open(path, framework="numpy") as file:
                about = orjson.loads(file.metadata()["about"])
                decisions, masked, events = (
                    {name: file.get_tensor(f"{kind}.{name}") for name in columns} for kind, columns in _KINDS.items()
                )
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None
        if about.get("format") != _FORMAT:
            return None
        stamps = Stamps(*({int(block): one for block, one in about[kind].items()} for kind in ("decisions", "events")))
        if about["meaning"] != _told(meaning):
            events, about["outcomes"], stamps = dict(empty().events), [], Stamps(stamps.decisions, {})
        variants, channels, outcomes = (tuple(about[kind]) for kind in ("variants", "channels", "outcomes"))
        rules = tuple((rule, kind, dry_run) for rule, kind, dry_run in about["rules"])
        return cls(LogColumns(decisions, masked, events, variants, channels, outcomes, rules), stamps)

    def write(self, path: Path, meaning: Meaning) -> None:
        """Puts it in the place of what was there. Where that can't be, a warning says so; the next report is slow."""
        tensors = {f"{kind}.{name}": column for kind in _KINDS for name, column in getattr(self.columns, kind).items()}
        about = {
            "format": _FORMAT,
            "meaning": _told(meaning),
            "decisions": {str(block): stamp for block, stamp in self.stamps.decisions.items()},
            "events": {str(block): stamp for block, stamp in self.stamps.events.items()},
            **{name: getattr(self.columns, name) for name in ("variants", "channels", "outcomes", "rules")},
        }
        beside: str | None = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file, beside = tempfile.mkstemp(".columns", dir=path.parent)  # readable by its owner alone
            with os.fdopen(file, "wb") as out:
                out.write(save(tensors, {"about": orjson.dumps(about).decode()}))
            Path(beside).replace(path)
        except OSError as error:
            log.warning("columns of a report can't be kept in %s: %s", path.parent, error.strerror)
            if beside is not None:
                Path(beside).unlink(missing_ok=True)


_KINDS: Final = {"decisions": DECISIONS, "masked": MASKED, "events": EVENTS}


def _told(meaning: Meaning) -> list[Any]:
    """What hangs on the campaign in kept events, as JSON has it."""
    return [sorted(meaning.types), sorted(map(list, meaning.outcome.items())), sorted(map(list, meaning.told.items()))]


def _brought_up(
    kept: _File, reader: Reader, campaign: Campaign, meaning: Meaning, now: Stamps, salt: bytes
) -> tuple[_File, int]:
    """The columns as of the reader's snapshot, and how many blocks were read anew."""
    old, here = kept.columns, (campaign.workspace_id, campaign.campaign_id)
    whole = _unchanged(kept.stamps.decisions, now.decisions)
    heard = _unchanged(kept.stamps.events, now.events)
    standing = _in_blocks(whole)
    gathered = Gathered(
        salt,
        meaning,
        old.kept(
            standing(old.decisions["position"]),
            standing(old.masked["position"]),
            _in_blocks(heard)(old.events["number"]),
        ),
    )
    again = [sorted(now.decisions.keys() - whole), sorted(now.events.keys() - heard)]
    for block in again[0]:
        chunk = reader.decision_block(*here, block)
        if chunk is not None:
            gathered.add_decisions(chunk)
    waiting = set()
    for block in again[1]:
        events = reader.event_block(*here, block, meaning.types, set(meaning.told))
        gathered.add_events(events)
        if not events.complete:
            waiting.add(block)
    stamps = Stamps(now.decisions, {block: stamp for block, stamp in now.events.items() if block not in waiting})
    return _File(gathered.columns(), stamps), len(again[0]) + len(again[1])


def _unchanged(before: Mapping[int, str], now: Mapping[int, str]) -> set[int]:
    return {block for block, stamp in before.items() if now.get(block) == stamp}


def _in_blocks(blocks: Collection[int]) -> Callable[[Any], Any]:
    """Tells which numbers lie in some blocks."""
    size = max(blocks, default=-1) + 2
    held = np.zeros(size, np.bool_)
    held[list(blocks)] = True
    return lambda numbers: held[np.minimum(numbers // BLOCK, size - 1)]
