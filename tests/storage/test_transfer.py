"""Copies, backups and restores: everything arrives, whichever way, and what doesn't is found."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg
import pytest

from storage.archive_folder import claim, copy_files, owner_of
from storage.backup import backup, restore
from storage.endpoints import Delivery, Endpoint
from storage.errors import AlreadyExists, StoreUnavailable
from storage.intake import Intake
from storage.open import open_rows, open_store
from storage.policies import Pointer
from storage.port import Reader, Store, Writer
from storage.ranks import RankModel
from storage.rhythm import RhythmSum
from storage.rules import Capacity
from storage.sql.rows import COPYING, TABLES
from storage.transfer import CopyRefused, transfer
from storage.webhooks import WebhookSource
from tests.postgresql import Server
from tests.storage.archives import archive_all
from tests.storage.builders import (
    NOON,
    WORKSPACE,
    at,
    foreign_message,
    make_artifact,
    make_attribute,
    make_campaign,
    make_decision,
    make_event,
    make_key,
    make_message,
    make_policy,
    make_recipient,
    make_rule,
    make_run,
    make_workspace,
)
from tests.storage.test_contract_ranks import make_rank, reward

WAYS = [("sqlite", "postgresql"), ("postgresql", "sqlite"), ("postgresql", "postgresql"), ("sqlite", "sqlite")]
MakeDatabase = Callable[[str], str]
#: The folder of every database's archive here: files are the same whichever database names them.
ARCHIVE = Path("archive")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def make_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeDatabase]:
    """Makes an empty database of a kind and gives its URL."""
    taken: list[tuple[Server, str]] = []
    numbers = itertools.count()

    def make(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/{next(numbers)}.db"
        server: Server = request.getfixturevalue("postgresql")
        taken.append((server, server.take()))
        return taken[-1][1]

    yield make
    for server, url in taken:
        server.give_back(url)


def set_up(writer: Writer) -> None:
    writer.put_meta("salt", "5a17")
    writer.put_workspace(make_workspace())
    writer.put_key(make_key())
    writer.put_campaign(make_campaign())
    writer.put_campaign(make_campaign(version=2))
    writer.put_attribute(make_attribute())
    writer.put_rule(make_rule())
    writer.put_rule(make_rule(rule_id="room", kind="capacity", parameters=Capacity(10, 60)))
    writer.put_webhook_source(WebhookSource(WORKSPACE, "main", "sendgrid", ("k",), created_at=NOON, updated_at=NOON))
    writer.use_token(WORKSPACE, "main", "t", "e", now=at(0), until=at(99))
    writer.put_endpoint(Endpoint(WORKSPACE, "b", "https://example.org/", ("whsec_x",), ("displaced",), at(0), at(1)))
    writer.put_delivery(Delivery(WORKSPACE, "b", 7, 5, 2, at(1), at(2), at(3), 500, "é", None))


def happen(writer: Writer) -> None:
    """A log in two workspaces, some of it with characters that one of the databases refuses, and some of it old."""
    for number in range(3):
        old = make_decision(decision_id=f"old-{number}", recipient_id=f"old-{number}", request_id=f"\0{number}")
        writer.add_decision(replace(old, decided_at=at(-200), status="released", close_reason="\0"), None)
        writer.add_event(make_event(event_id=f"old-{number}", decision_id=old.decision_id))
    for workspace_id in (WORKSPACE, "w2", WORKSPACE):
        for number in range(3):
            name = f"{workspace_id}\0{number}"
            if writer.decision(workspace_id, name) is None:
                decision = make_decision(workspace_id=workspace_id, decision_id=name, recipient_id=f"u{number}")
                writer.add_decision(decision, make_message(decision))
                writer.add_event(make_event(workspace_id=workspace_id, event_id="ev" + name, decision_id=name))
    writer.update_decision(make_decision(decision_id=f"{WORKSPACE}\0000", recipient_id="u0", status="released"), None)
    writer.add_message(foreign_message(message_ref="\1"))
    writer.put_recipient(make_recipient())
    writer.add_unanswered(WORKSPACE, "u1", 3)
    writer.add_to_rhythm(WORKSPACE, "u1", [RhythmSum("answered", 3, 0.125)])
    writer.add_vendor_event(make_event(event_id="told"), "sendgrid", {"event": "open\0"})
    writer.add_change(WORKSPACE, "displaced", at(1), decision_id="x")
    writer.put_import_position(WORKSPACE, "i", 7)
    writer.take_lease("job", "me", at(0), at(1))


def learn(writer: Writer) -> None:
    writer.put_artifact(make_artifact(blob=bytes(range(256)) * 20_000))
    writer.add_policy(make_policy())
    writer.move_pointer(Pointer(WORKSPACE, "spring", "pol_1", 1, at(0)))
    writer.add_change(WORKSPACE, "promoted", at(0), campaign_id="spring", policy_id="pol_1", replaced_id="é")
    writer.put_training_run(make_run())
    for name in ("e1", "e2"):
        writer.add_rank(make_rank(name))
    writer.add_rank_reward(reward("e1", 0.5))
    writer.put_rank_model(RankModel(WORKSPACE, 1, at(0), at(0), 0, b"\0blob"))
    writer.put_loop_document(WORKSPACE, "evaluation", "d", b"{}")
    writer.count_intake([Intake(WORKSPACE, at(0).date(), "api", "matched", 3)])
    writer.end_session("session", at(600), at(0))


def grow(url: str) -> None:
    with closing(open_store(url, ARCHIVE)) as store:
        for work in (set_up, happen, learn):
            store.write(work)
        assert archive_all(store, at(-100)) == 3
        store.write(lambda writer: writer.bring_back(WORKSPACE, "old-2"))


def told(reader: Reader) -> object:
    """What one asks of a database, with what equality leaves out."""
    feedback = list(reader.feedback(WORKSPACE))
    return (
        feedback,
        [(row.decision.position, row.decision.closed_after) for row in feedback],
        [event.known_after for row in feedback for event in row.events],
        reader.decisions("w2", limit=99),
        list(reader.message_log(WORKSPACE)),
        reader.recipient(WORKSPACE, "u1"),
        reader.campaign(WORKSPACE, "spring"),
        reader.rule_history(WORKSPACE),
        reader.usage(WORKSPACE, [("room", 0, 10**9)]),
        reader.unanswered(WORKSPACE, ["u1"]),
        reader.rhythms(WORKSPACE, ["u1"]),
        reader.keys(WORKSPACE),
        reader.policies(WORKSPACE, limit=9),
        reader.artifact(WORKSPACE, "art_1"),
        list(reader.ranks(WORKSPACE)),
        reader.rank_model(WORKSPACE),
        reader.changes(WORKSPACE, after=0, limit=9),
        reader.config_version(WORKSPACE),
        reader.vendor_words(WORKSPACE, "dec_1"),
        reader.intake(WORKSPACE, at(0).date()),
        reader.session_ended("session"),
    )


def read(url: str) -> object:
    with closing(open_store(url, ARCHIVE)) as store, store.read() as reader:
        return told(reader)


def go_on(store: Store) -> None:
    """Numbers that the database gives come after all that it was given."""
    with store.read() as reader:
        newest = max(row.decision.position for name in (WORKSPACE, "w2") for row in reader.feedback(name))
        rank, change = reader.rank_position(WORKSPACE), reader.newest_change(WORKSPACE)

    def work(writer: Writer) -> None:
        writer.add_message(foreign_message(message_ref="later"))
        writer.add_decision(make_decision(decision_id="later"), None)
        writer.add_rank(make_rank("later"))
        writer.add_policy(make_policy(policy_id="later"))
        assert writer.add_change(WORKSPACE, "displaced", at(2)) == change + 1

    store.write(work)
    with store.read() as reader:
        later = reader.decision(WORKSPACE, "later")
        assert later is not None
        assert later.position > newest
        assert reader.rank_position(WORKSPACE) > rank


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_everything_arrives_whichever_way_and_life_goes_on(
    source: str, target: str, make_database: MakeDatabase
) -> None:
    old, new = make_database(source), make_database(target)
    grow(old)
    compared = transfer(open_rows(old), open_rows(new))
    assert [one.table for one in compared] == list(TABLES)
    assert {one.table for one in compared if not one.rows} == set()
    assert read(new) == read(old)
    with closing(open_store(new, ARCHIVE)) as store:
        go_on(store)


@pytest.mark.parametrize("still_there", [False, True], ids=["all archived", "an earlier one is not"])
@pytest.mark.parametrize(("source", "target"), WAYS)
def test_what_is_told_after_a_copy_is_known_after_the_archived_decisions_of_before(
    source: str, target: str, make_database: MakeDatabase, *, still_there: bool
) -> None:
    old, new = make_database(source), make_database(target)
    first = make_decision(decision_id="first")
    last = make_decision(decision_id="last", decided_at=at(-200), status="released")
    with closing(open_store(old, ARCHIVE)) as store:
        store.write(set_up)
        for decision in (*([first] if still_there else []), last, make_decision(workspace_id="w2")):
            store.write(lambda writer, one=decision: writer.add_decision(one, None))  # type: ignore[misc]  # a default binds the loop's variable
        # The workspace's newest; PostgreSQL keeps that of each in its tables.
        assert archive_all(store, at(-100)) == (1 if source == "sqlite" else 0)
    transfer(open_rows(old), open_rows(new))

    def tell(writer: Writer) -> None:
        if still_there:
            with pytest.raises(AlreadyExists):  # which gives no number
                writer.add_decision(first, None)
        writer.put_rule(make_rule(rule_id="new"))
        writer.put_recipient(make_recipient())
        writer.add_message(foreign_message())

    with closing(open_store(new, ARCHIVE)) as store:
        store.write(tell)
        with store.read() as reader:
            decided = reader.decision(WORKSPACE, "last")
            person = reader.recipient(WORKSPACE, make_recipient().recipient_id)
            (rule,) = (one for one in reader.rules(WORKSPACE) if one.rule_id == "new")
            (message,) = reader.message_log(WORKSPACE)
    assert decided is not None
    assert person is not None
    assert min(rule.changed_after, person.changed_after, message.known_after) >= decided.position


class Cut:
    """A target that fails at its nth transaction."""

    def __init__(self, url: str, after: int) -> None:
        self._rows, self._left = open_rows(url), after
        self.schema, self.reading = self._rows.schema, self._rows.reading

    def writing(self):  # type: ignore[no-untyped-def]  # as the real one's
        self._left -= 1
        if self._left < 0:
            raise StoreUnavailable("as planned")
        return self._rows.writing()


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_a_copy_that_is_interrupted_anywhere_goes_on_where_it_was(target: str, make_database: MakeDatabase) -> None:
    old, new = make_database("sqlite"), make_database(target)
    grow(old)
    interruptions = 0
    while True:
        try:
            transfer(open_rows(old), Cut(new, after=5))
        except StoreUnavailable:
            interruptions += 1
            with closing(open_store(new, ARCHIVE)) as store, store.read() as reader:
                assert reader.meta(COPYING) is not None
        else:
            break
    assert interruptions > 5
    assert read(new) == read(old)


def test_a_copy_goes_into_nothing_but_an_empty_database_or_its_own_beginning(make_database: MakeDatabase) -> None:
    old, other, new = (make_database("sqlite") for _ in range(3))
    with pytest.raises(CopyRefused, match="no installation"):
        transfer(open_rows(old), open_rows(new))
    grow(old)
    with closing(open_store(other, ARCHIVE)) as store:
        store.write(lambda writer: writer.put_meta("salt", "other"))
    with pytest.raises(CopyRefused, match="not empty; name"):
        transfer(open_rows(old), open_rows(other))
    with pytest.raises(CopyRefused, match="not empty: it is the source itself"):
        transfer(open_rows(old), open_rows(old))
    with pytest.raises(StoreUnavailable):
        transfer(open_rows(old), Cut(new, after=5))
    with pytest.raises(CopyRefused, match="another installation"):
        transfer(open_rows(other), open_rows(new))
    with pytest.raises(CopyRefused, match="a copy into the source is unfinished"):
        transfer(open_rows(new), open_rows(new))


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_a_row_that_differs_is_found_by_the_comparison(target: str, make_database: MakeDatabase) -> None:
    old, new = make_database("sqlite"), make_database(target)
    grow(old)
    with pytest.raises(StoreUnavailable):
        transfer(open_rows(old), Cut(new, after=len(TABLES)))
    with closing(open_store(old, ARCHIVE)) as store:
        store.write(lambda writer: writer.put_workspace(replace(make_workspace(), name="renamed")))
    with pytest.raises(CopyRefused, match="table workspaces has 1 rows in the source and 1 in the target"):
        transfer(open_rows(old), open_rows(new))


def test_every_table_is_copied(make_database: MakeDatabase) -> None:
    url, file = make_database("postgresql"), make_database("sqlite")
    open_rows(file)
    with psycopg.connect(url) as server:
        theirs = {row[0] for row in server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    with closing(sqlite3.connect(file.removeprefix("sqlite:///"))) as db:
        ours = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert theirs - {"migrations"} == set(TABLES)
    assert {name for name in ours if not name.startswith(("sqlite_", "_sqlite"))} == set(TABLES)


def test_tables_and_columns_are_the_same_in_both_databases(make_database: MakeDatabase) -> None:
    with (
        open_rows(make_database("sqlite")).reading() as ours,
        open_rows(make_database("postgresql")).reading() as theirs,
    ):
        for table in TABLES:
            assert set(ours.columns(table)) == set(theirs.columns(table)) != set(), table
            assert ours.key(table), table
            assert theirs.key(table), table


def add_load(number: int, writer: Writer) -> None:
    """A decision and its event, in one transaction."""
    added = make_decision(decision_id=f"load_{number}")
    writer.add_decision(added, make_message(added))
    writer.add_event(make_event(event_id=f"load_{number}", decision_id=added.decision_id))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_backup_under_load_is_whole_and_restores_to_either_kind(
    kind: str, make_database: MakeDatabase, tmp_path: Path
) -> None:
    url, file = make_database(kind), tmp_path / "backups.sqlite"
    grow(url)
    acknowledged: list[str] = []
    enough, ended = threading.Event(), threading.Event()

    with closing(open_store(url, ARCHIVE)) as store:

        def caller() -> None:
            number = 0
            while not ended.is_set():
                store.write(partial(add_load, number), recipients=[(WORKSPACE, "u1")])
                acknowledged.append(f"load_{number}")
                number += 1
                if number == 30:
                    enough.set()

        thread = threading.Thread(target=caller)
        thread.start()
        assert enough.wait(20)
        before = list(acknowledged)
        backup(url, file, archive=ARCHIVE)
        ended.set()
        thread.join()
    assert file.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith("backups")} == {
        file.name,
        f"{file.name}.archive",
    }
    for target in (make_database("sqlite"), make_database("postgresql")):
        folder = tmp_path / "restored" / target[:10].replace(":", "").replace("/", "")
        restore(file, target, archive=folder)
        with closing(open_store(target, folder)) as restored, restored.read() as reader:
            assert [reader.decisions(WORKSPACE, limit=9, recipient_id=f"old-{n}").items != () for n in range(4)] == [
                *(True, True, True),
                False,
            ]
            assert set(before) <= set(reader.decisions_by_id(WORKSPACE, before))
            loaded = [row for row in reader.feedback(WORKSPACE) if row.decision.decision_id.startswith("load_")]
            assert all(any(e.event_id == row.decision.decision_id for e in row.events) for row in loaded)
            assert reader.meta(COPYING) is None
        with pytest.raises(CopyRefused):
            restore(file, target)


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_a_backup_that_is_restored_stays_as_it_was(target: str, make_database: MakeDatabase, tmp_path: Path) -> None:
    url, folder = make_database("sqlite"), tmp_path / "backups"
    grow(url)
    folder.mkdir()
    backup(url, folder / "b.sqlite", archive=ARCHIVE)
    names, content = sorted(one.name for one in folder.iterdir()), (folder / "b.sqlite").read_bytes()
    restore(folder / "b.sqlite", make_database(target), archive=tmp_path / "restored")
    assert sorted(one.name for one in folder.iterdir()) == names
    assert (folder / "b.sqlite").read_bytes() == content


def test_what_pg_dump_wrote_can_be_served(make_database: MakeDatabase, postgresql: Server, tmp_path: Path) -> None:
    old, new, file = make_database("postgresql"), postgresql.create(template=None), tmp_path / "dump"
    grow(old)
    subprocess.run([postgresql.tool("pg_dump"), "--format=custom", f"--file={file}", old], check=True)
    subprocess.run([postgresql.tool("pg_restore"), f"--dbname={new}", file], check=True)
    assert read(new) == read(old)
    with closing(open_store(new, ARCHIVE)) as store:
        go_on(store)
    postgresql.drop(new)


def test_a_backup_never_overwrites_and_needs_a_database(make_database: MakeDatabase, tmp_path: Path) -> None:
    url, file = make_database("sqlite"), tmp_path / "b.sqlite"
    with pytest.raises(CopyRefused, match="not there"):
        backup(url, file)
    grow(url)
    file.write_text("mine")
    with pytest.raises(CopyRefused, match="there already"):
        backup(url, file)
    assert file.read_text() == "mine"
    with pytest.raises(StoreUnavailable):
        backup(url, Path("/proc/nobody/b.sqlite"))
    with pytest.raises(CopyRefused, match="not there"):
        restore(tmp_path / "nothing.sqlite", f"sqlite:///{tmp_path}/new.db")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal"])
def test_nothing_is_written_beside_what_a_killed_process_left_of_another_file(
    kind: str, ending: str, make_database: MakeDatabase, tmp_path: Path
) -> None:
    url, file, new = make_database(kind), tmp_path / "b.sqlite", tmp_path / "new.db"
    with closing(open_store(url, ARCHIVE)) as store:
        store.write(set_up)
    backup(url, file)
    left = tmp_path / f"new.db{ending}"
    left.write_bytes(b"of the file that was here")
    with pytest.raises(CopyRefused, match=rf"new\.db{ending}.*move it away"):
        restore(file, f"sqlite:///{new}")
    with pytest.raises(CopyRefused, match=rf"new\.db{ending}.*move it away"):
        backup(url, new)
    assert left.read_bytes() == b"of the file that was here"
    assert not new.exists()
    left.unlink()
    restore(file, f"sqlite:///{new}")
    assert read(f"sqlite:///{new}") == read(url)


def test_files_of_an_archive_are_copied_and_compared(make_database: MakeDatabase, tmp_path: Path) -> None:
    url, copies = make_database("sqlite"), tmp_path / "copies"
    grow(url)
    with open_rows(url).reading() as reader:
        for _ in range(2):  # again: what is there is left
            copy_files(reader, ARCHIVE, copies)
        (file,) = copies.rglob("*.parquet")
        assert file.read_bytes() == next(ARCHIVE.rglob("*.parquet")).read_bytes()
        with pytest.raises(CopyRefused, match="a folder of its own"):
            copy_files(reader, ARCHIVE, ARCHIVE)
        file.write_bytes(b"damaged")
        copy_files(reader, ARCHIVE, copies)
        next(ARCHIVE.rglob("*.parquet")).write_bytes(b"damaged")
        with pytest.raises(CopyRefused, match="not what the database says"):
            copy_files(reader, ARCHIVE, tmp_path / "others")
        next(ARCHIVE.rglob("*.parquet")).unlink()
        with pytest.raises(CopyRefused, match="missing"):
            copy_files(reader, ARCHIVE, tmp_path / "others")
        assert claim(copies, "one")
        assert not claim(copies, "another")
        with pytest.raises(CopyRefused, match="SENDTIDE_ARCHIVE_FOLDER name a new folder"):
            copy_files(reader, ARCHIVE, copies)


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_a_copy_has_an_archive_of_its_own(
    source: str, target: str, make_database: MakeDatabase, tmp_path: Path
) -> None:
    url, new, file = make_database(source), make_database(target), tmp_path / "b.sqlite"
    grow(url)
    owners = {(ARCHIVE / "installation").read_text()}
    backup(url, file, archive=ARCHIVE)
    with pytest.raises(CopyRefused, match="belongs to a database, which may live"):
        restore(file, new, archive=ARCHIVE)
    restore(file, new, archive=tmp_path / "restored")
    for made, folder in ((new, tmp_path / "restored"), (f"sqlite:///{file}", tmp_path / "b.sqlite.archive")):
        with closing(open_store(made, folder)) as store, store.read() as reader:
            owner = owner_of(reader, bytes.fromhex("5a17"))
            assert claim(folder, owner)
            assert not claim(ARCHIVE, owner)
            owners.add(owner)
    assert len(owners) == 3


def test_a_copy_that_was_cut_short_before_it_owned_its_folder_goes_on(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    url, new, file = make_database("sqlite"), make_database("postgresql"), tmp_path / "b.sqlite"
    grow(url)
    backup(url, file, archive=ARCHIVE)

    def cut(table: str, _: int) -> None:
        if table == "recipients":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(file, new, cut, archive=tmp_path / "restored")
    restore(file, new, archive=tmp_path / "restored")
    with closing(open_store(new, tmp_path / "restored")) as store, store.read() as reader:
        assert claim(store.archive, owner_of(reader, bytes.fromhex("5a17")))


def test_an_older_version_refuses_a_server_that_holds_an_archive(make_database: MakeDatabase) -> None:
    """It would not look into files."""
    url, other = make_database("postgresql"), make_database("postgresql")

    def oldest(database: str) -> int:
        with psycopg.connect(database) as server:
            row = server.execute("SELECT works_with FROM migrations WHERE name = '0004_archive'").fetchone()
        assert row is not None
        return int(row[0])

    for database in (url, other):
        with psycopg.connect(database) as server:
            server.execute("UPDATE migrations SET works_with = 2 WHERE name = '0004_archive'")
    grow(url)
    assert oldest(url) == 4
    transfer(open_rows(url), open_rows(other))
    assert oldest(other) == 4
