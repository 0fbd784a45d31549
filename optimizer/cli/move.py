"""``sendtide migrate``, ``copy``, ``backup``, ``restore``: databases as wholes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import click

from optimizer.cli.call import Call, SettingType, command, option
from optimizer.cli.group import EXIT_CODES
from optimizer.cli.progress import progress
from optimizer.errors import ConfigError

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(epilog=EXIT_CODES)
@command(workspace=False)
def migrate(call: Call) -> None:
    """Bring the database to this version's schema, creating it if need be; says how far it is then.

    The service does the same when it starts. Run it first where several hosts share a database, so that none of them
    starts on a schema that another one is changing.
    """
    from storage.open import migrate as brought
    from storage.open import shown

    with _configured():
        newest = brought(call.settings.database)
    call.answer(
        {"database": shown(call.settings.database), "schema": newest}, f"{shown(call.settings.database)} is at {newest}"
    )


@click.command(epilog=EXIT_CODES)
@option("--from", "source", type=SettingType("database"), required=True, help="The database to copy; stop its service.")
@option("--to", "target", type=SettingType("database"), help="Where to: a new, empty one. [default: --database]")
@option("--from-archive", type=_FOLDER, help="The archive's folder of the one to copy. [default: beside it]")
@command(workspace=False, settings=("archive_folder",))
def copy(call: Call, source: str, target: str | None, from_archive: Path | None) -> None:
    """Copy a whole installation into an empty database, of another kind or the same, and prove that all arrived.

    One that was interrupted goes on where it was. At the end both sides are read and compared, table by table, by
    number of rows and checksum. Until then nothing serves the copy.
    """
    from storage.archive_folder import copy_files, own_copies
    from storage.open import archive_folder, open_rows
    from storage.transfer import transfer

    to = target or call.settings.database
    with _configured(), _progress("copy") as note:
        old = open_rows(source, create=False)
        folder = _archive_of(call, to)
        with old.reading() as reader:
            copy_files(reader, from_archive or archive_folder(source), folder, note)
        new = open_rows(to)
        compared = transfer(old, new, note)
        with new.reading() as reader:
            own_copies(reader, folder)
    filled = [one for one in compared if one.rows]
    call.answer(
        [asdict(one) for one in compared],
        *(f"{one.table:<18} {one.rows:>12,}  {one.checksum}" for one in filled),
        f"{sum(one.rows for one in compared):,} rows of {len(filled)} tables are the same on both sides",
    )


@click.command(epilog=EXIT_CODES)
@click.argument("file", type=_FILE)
@command(workspace=False, settings=("archive_folder",))
def backup(call: Call, file: Path) -> None:
    """Write the whole database, as it is at one moment, to a new FILE while the service runs.

    FILE is a SQLite database, whatever the service stores in. It holds webhook secrets: only its owner may read it.
    What is archived lies in a folder FILE.archive beside it.
    """
    from storage.backup import backup as write

    with _configured(), _progress("backup") as note:
        write(call.settings.database, file, note, archive=call.settings.archive_path)
    size = file.stat().st_size
    call.answer({"file": click.format_filename(file), "bytes": size}, f"{file}: {size:,} bytes")


@click.command(epilog=EXIT_CODES)
@click.argument("file", type=_FILE)
@command(workspace=False, settings=("archive_folder",))
def restore(call: Call, file: Path) -> None:
    """Make a new database of a backup FILE; --database names it and must be empty."""
    from storage.backup import restore as read
    from storage.open import shown

    with _configured(), _progress("restore") as note:
        read(file, call.settings.database, note, archive=call.settings.archive_path)
    database = shown(call.settings.database)
    call.answer(
        {"file": click.format_filename(file), "database": click.format_filename(database)},
        f"{database} holds what {file} held",
    )


def _archive_of(call: Call, database: str) -> Path:
    """The archive's folder of a database that may be another than the settings'."""
    return replace(call.settings, database=database).archive_path


@contextmanager
def _configured() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ConfigError(str(error)) from error


@contextmanager
def _progress(title: str) -> Iterator[Callable[[str, int], None]]:
    with progress(title) as on_progress:
        done: Counter[str] = Counter()

        def note(table: str, rows: int) -> None:
            done[table] = rows
            on_progress(done.total(), None)

        yield note
