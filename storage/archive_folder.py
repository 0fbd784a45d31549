"""The archive's folder as a whole: whose it is, and copies of it."""

from __future__ import annotations

import os
import shutil
from hashlib import blake2b
from pathlib import Path
from typing import Final

from storage.errors import StoreUnavailable
from storage.parquet import checksum_of, flush
from storage.sql.rows import RowReader
from storage.transfer import CopyRefused, Note

#: Says to which installation the folder belongs, so that no other one takes its files for leftovers.
_OWNER: Final = "installation"


def claim(folder: Path, salt: bytes) -> bool:
    """Whether the folder is this installation's; it becomes so when it is nobody's.

    Raises:
        StoreUnavailable: it can't be used.
    """
    owner, name = folder / _OWNER, _name(salt)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not owner.exists():
            part = folder / f"{_OWNER}.{os.getpid()}"
            part.write_text(name)
            flush(part, os.O_RDONLY)
            part.replace(owner)
            flush(folder, os.O_RDONLY | os.O_DIRECTORY)
        return owner.read_text() == name
    except OSError as error:
        raise StoreUnavailable(f"archive {folder}: {error.strerror}") from error


def is_of(folder: Path, salt: bytes) -> bool:
    """Whether the folder is there and this installation's.

    Raises:
        StoreUnavailable: it can't be read.
    """
    try:
        return (folder / _OWNER).read_text() == _name(salt)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreUnavailable(f"archive {folder}: {error.strerror}") from error


def _name(salt: bytes) -> str:
    return blake2b(salt, digest_size=16, person=b"sendtide archive").hexdigest()


def copy_files(reader: RowReader, source: Path, target: Path, note: Note = lambda *_: None) -> None:
    """Copies the files that a database names, with their owner; what is there already and the same is left.

    Raises:
        CopyRefused: a file is missing or not what the database says, or the target is another's.
        StoreUnavailable: one of the two folders can't be used.
    """
    files = list(reader.rows("archive_files", ("workspace_id", "number", "path", "checksum")))
    if not files:
        return
    if source.absolute() == target.absolute():
        raise CopyRefused(f"archive {target}: the copy needs a folder of its own; SENDTIDE_ARCHIVE_FOLDER names one")
    try:
        owner = (source / _OWNER).read_text()
        if (target / _OWNER).exists() and (target / _OWNER).read_text() != owner:
            raise CopyRefused(f"archive {target} belongs to another installation")
        for done, (_, _, path, checksum) in enumerate(files):
            _copy(source / path, target / path, bytes(checksum))
            note("archive files", done + 1)
        (target / _OWNER).write_text(owner)
    except FileNotFoundError as error:
        raise CopyRefused(
            f"archive file {error.filename} is missing, or was rewritten meanwhile: run it again"
        ) from error
    except OSError as error:
        raise StoreUnavailable(f"archive {error.filename}: {error.strerror}") from error


def _copy(source: Path, target: Path, checksum: bytes) -> None:
    if not target.exists() or checksum_of(target) != checksum:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        shutil.copyfile(source, part)
        part.chmod(0o600)
        flush(part, os.O_RDONLY)
        if checksum_of(part) != checksum:
            part.unlink()
            raise CopyRefused(f"archive file {source} is not what the database says that it is")
        part.replace(target)
        flush(target.parent, os.O_RDONLY | os.O_DIRECTORY)
