"""How values cross to PostgreSQL and back.

Every integer goes as a bigint and every truth value as 0 or 1, as in SQLite, so that one statement has one plan. Texts
may hold any character, but PostgreSQL refuses NUL: character 0 is stored as 1 and 1, and 1 as 1 and 2, which keeps the
order of texts.
"""

from __future__ import annotations

from typing import Any

from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.pq import Format
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper

_BIGINT, _TEXT = 20, 25
_MARK = b"\x01"


class _TextDumper(Dumper):
    oid = _TEXT

    def dump(self, obj: str) -> Buffer:
        data = obj.encode()
        if b"\0" in data or _MARK in data:
            return data.replace(_MARK, b"\x01\x02").replace(b"\0", b"\x01\x01")
        return data


class _TruthDumper(Dumper):
    oid = _BIGINT

    def dump(self, obj: bool) -> Buffer:
        return b"1" if obj else b"0"


class _TextLoader(Loader):
    def load(self, data: Buffer) -> str:
        found = bytes(data)
        if _MARK in found:
            found = found.replace(b"\x01\x01", b"\0").replace(b"\x01\x02", _MARK)
        return found.decode()


class _BinaryTextLoader(_TextLoader):
    format = Format.BINARY


def register(adapters: Any) -> None:
    """Teaches a connection to pass values this way."""
    adapters.register_dumper(int, Int8Dumper)
    adapters.register_dumper(int, Int8BinaryDumper)
    adapters.register_dumper(bool, _TruthDumper)
    adapters.register_dumper(str, _TextDumper)
    adapters.register_loader("text", _TextLoader)
    adapters.register_loader("text", _BinaryTextLoader)
