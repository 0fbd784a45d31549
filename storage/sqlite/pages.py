"""A program of its own: whether words stand in unallocated space of a SQLite file, and in no row.

``storage.sqlite.scrub`` runs it, since the process of a store must not open the file (``storage.sqlite.connect`` says
why). It needs the standard library alone, so that it starts quickly. Format of a page: sqlite.org/fileformat2.html,
"B-tree Pages".
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CHUNK_BYTES: Final = 16 * 2**20
#: Types of B-tree pages, with the length of their headers.
_HEADERS: Final = {2: 12, 5: 12, 10: 8, 13: 8}
#: The first page begins with the header of the file.
_FILE_HEADER: Final = 100


def main() -> None:
    """Reads words from standard input (a JSON array) and the file that the argument names; prints ``true`` or
    ``false``."""
    words = {word.encode() for word in json.load(sys.stdin.buffer)}
    print(json.dumps(_linger(Path(sys.argv[1]), words)))


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


if __name__ == "__main__":
    main()
