"""Where archived decisions are: their files, and the hashes that lead to a row of them. See ``storage.archive``."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from storage import parquet
from storage.archive import Archived, ArchiveFile, Contents
from storage.sql.tables import Row

_CONTENTS: Final = msgspec.json.Decoder(Contents)


class At(NamedTuple):
    """Where an archived row is: its file and its number in it."""

    number: int
    place: int


def key_of(kind: str, *name: str) -> int:
    """The hash by which a decision's row is found: of its id, its recipient, its provider and message id, or the id of
    an event that names it."""
    told = "\0".join((kind, *name)).encode()
    return int.from_bytes(blake2b(told, digest_size=8).digest(), "big", signed=True)


def keys_of(row: Archived) -> list[int]:
    """Every hash of a decision's row and its events."""
    decision = row.decision
    keys = [key_of("decision", decision[0]), key_of("recipient", decision[parquet.RECIPIENT])]
    if decision[parquet.MESSAGE] is not None:
        keys.append(key_of("message", decision[parquet.PROVIDER] or "", decision[parquet.MESSAGE]))
    return keys + [key_of("event", event[0]) for event in row.events]


def file_from(workspace_id: str, row: Row) -> ArchiveFile:
    """A file as its row tells of it."""
    number, path, rows, moved, first, last, checksum, contents = row
    told = _CONTENTS.decode(contents)
    return ArchiveFile(workspace_id, number, path, rows, moved, first, last, checksum, told)


def clusters(files: Sequence[ArchiveFile]) -> list[list[ArchiveFile]]:
    """Files, by their first time, in groups that don't overlap: those of one group are read side by side."""
    found: list[list[ArchiveFile]] = []
    last = 0
    for file in files:
        if not found or file.first > last:
            found.append([])
            last = file.last
        found[-1].append(file)
        last = max(last, file.last)
    return found
