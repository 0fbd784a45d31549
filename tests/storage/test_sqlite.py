"""The SQLite backend's own behaviour: files, schema, unavailability, durability settings, query plans."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from storage.errors import StoreUnavailable
from storage.file_lock import FileLock
from storage.open import open_store
from storage.port import Writer
from storage.sqlite import SqliteStore
from storage.sqlite.transaction import SqliteWriter
from tests.storage.builders import WORKSPACE, make_artifact, make_campaign, make_decision, make_event, make_message
from tests.storage.conftest import Opener

ROOT = Path(__file__).parents[2]


def log(number: int) -> Callable[[Writer], None]:
    """A work that logs one decision."""
    decision = make_decision(decision_id=f"dec_{number}")
    return lambda writer: writer.add_decision(decision, make_message(decision))


def logged(store: SqliteStore) -> set[str]:
    with store.read() as reader:
        return {decision.decision_id for decision in reader.decisions(WORKSPACE, limit=10_000).items}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_and_new_folders_are_the_owners_alone(opener: Opener, path: Path, tmp_path: Path) -> None:
    before = mode(tmp_path)
    store = opener()
    store.write(log(1))
    assert [mode(path.parent), mode(path.parent.parent)] == [0o700, 0o700]
    assert {file.name: mode(file) for file in path.parent.iterdir()} == {
        f"store.db{suffix}": 0o600 for suffix in ("", "-wal", "-shm", ".lock", ".queue")
    }
    assert mode(tmp_path) == before


def test_relative_and_absolute_urls_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///a/b%20?c#.db", f"sqlite:///{tmp_path}/d.db"):
        store = open_store(url)
        store.check()
        store.close()
    assert (tmp_path / "a" / "b%20?c#.db").exists()
    assert (tmp_path / "d.db").exists()


def test_commits_are_flushed_to_a_write_ahead_log(opener: Opener) -> None:
    def pragmas(writer: Writer) -> tuple[object, ...]:
        assert isinstance(writer, SqliteWriter)
        names = ("journal_mode", "synchronous")
        return tuple(writer._query(f"PRAGMA {name}").fetchone()[0] for name in names)

    assert opener().write(pragmas) == ("wal", 2)


def test_a_reader_can_not_write(opener: Opener) -> None:
    store = opener()
    with pytest.raises(StoreUnavailable, match="readonly"), store.read() as reader:
        reader._query("DELETE FROM decisions", ())  # type: ignore[attr-defined]  # past the port on purpose


@pytest.mark.parametrize("place", ["file/store.db", "folder"])
def test_a_path_that_can_not_hold_a_database_is_unavailable(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreUnavailable, match=str(tmp_path / place)):
        open_store(f"sqlite:///{tmp_path / place}")


def test_a_read_only_folder_is_unavailable() -> None:
    # /sys can't be written by anybody, root included: a temporary folder without the write bit would not stop root.
    with pytest.raises(StoreUnavailable):
        open_store("sqlite:////sys/store.db")


def test_a_database_locked_by_another_program_is_unavailable_and_records_nothing(opener: Opener, path: Path) -> None:
    store = opener()
    store.write(log(1))
    with closing(sqlite3.connect(path, isolation_level=None)) as rival:
        rival.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match=r"locked|no turn"):
            store.write(log(2))
        with pytest.raises(StoreUnavailable):
            store.check()
        assert logged(store) == {"dec_1"}, "reading goes on"
        rival.execute("ROLLBACK")
    deadline = time.monotonic() + 5.0
    while True:  # the check's own attempt may be giving up just now, with all that waits behind it
        try:
            store.write(log(3))
            break
        except StoreUnavailable:
            assert time.monotonic() < deadline
    assert logged(store) == {"dec_1", "dec_3"}


def test_a_process_that_never_gives_its_turn_back_makes_writes_unavailable(opener: Opener, path: Path) -> None:
    store = opener()
    lock = FileLock(path.with_name("store.db.lock"))
    lock.acquire()
    with pytest.raises(StoreUnavailable, match="no turn"):
        store.write(log(1))
    with pytest.raises(StoreUnavailable, match="no turn"):
        store.check()
    lock.release()
    opener(5.0).write(log(2))
    lock.close()
    assert logged(store) == {"dec_2"}, "what was given up is never written later"


def test_a_database_that_was_deleted_is_unavailable(opener: Opener, path: Path) -> None:
    store = opener()
    store.write(log(1))
    path.unlink()
    with pytest.raises(StoreUnavailable, match=str(path)):
        store.write(log(2))
    with pytest.raises(StoreUnavailable):
        store.check()


def test_reads_and_writes_follow_a_file_that_replaces_the_database(opener: Opener, path: Path, tmp_path: Path) -> None:
    restored = SqliteStore(tmp_path / "restored.db")
    restored.write(log(7))
    restored.close()
    store = opener()
    store.write(log(1))
    with store.read() as under_way:
        assert logged(store) == {"dec_1"}
        for ending in ("", "-wal", "-shm"):
            path.with_name(path.name + ending).unlink()
        with pytest.raises(StoreUnavailable, match=str(path)), store.read():
            pass
        (tmp_path / "restored.db").rename(path)
        assert under_way.decision(WORKSPACE, "dec_1") is not None, "one snapshot to its end"
        for _ in range(2):
            assert logged(store) == {"dec_7"}
    assert logged(store) == {"dec_7"}
    store.write(log(8))
    assert logged(store) == {"dec_7", "dec_8"}
    assert len(store._idle) == 1


def test_a_full_database_is_unavailable_and_only_for_what_does_not_fit(opener: Opener) -> None:
    store = opener(5.0)
    store.write(log(1))

    def fill(writer: Writer) -> None:
        assert isinstance(writer, SqliteWriter)
        pages = writer._query("PRAGMA page_count").fetchone()[0]
        writer._query(f"PRAGMA max_page_count = {pages + 2}")
        for number in range(1000):
            writer.add_event(make_event(event_id=f"e{number}"))

    with pytest.raises(StoreUnavailable, match="full"):
        store.write(fill)
    with store.read() as reader:
        assert reader.events(WORKSPACE, make_decision()) == ()
    assert logged(store) == {"dec_1"}
    store.write(log(2))
    assert logged(store) == {"dec_1", "dec_2"}


FULL_DISK = """
import sys
from storage.errors import StoreUnavailable
from storage.open import open_store
from tests.storage.builders import make_decision, make_message
store = open_store(sys.argv[1])
for number in range(100_000):
    decision = make_decision(decision_id=f"dec_{number}")
    try:
        store.write(lambda writer: writer.add_decision(decision, make_message(decision)))
    except StoreUnavailable:
        break
    print(decision.decision_id)
store.close()
"""


def test_a_disk_that_fills_up_costs_only_what_was_not_acknowledged(opener: Opener, path: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))

    done = subprocess.run(
        [sys.executable, "-B", "-c", FULL_DISK, f"sqlite:///{path}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=limit,
    )
    acknowledged = set(done.stdout.split())
    assert 5 < len(acknowledged) < 100_000
    assert logged(opener()) == acknowledged


def test_a_mistake_in_a_statement_is_not_called_unavailable(opener: Opener) -> None:
    def wrong(writer: Writer) -> None:
        writer._query("SELECT nonsense", ())  # type: ignore[attr-defined]  # past the port on purpose

    with pytest.raises(sqlite3.OperationalError, match="nonsense"):
        opener().write(wrong)


def test_a_reader_and_a_writer_end_with_their_transaction(opener: Opener) -> None:
    store = opener()
    store.write(lambda writer: writer.put_campaign(make_campaign()))
    with store.read() as reader:
        rows = reader.feedback(WORKSPACE)
    with pytest.raises(StoreUnavailable, match="ended"):
        reader.campaign(WORKSPACE, "spring")
    writer = store.write(lambda writer: writer)
    with pytest.raises(StoreUnavailable, match="ended"):
        writer.campaign(WORKSPACE, "spring")
    with pytest.raises(sqlite3.ProgrammingError):
        next(rows)


def test_a_write_inside_a_write_is_refused_instead_of_waiting_for_itself(opener: Opener) -> None:
    store = opener()

    def nested(writer: Writer) -> None:
        store.write(log(1))

    with pytest.raises(RuntimeError, match="inside a write"):
        store.write(nested)
    store.write(log(2))
    assert logged(store) == {"dec_2"}


def test_a_store_opened_before_a_fork_is_refused_after_it(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opener()
    child = os.getpid() + 1
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: child)
        with pytest.raises(RuntimeError, match="fork"):
            store.write(log(1))
        with pytest.raises(RuntimeError, match="fork"), store.read():
            pass
    assert logged(store) == set()


def test_idle_connections_are_reused_and_limited(opener: Opener) -> None:
    store = opener()
    together = threading.Barrier(40)

    def look(_: int) -> None:
        with store.read() as reader:
            assert reader.workspaces() == ()
            together.wait(20)

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(look, range(40)))
    assert len(store._idle) == 16
    for _ in range(50):
        with store.read() as reader:
            reader.workspaces()
    assert len(store._idle) == 16
    store.close()
    assert store._idle == []


def test_a_read_under_way_survives_the_closing_of_the_store(opener: Opener) -> None:
    store = opener()
    store.write(log(1))
    with store.read() as reader:
        store.close()
        assert reader.decision(WORKSPACE, "dec_1") is not None
    assert store._idle == []


def test_hot_statements_search_an_index_and_never_scan_or_sort(opener: Opener) -> None:
    """The cost of a read must not grow with the log: every step of its plan is a SEARCH."""
    from storage.sql import decision_tables, event_tables, learning_tables, usage_tables
    from storage.sqlite import tables

    statements = {
        decision_tables._BY_ID: 2,
        decision_tables._BY_MESSAGE: 3,
        decision_tables._BY_MESSAGE_OF_ONE: 4,
        decision_tables._DUE: 4,
        decision_tables._OPEN: 2,
        decision_tables._MESSAGES: 4,
        event_tables._NAMING: 2,
        event_tables._OF_RECIPIENT: 3,
        event_tables._AWAITING: 2,
        event_tables._BY_MESSAGE: 5,
        learning_tables._CHANGES: 3,
        learning_tables._OF_POLICIES: 2,
        learning_tables._OF_POLICY: 3,
        tables._NEWEST: 0,
        usage_tables._USED: 4,
        usage_tables._SUMMED_RULES: 1,
        usage_tables._UNANSWERED: 2,
    }
    with opener().read() as reader:
        for statement, parameters in statements.items():
            plan = reader._rows("EXPLAIN QUERY PLAN " + statement.replace("{marks}", "?"), (0,) * parameters)  # type: ignore[attr-defined]  # past the port on purpose
            assert [step[3].split()[0] for step in plan] == ["SEARCH"], (statement, plan)


def test_artifacts_are_stored_compressed_and_those_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = open_store(f"sqlite:///{path}")
    artifact = make_artifact(blob=b"model" + bytes(100_000))
    try:
        store.write(lambda writer: writer.put_artifact(artifact))
        with closing(sqlite3.connect(path, isolation_level=None)) as raw:
            ((kept,),) = raw.execute("SELECT length(blob) FROM artifacts").fetchall()
            assert kept < 1_000
            for stored in (artifact.blob, b"zlib\0 cut short"):
                raw.execute("UPDATE artifacts SET blob = ?", (stored,))
                with store.read() as reader:
                    found = reader.artifact(WORKSPACE, artifact.artifact_id)
                assert found is not None
                assert found.blob == stored, "as it lies there; whoever loads it checks its sum"
    finally:
        store.close()
