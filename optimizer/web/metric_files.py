"""The files in which each worker's metrics lie for the others to read, written so that a full disk ends no worker.

prometheus-client maps such a file into memory before the disk has room for it. Once there is none, the kernel kills
(SIGBUS) whoever counts something new, in whatever request. Here the same format is written by ``pwrite``, which says
that there is no room. What could not be written waits in memory: each write tells the whole of a value, so the next
one makes up for it.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
from pathlib import Path

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

log = logging.getLogger("sendtide.metrics")

#: How many bytes are in use, and padding.
_HEAD = struct.Struct("i4x")
_LENGTH = struct.Struct("i")
#: A value, and its time in seconds since 1970 (0 = none).
_VALUE = struct.Struct("dd")


class MetricFile:
    """Values by key in a file of prometheus-client's format; made anew or gone on with. Not safe between threads.

    After the head follow entries: the length of the key in bytes, the key with spaces up to a multiple of 8, the value.
    """

    def __init__(self, filename: str) -> None:
        self._path = Path(filename)
        self._descriptor: int | None = None
        self._used = _HEAD.size
        #: Where the value of each key lies.
        self._places: dict[str, int] = {}
        self._failing = False

    def read_value(self, key: str) -> tuple[float, float]:
        """The value of a key and its time; a new one begins with 0."""
        try:
            file = self._opened()
            value, at = _VALUE.unpack(os.pread(file, _VALUE.size, self._place(file, key)))
        except OSError as fault:
            self._tell(fault)
            return 0.0, 0.0
        return value, at

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Writes the value of a key; where there is no room it is left to the next write."""
        try:
            file = self._opened()
            _write(file, _VALUE.pack(value, timestamp), self._place(file, key))
        except OSError as fault:
            self._tell(fault)
        else:
            self._failing = False

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _opened(self) -> int:
        if self._descriptor is None:
            if not self._path.exists():
                # Under another name until it has a head: a scrape can't read a file without.
                new = self._path.with_name(f"{self._path.name}.new")
                new.write_bytes(_HEAD.pack(_HEAD.size))
                new.rename(self._path)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            (self._used,) = _HEAD.unpack(os.pread(self._descriptor, _HEAD.size, 0))
            entries = MmapedDict.read_all_values_from_file(self._path)  # type: ignore[no-untyped-call]  # it has no types
            self._places = {key: place for key, _, _, place in entries}
        return self._descriptor

    def _place(self, file: int, key: str) -> int:
        """Where the value of a key lies; a new key is entered with 0."""
        if key not in self._places:
            name = key.encode()
            padding = b" " * (8 - (len(name) + _LENGTH.size) % 8)
            entry = _LENGTH.pack(len(name)) + name + padding + _VALUE.pack(0.0, 0.0)
            _write(file, entry, self._used)
            used = self._used + len(entry)
            _write(file, _HEAD.pack(used), 0)  # a scrape sees the entry from here on
            self._used = used
            self._places[key] = used - _VALUE.size
        return self._places[key]

    def _tell(self, fault: OSError) -> None:
        if not self._failing:
            log.warning("metrics can't be written; they wait until they can", extra={"fault": str(fault)})
        self._failing = True


def _write(file: int, data: bytes, place: int) -> None:
    if os.pwrite(file, data, place) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def install() -> None:
    """Has prometheus-client keep the values of several processes in these files; before the first metric is made."""
    values.MmapedDict = MetricFile  # type: ignore[assignment, attr-defined]  # it takes whatever reads, writes, closes
