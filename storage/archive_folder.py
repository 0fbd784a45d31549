"""The archive's folder as a whole: whose it is, and copies of it."""

from __future__ import annotations

import os
import shutil
from hashlib import blake2b
from pathlib import Path
from typing import Final

from storage.errors import StoreUnavailable
from storage.parquet import checksum_of, flush
from storage.port import Reader
from storage.sql.rows import ARCHIVE_OWNER, RowReader
from storage.transfer import CopyRefused, Note

#: Says to which database the folder belongs, so that no other one takes its files for leftovers.
_OWNER: Final = "installation"


def owner_of(reader: Reader, salt: bytes) -> str:
    """The name by which the folder knows a database: one of its own where it is a copy (``ARCHIVE_OWNER``), since it
    shares its salt with what it was copied from, which may live on."""
    return reader.meta(ARCHIVE_OWNER) or blake2b(salt, digest_size=16, person=b"sendtide archive").hexdigest()


def claim(folder: Path, name: str) -> bool:
    """Whether the folder is this database's (``owner_of``); it becomes so when it is nobody's.

    Raises:
        StoreUnavailable: it can't be used.
    """
    owner = folder / _OWNER
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


def is_of(folder: Path, name: str) -> bool:
    """Whether the folder is there and this database's (``owner_of``).

    Raises:
        StoreUnavailable: it can't be read.
    """
    try:
        return (folder / _OWNER).read_text() == name
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreUnavailable(f"archive {folder}: {error.strerror}") from error


def copy_files(reader: RowReader, source: Path, target: Path, note: Note = lambda *_: None) -> int:
    """Copies the files that a database names into a folder that is nobody's, and returns how many there are; what is
    there already and the same of a copy that was cut short, is left. The new database gets the folder once it is whole.

    Raises:
        CopyRefused: a file is missing or not what the database says, or the target is some database's.
        StoreUnavailable: one of the two folders can't be used.
    """
    files = list(reader.rows("archive_files", ("workspace_id", "number", "path", "checksum")))
    if not files:
        return 0
    if source.absolute() == target.absolute():
        raise CopyRefused(f"archive {target}: the copy needs a folder of its own; SENDTIDE_ARCHIVE_FOLDER names one")
    try:
        if (target / _OWNER).exists():
            raise CopyRefused(
                f"archive {target} belongs to a database, which may live and lose its files to this one: let "
                f"SENDTIDE_ARCHIVE_FOLDER name a new folder, or move this one away if its database is gone"
            )
        for done, (_, _, path, checksum) in enumerate(files):
            _copy(source / path, target / path, bytes(checksum))
            note("archive files", done + 1)
        return len(files)
    except FileNotFoundError as error:
        raise CopyRefused(
            f"archive file {error.filename} is missing, or was rewritten meanwhile: run it again"
        ) from error
    except OSError as error:
        raise StoreUnavailable(f"archive {error.filename}: {error.strerror}") from error


def own_copies(reader: RowReader, folder: Path) -> None:
    """Gives a new database the folder into which the files were copied that it names.

    Raises:
        StoreUnavailable: it can't be used.
    """
    if next(reader.rows("archive_files", ("number",)), None) is not None:
        facts = {str(name): str(value) for name, value in reader.rows("meta", ("name", "value"))}
        claim(folder, facts[ARCHIVE_OWNER])


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
