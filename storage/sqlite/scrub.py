"""Taking what was deleted or overwritten out of the files of a SQLite database.

``secure_delete`` overwrites content as it goes, and a checkpoint cuts off old pages in the WAL. One place is left: when
SQLite moves rows from page to page, their old bytes stay in the unallocated space between a page's cell pointers and
its cells, until something else is written there (of 2,000 deleted records whole ones of two were found). ``VACUUM``
clears it by writing the whole file anew, which is much for one person, so it is done only where a word about them is
really there. Format of a page: sqlite.org/fileformat2.html, "B-tree Pages".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from sqlite_utils import Database

from storage.file_lock import FileLock
from storage.sqlite.connect import connect

#: Shorter words are no sign of one person: they stand in every file.
_SHORTEST: Final = 5
_CHUNK_BYTES: Final = 16 * 2**20
#: Types of B-tree pages, with the length of their headers.
_HEADERS: Final = {2: 12, 5: 12, 10: 8, 13: 8}
#: The first page begins with the header of the file.
_FILE_HEADER: Final = 100


def scrub(path: Path, lock_path: Path, timeout_seconds: float, words: Collection[str]) -> bool:
    """Cleans the files; False while a reader needs the old pages.

    Args:
        path: the database.
        lock_path: the lock among those who write to it.
        timeout_seconds: how long readers and writers are waited for.
        words: what must not be found any more.

    Raises:
        sqlite3.Error: the database can't be used.
        StoreUnavailable: another process writes for longer than that.
    """
    db = connect(path, "rw", timeout_seconds)
    try:
        if not _checkpoint(db):
            return False
        if not _linger(path, {word.encode() for word in words if len(word) >= _SHORTEST}):
            return True
        lock = FileLock(lock_path)
        try:
            lock.acquire_within(timeout_seconds)
            db.execute("PRAGMA temp_store = FILE")  # where the new file is built: memory need not have room for it
            db.execute("VACUUM")
        finally:
            lock.close()
        return _checkpoint(db)
    finally:
        db.close()


def _checkpoint(db: Database) -> bool:
    busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _linger(path: Path, words: set[bytes]) -> bool:
    """Whether one of the words stands in unallocated space and in no row: then it is of nobody who is still there."""
    unallocated: Counter[bytes] = Counter()
    for gap in _gaps(path):
        unallocated.update({word: gap.count(word) for word in words if word in gap})
    everywhere: Counter[bytes] = Counter()
    if unallocated:
        longest = max(map(len, unallocated))
        for chunk, seam in _chunks(path, overlap=longest):
            # What lies wholly in the seam was counted with the chunk before.
            everywhere.update({word: chunk.count(word) - seam.count(word) for word in unallocated})
    return any(everywhere[word] <= count for word, count in unallocated.items())


def _chunks(path: Path, overlap: int) -> Iterator[tuple[bytes, bytes]]:
    """The file in pieces, each with the end of the one before in front of it; and that end."""
    seam = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield seam + chunk, seam
            seam = (seam + chunk)[-overlap:]


def _gaps(path: Path) -> Iterator[bytes]:
    """What is not zero in the unallocated space of the pages of trees."""
    with path.open("rb") as file:
        head = file.read(_FILE_HEADER)
        size = int.from_bytes(head[16:18]) or 1
        size = 65_536 if size == 1 else size
        file.seek(0)
        first = _FILE_HEADER
        while chunk := file.read(_CHUNK_BYTES // size * size):
            for start in range(0, len(chunk), size):
                gap = _gap(chunk[start : start + size], first)
                if gap:
                    yield gap
                first = 0


def _gap(page: bytes, start: int) -> bytes:
    """The unallocated space of a page without the zeros around it; nothing of a page that is in no tree."""
    length = _HEADERS.get(page[start])
    if length is None:
        return b""
    cells, content = int.from_bytes(page[start + 3 : start + 5]), int.from_bytes(page[start + 5 : start + 7])
    return page[start + length + 2 * cells : content or 65_536].strip(b"\0")
