"""What the shared store does that an embedded one need not: who waits for whom, and what its server's troubles mean."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from psycopg import sql

from storage.codec import to_micros
from storage.errors import SchemaMismatch, StoreUnavailable, VersionConflict
from storage.log import Change, Decision, Event
from storage.open import open_store, shown
from storage.policies import Pointer
from storage.port import Writer
from storage.postgres import PostgresStore, migrate
from storage.postgres import store as store_module
from storage.postgres.dialect import translated
from storage.postgres.locks import MOST_LOCKS
from storage.postgres.migrate import STEPS
from storage.postgres.transaction import PostgresWriter
from storage.rules import Capacity
from tests.postgresql import Server, running
from tests.storage.builders import (
    WORKSPACE,
    at,
    foreign_message,
    make_decision,
    make_event,
    make_message,
    make_recipient,
    make_rule,
)

PATIENCE = 20
Opener = Callable[..., PostgresStore]


@pytest.fixture
def url(postgresql: Server) -> Iterator[str]:
    taken = postgresql.take()
    yield taken
    postgresql.give_back(taken)


@pytest.fixture
def opener(url: str) -> Iterator[Opener]:
    stores: list[PostgresStore] = []

    def opened(**options: Any) -> PostgresStore:
        stores.append(PostgresStore(url, **options))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def store(opener: Opener) -> PostgresStore:
    return opener()


@contextmanager
def under_way(store: PostgresStore, work: Callable[[Writer], object], *recipients: str) -> Iterator[None]:
    """A write that has done its work and commits when the block ends."""
    done, go_on = threading.Event(), threading.Event()

    def held(writer: Writer) -> None:
        work(writer)
        done.set()
        assert go_on.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(store.write, held, recipients=[(WORKSPACE, one) for one in recipients])
        try:
            assert done.wait(PATIENCE)
            yield
        finally:
            go_on.set()
        future.result()


def waiting(url: str) -> int:
    """How many transactions wait for a lock now."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted").fetchone()
    assert row is not None
    return int(row[0])


def until_waiting(url: str) -> None:
    """Returns once a transaction waits for a lock."""
    for _ in range(2000):
        if waiting(url):
            return
    raise AssertionError("nobody waits")


def touch(recipient_id: str) -> Callable[[Writer], None]:
    return lambda writer: writer.add_unanswered(WORKSPACE, recipient_id, 1)


def stored(store: PostgresStore, decision_id: str) -> Decision | None:
    with store.read() as reader:
        return reader.decision(WORKSPACE, decision_id)


def events_of(store: PostgresStore, decision: Decision) -> list[Event]:
    with store.read() as reader:
        return list(reader.events(WORKSPACE, decision))


# Who waits for whom


def test_writes_for_different_recipients_never_wait_for_each_other(store: PostgresStore, opener: Opener) -> None:
    impatient = opener(wait_seconds=0.05)
    with under_way(store, touch("u1"), "u1"):
        impatient.write(touch("u2"), recipients=[(WORKSPACE, "u2")])
        impatient.write(lambda writer: writer.put_meta("a", "b"))
        with pytest.raises(StoreUnavailable):
            impatient.write(touch("u1"), recipients=[(WORKSPACE, "u2"), (WORKSPACE, "u1")])
    impatient.write(touch("u1"), recipients=[(WORKSPACE, "u2"), (WORKSPACE, "u1")])
    with store.read() as reader:
        assert reader.unanswered(WORKSPACE, ["u1", "u2"]) == {"u1": 2, "u2": 1}


def test_workspaces_keep_logs_of_their_own_and_never_wait_for_each_others(store: PostgresStore, opener: Opener) -> None:
    impatient = opener(wait_seconds=0.05)
    with under_way(store, lambda writer: writer.add_decision(make_decision(), None), "u1"):
        theirs = make_decision(workspace_id="w2")
        impatient.write(lambda writer: writer.add_decision(theirs, None), recipients=[("w2", "u1")])
        ours = make_decision(decision_id="dec_2", recipient_id="u2")
        with pytest.raises(StoreUnavailable):
            impatient.write(lambda writer: writer.add_decision(ours, None), recipients=[(WORKSPACE, "u2")])


def test_sums_that_all_share_change_one_write_after_the_other(store: PostgresStore, opener: Opener) -> None:
    room = make_rule(kind="capacity", parameters=Capacity(10, 60))
    sent = make_decision(status="sent", sent_at=at(1))
    store.write(lambda writer: writer.put_rule(room))
    store.write(lambda writer: writer.add_decision(sent, make_message(sent)))
    moved = replace(sent, sent_at=at(5))
    impatient = opener(wait_seconds=0.05)
    other = make_decision(decision_id="dec_2", recipient_id="u2")

    def move(writer: Writer) -> None:
        writer.update_decision(moved, make_message(moved))

    with under_way(store, lambda writer: writer.add_decision(other, None), "u2"), pytest.raises(StoreUnavailable):
        impatient.write(move, recipients=[(WORKSPACE, "u1")])
    impatient.write(move, recipients=[(WORKSPACE, "u1")])
    with store.read() as reader:
        assert sum(reader.usage(WORKSPACE, [(room.rule_id, 0, 10**9)]).values()) == 1


def test_a_rule_changes_between_decisions_and_never_during_one(store: PostgresStore, opener: Opener) -> None:
    impatient = opener(wait_seconds=0.05)
    with under_way(store, touch("u1"), "u1"), pytest.raises(StoreUnavailable):
        impatient.write(lambda writer: writer.put_rule(make_rule()))
    with under_way(store, lambda writer: writer.put_rule(make_rule())), pytest.raises(StoreUnavailable):
        impatient.write(touch("u1"), recipients=[(WORKSPACE, "u1")])
    with store.read() as reader:
        assert reader.rules(WORKSPACE) == (make_rule(),)


def test_a_service_is_ready_while_another_host_prunes_for_long(store: PostgresStore, opener: Opener) -> None:
    with under_way(store, lambda writer: writer.prune(WORKSPACE, at(0))):
        other = opener(wait_seconds=0.2)
        with pytest.raises(StoreUnavailable):  # that write takes its turn
            other.write(lambda writer: writer.put_meta("salt", "5a17"))
        other.check()


def test_a_write_of_more_recipients_than_there_may_be_locks_shuts_the_others_out(
    store: PostgresStore, opener: Opener
) -> None:
    many = [f"u{number}" for number in range(MOST_LOCKS + 1)]
    impatient = opener(wait_seconds=0.05)
    with under_way(store, touch("u1"), *many):
        with pytest.raises(StoreUnavailable):
            impatient.write(touch("nobody"), recipients=[(WORKSPACE, "nobody")])
        impatient.write(lambda w: w.add_unanswered("w2", "nobody", 1), recipients=[("w2", "nobody")])


def test_a_write_that_finds_a_decision_of_somebody_it_did_not_name_runs_again_with_them(store: PostgresStore) -> None:
    theirs = make_decision(recipient_id="u2")
    store.write(lambda writer: writer.add_decision(theirs, None))
    runs = 0

    def work(writer: Writer) -> None:
        nonlocal runs
        runs += 1
        assert writer.decision(WORKSPACE, "dec_1") == theirs
        writer.add_unanswered(WORKSPACE, "u1", 1)

    store.write(work, recipients=[(WORKSPACE, "u1")])
    assert runs == 2
    with store.read() as reader:
        assert reader.unanswered(WORKSPACE, ["u1"]) == {"u1": 1}, "the first run left nothing"


def test_writes_that_wait_for_each_other_in_a_circle_both_succeed(store: PostgresStore) -> None:
    both = threading.Barrier(2)
    runs = []

    def work(first: str, second: str) -> Callable[[Writer], None]:
        def cross(writer: Writer) -> None:
            runs.append(first)
            writer.add_unanswered(WORKSPACE, first, 1)
            if len(runs) <= 2:
                both.wait(PATIENCE)
            writer.add_unanswered(WORKSPACE, second, 1)

        return cross

    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(store.write, work(first, second), recipients=[(WORKSPACE, first)])
            for first, second in (("u1", "u2"), ("u2", "u1"))
        ]
        for future in futures:
            future.result()
    assert len(runs) > 2, "one of them ran again"
    with store.read() as reader:
        assert reader.unanswered(WORKSPACE, ["u1", "u2"]) == {"u1": 2, "u2": 2}


@pytest.mark.drill
def test_a_serialization_failure_is_tried_again(store: PostgresStore) -> None:
    runs = 0

    def work(writer: Writer) -> None:
        nonlocal runs
        runs += 1
        assert isinstance(writer, PostgresWriter)
        touch("u1")(writer)
        if runs == 1:
            writer._query("DO $$ BEGIN RAISE EXCEPTION 'as planned' USING ERRCODE = '40001'; END $$")

    store.write(work)
    assert runs == 2
    with store.read() as reader:
        assert reader.unanswered(WORKSPACE, ["u1"]) == {"u1": 1}


def test_of_many_schedulers_one_gets_the_lease_and_of_many_publishers_one_the_pointer(
    store: PostgresStore, opener: Opener
) -> None:
    stores = [store, opener()]

    def take(number: int) -> bool:
        return stores[number % 2].write(lambda writer: writer.take_lease("job", f"h{number}", at(0), at(1)))

    def publish(number: int) -> bool:
        pointer = Pointer(WORKSPACE, "spring", f"pol_{number}", 1, at(0))
        try:
            stores[number % 2].write(lambda writer: writer.move_pointer(pointer))
        except VersionConflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(16))) == 1
        assert sum(pool.map(publish, range(16))) == 1


@pytest.mark.drill
def test_a_host_that_falls_silent_in_a_write_holds_nobody_up_for_ever(opener: Opener) -> None:
    silent, other = opener(statement_seconds=0.3), opener()
    begun, go_on = threading.Event(), threading.Event()

    def stop(writer: Writer) -> None:
        touch("u1")(writer)
        begun.set()
        assert go_on.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(silent.write, stop, recipients=[(WORKSPACE, "u1")])
        assert begun.wait(PATIENCE)
        other.write(touch("u1"), recipients=[(WORKSPACE, "u1")])
        go_on.set()
        with pytest.raises(StoreUnavailable):
            stopped.result()
    with other.read() as reader:
        assert reader.unanswered(WORKSPACE, ["u1"]) == {"u1": 1}


# Two that look for each other


def report(store: PostgresStore, event: Event, find: Callable[[Writer], Decision | None]) -> None:
    """Stores an event as ``ingest`` does: matched when what it names is known."""

    def work(writer: Writer) -> None:
        found = find(writer)
        named = None if found is None else found.decision_id
        writer.add_event(make_event(**{**fields(event), "matched": found is not None, "decision_id": named}))

    store.write(work, recipients=[(WORKSPACE, "u9")])


def fields(event: Event) -> dict[str, object]:
    return {name: getattr(event, name) for name in Event.__slots__}


def log_and_match(writer: Writer) -> None:
    writer.add_decision(make_decision(), make_message(make_decision()))
    writer.match_events(WORKSPACE, make_decision())


def confirm(writer: Writer) -> None:
    confirmed = make_decision(status="sent", sent_at=at(1), provider="ses", message_id="m-1")
    writer.update_decision(confirmed, make_message(confirmed))
    writer.match_events(WORKSPACE, confirmed)


BY_MESSAGE = {"decision_id": None, "provider": "ses", "message_id": "m-1"}


@pytest.mark.parametrize("event_first", [False, True])
def test_an_event_and_the_decision_that_it_names_never_miss_each_other(
    store: PostgresStore, url: str, event_first: bool
) -> None:
    event = make_event(matched=False)

    def tell(writer: Writer) -> None:
        assert writer.decision(WORKSPACE, "dec_1") is None
        writer.add_event(event)

    with ThreadPoolExecutor(1) as pool:
        if event_first:
            with under_way(store, tell, "u9"):
                other = pool.submit(store.write, log_and_match, recipients=[(WORKSPACE, "u1")])
                until_waiting(url)
        else:
            with under_way(store, log_and_match, "u1"):
                other = pool.submit(report, store, event, lambda writer: writer.decision(WORKSPACE, "dec_1"))
                until_waiting(url)
        other.result()
    assert [one.matched for one in events_of(store, make_decision())] == [True]


def by_message(writer: Writer) -> Decision | None:
    return next(iter(writer.decisions_by_message(WORKSPACE, "ses", ["m-1"])), None)


@pytest.mark.parametrize("event_first", [False, True])
def test_an_event_that_arrives_during_the_confirm_of_its_message_is_joined(
    store: PostgresStore, url: str, event_first: bool
) -> None:
    store.write(lambda writer: writer.add_decision(make_decision(), make_message(make_decision())))
    event = make_event(matched=False, **BY_MESSAGE)

    def tell(writer: Writer) -> None:
        assert writer.decisions_by_message(WORKSPACE, "ses", ["m-1"]) == ()
        writer.add_event(event)

    with ThreadPoolExecutor(1) as pool:
        if event_first:
            with under_way(store, tell, "u9"):
                other = pool.submit(store.write, confirm, recipients=[(WORKSPACE, "u1")])
                until_waiting(url)
        else:
            with under_way(store, confirm, "u1"):
                other = pool.submit(report, store, event, by_message)
                until_waiting(url)
        other.result()
    assert [(one.matched, one.decision_id) for one in events_of(store, make_decision())] == [(True, "dec_1")]


# Troubles of the server


@pytest.mark.drill
def test_a_statement_that_hangs_is_ended_and_leaves_nothing(opener: Opener) -> None:
    store = opener(statement_seconds=0.2)

    def hang(writer: Writer) -> None:
        assert isinstance(writer, PostgresWriter)
        writer.put_meta("half", "done")
        writer._query("SELECT pg_sleep(60)")

    with pytest.raises(StoreUnavailable, match="statement timeout"):
        store.write(hang)
    with pytest.raises(StoreUnavailable, match="statement timeout"), store.read() as reader:
        reader._query("SELECT pg_sleep(60)")  # type: ignore[attr-defined]  # past the port on purpose
    store.check()
    with store.read() as reader:
        assert reader.meta("half") is None


@pytest.mark.drill
def test_all_connections_in_use_is_unavailable_and_passes(store: PostgresStore, opener: Opener) -> None:
    impatient = opener(wait_seconds=0.05)
    readers = [impatient.read() for _ in range(store_module._READERS)]
    for reader in readers:
        reader.__enter__()
    with pytest.raises(StoreUnavailable, match="in use"), impatient.read():
        pass
    impatient.write(touch("u1"))  # writes have connections of their own
    for reader in readers:
        reader.__exit__(None, None, None)
    with impatient.read() as free:
        assert free.unanswered(WORKSPACE, ["u1"]) == {"u1": 1}


def cut(url: str) -> None:
    """Cuts every other connection to the database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.mark.drill
def test_connections_that_were_cut_while_idle_are_replaced_unnoticed(store: PostgresStore, url: str) -> None:
    store.write(touch("u1"))
    with store.read() as one, store.read() as other:
        assert one.unanswered(WORKSPACE, ["u1"]) == other.unanswered(WORKSPACE, ["u1"])
    cut(url)
    with store.read() as reader:
        assert reader.unanswered(WORKSPACE, ["u1"]) == {"u1": 1}
    store.write(touch("u1"))


@pytest.mark.drill
def test_a_connection_cut_inside_a_transaction_undoes_it(store: PostgresStore, url: str) -> None:
    def work(writer: Writer) -> None:
        log_and_match(writer)
        cut(url)
        touch("u1")(writer)

    with pytest.raises(StoreUnavailable):
        store.write(work)

    def read() -> None:
        with store.read() as reader:
            reader.workspaces()
            cut(url)
            reader.workspaces()

    with pytest.raises(StoreUnavailable):
        read()
    assert stored(store, "dec_1") is None
    store.write(log_and_match)
    assert stored(store, "dec_1") is not None


@pytest.mark.drill
@pytest.mark.parametrize("first", [False, True])
def test_an_error_that_the_work_swallowed_is_no_silent_loss(store: PostgresStore, first: bool) -> None:
    def work(writer: Writer) -> None:
        assert isinstance(writer, PostgresWriter)
        if not first:
            writer.put_meta("half", "done")
        with pytest.raises(psycopg.errors.DivisionByZero):
            writer._query("SELECT 1 / 0")
        if first:
            writer.put_meta("half", "done")

    with pytest.raises(psycopg.Error):
        store.write(work)
    with store.read() as reader:
        assert reader.meta("half") is None


class Deaf(threading.Thread):
    """Between a store and its server: passes everything on until a COMMIT was answered, and loses that answer."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(daemon=True)
        parts = urlsplit(url)
        self._target = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{folder}/.s.PGSQL.5432")
        self._listener.listen()
        self.url = f"postgresql://postgres@{parts.path}?host={folder}"
        self.lossy = False

    def run(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, near: socket.socket) -> None:
        with near, socket.socket(socket.AF_UNIX) as far:
            far.connect(self._target)
            back = threading.Thread(target=self._answers, args=(far, near), daemon=True)
            back.start()
            while data := near.recv(65536):
                if self.lossy and b"COMMIT\0" in data:
                    self._losing = True
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)
            back.join()

    _losing = False

    def _answers(self, far: socket.socket, near: socket.socket) -> None:
        while data := far.recv(65536):
            if self._losing:
                self._losing = self.lossy = False
                near.shutdown(socket.SHUT_RDWR)
                return
            try:
                near.sendall(data)
            except BrokenPipeError:  # the store has hung up meanwhile
                return


@pytest.mark.drill
def test_a_commit_whose_answer_is_lost_is_asked_for_and_counts(url: str, tmp_path: Path) -> None:
    between = Deaf(url, tmp_path)
    between.start()
    store = PostgresStore(between.url)
    try:
        between.lossy = True
        store.write(log_and_match)
        assert not between.lossy, "the answer was lost"
        assert stored(store, "dec_1") is not None
    finally:
        store.close()
        between.close()


@pytest.mark.drill
def test_a_server_killed_under_load_loses_nothing_acknowledged_and_all_is_well_again_by_itself() -> None:
    opened: list[PostgresStore] = []
    acknowledged: list[str] = []
    refused: list[StoreUnavailable] = []
    enough, ended = threading.Event(), threading.Event()

    def attempt(turn: str) -> None:
        decision = make_decision(decision_id=f"dec_{turn}", recipient_id=f"u{turn}")

        def work(writer: Writer) -> None:
            writer.add_decision(decision, make_message(decision))
            writer.add_event(make_event(event_id=f"ev_{turn}", decision_id=decision.decision_id))

        try:
            opened[0].write(work, recipients=[(WORKSPACE, decision.recipient_id)])
        except StoreUnavailable as error:
            refused.append(error)
        else:
            acknowledged.append(decision.decision_id)
            if len(acknowledged) >= 100:
                enough.set()

    def caller(number: int) -> None:
        turn = 0
        while not ended.is_set():
            attempt(f"{number}_{turn}")
            turn += 1

    with running() as server:
        store = PostgresStore(server.create())
        opened.append(store)
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(caller, number) for number in range(4)]
            assert enough.wait(PATIENCE)
            server.kill()
            with pytest.raises(StoreUnavailable):
                store.check()
            before = len(acknowledged)
            server.start()
            enough.clear()
            assert enough.wait(PATIENCE)
            ended.set()
            for future in futures:
                future.result()
        with store.read() as reader:
            assert set(reader.decisions_by_id(WORKSPACE, acknowledged)) == set(acknowledged)
            everything = reader.decisions(WORKSPACE, limit=100_000).items
            assert all(len(reader.events(WORKSPACE, decision)) == 1 for decision in everything), "no half of a write"
            positions = sorted(decision.position for decision in everything)
            assert len(set(positions)) == len(everything)
        assert len(acknowledged) > before
        assert refused
        store.close()


# What it opens


def test_a_database_of_something_else_is_refused(postgresql: Server) -> None:
    url = postgresql.create(template=None)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id INT)")
    with pytest.raises(SchemaMismatch, match="not a database of Sendtide"):
        PostgresStore(url)
    postgresql.drop(url)


@pytest.mark.parametrize(("works_with", "opens"), [(len(STEPS), True), (len(STEPS) + 1, False)])
def test_a_newer_schema_is_used_where_it_says_that_this_code_still_works(
    postgresql: Server, works_with: int, opens: bool
) -> None:
    url = postgresql.create()
    with psycopg.connect(url, autocommit=True) as connection:
        row = [len(STEPS) + 1, "9999_later", works_with]
        connection.execute("INSERT INTO migrations (number, name, works_with) VALUES (%s, %s, %s)", row)
    if opens:
        store = PostgresStore(url)
        store.check()
        store.close()
    else:
        with pytest.raises(SchemaMismatch, match="9999_later"):
            PostgresStore(url)
    postgresql.drop(url)


def test_a_database_of_before_gets_the_migrations_that_it_lacks(
    postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgresql.create(template=None)
    monkeypatch.setattr(migrate, "STEPS", STEPS[:4])
    before = PostgresStore(url)
    before.write(lambda writer: writer.add_message(foreign_message()))
    before.write(lambda writer: writer.add_decision(make_decision(status="sent"), None))
    before.close()
    with psycopg.connect(url, autocommit=True) as connection:
        row = [WORKSPACE, to_micros(at(0))]
        connection.execute("INSERT INTO changes VALUES (%s, 1, 'promoted', %s, NULL, 'spring', 'pol_1', 'ann')", row)
    monkeypatch.setattr(migrate, "STEPS", STEPS)
    store = PostgresStore(url)
    assert store.write(lambda writer: writer.prune_loose(WORKSPACE, at(2), limit=9)) == 1
    with store.read() as reader:
        told = reader.policy_changes(WORKSPACE, limit=9, policy_id="pol_1")
        assert reader.decision(WORKSPACE, "dec_1") == make_decision(status="sent")
    assert told == (Change(WORKSPACE, 1, "promoted", at(0), None, "spring", "pol_1", "ann", None),)
    store.close()
    with psycopg.connect(url) as connection:
        indexes = {row[0] for row in connection.execute("SELECT indexname FROM pg_indexes")}
    assert indexes >= {"messages_others", "events_loose"}
    postgresql.drop(url)


def test_passwords_are_in_no_message() -> None:
    for url in ("postgresql://me:secret@127.0.0.1:1/x", "postgresql://me:secret@[::1/x"):
        with pytest.raises((StoreUnavailable, ValueError)) as raised:
            open_store(url)
        assert "secret" not in str(raised.value)
        assert "secret" not in shown(url)


# What is asked of it


def put_rule(rule_id: str, writer: Writer) -> None:
    writer.put_rule(make_rule(rule_id=rule_id))


def test_texts_are_ordered_by_their_characters_whatever_these_are(store: PostgresStore) -> None:
    texts = ["", "\0", "\0\0", "\0a", "\1", "\1\0", "\1\1", "\1\2", "\2", "A", "a", "a\0", "a\1", "é", "😀"]
    for text in texts:
        store.write(partial(put_rule, text))
    with store.read() as reader:
        assert [rule.rule_id for rule in reader.rules(WORKSPACE)] == texts == sorted(texts)


def test_marks_become_numbers_and_hints_go() -> None:
    assert translated("a = ? AND b IN ({marks}) AND c = ?") == ("a = $1 AND b = ANY($2) AND c = $3", ())
    assert translated("a = ?2 AND b = ?1") == ("a = $2 AND b = $1", ())
    assert translated("a = :x AND b = :y AND c = :x") == ("a = $1 AND b = $2 AND c = $1", ("x", "y"))
    assert translated("FROM t AS e NOT INDEXED JOIN u INDEXED BY u_id")[0] == "FROM t AS e  JOIN u "


def test_hot_statements_search_an_index(store: PostgresStore, url: str) -> None:
    """With sequential scans made dear, a plan has one only where no index answers."""
    from storage.sql import decision_tables, event_tables, learning_tables, usage_tables

    statements = [
        decision_tables._BY_ID,
        decision_tables._BY_IDS,
        decision_tables._BY_MESSAGE,
        decision_tables._DUE,
        decision_tables._OPEN,
        decision_tables._MESSAGES,
        event_tables._NAMING,
        event_tables._OF_RECIPIENT,
        event_tables._AWAITING,
        event_tables._BY_MESSAGE,
        learning_tables._CHANGES,
        learning_tables._OF_POLICIES,
        learning_tables._OF_POLICY,
        usage_tables._USED,
        usage_tables._UNANSWERED,
    ]
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
        connection.execute("SET enable_seqscan = off")
        for statement in statements:
            text = sql.SQL("EXPLAIN (GENERIC_PLAN) " + translated(statement)[0])
            plan = "\n".join(row[0] for row in connection.execute(text))
            assert "Seq Scan" not in plan, plan


def test_a_recipient_written_by_two_at_once_is_written_by_one_after_the_other(store: PostgresStore) -> None:
    def visit(_: int) -> None:
        def work(writer: Writer) -> None:
            known = writer.recipient(WORKSPACE, "u1")
            writer.put_recipient(make_recipient(version=1 if known is None else known.version + 1))

        store.write(work, recipients=[(WORKSPACE, "u1")])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(80)))
    with store.read() as reader:
        found = reader.recipient(WORKSPACE, "u1")
    assert found is not None
    assert found.version == 80


def dead_rows(url: str) -> int:
    """Of the table of recipients, those that the last ``VACUUM`` had to leave."""
    with psycopg.connect(url) as server:
        statement = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'recipients'"
        ((count,),) = server.execute(statement).fetchall()
    return int(count)


def test_while_somebody_reads_or_writes_the_tables_are_not_clean(opener: Opener, url: str) -> None:
    store, other = opener(wait_seconds=0.2), opener()
    store.write(lambda writer: writer.put_recipient(make_recipient(recipient_id="who-leaves")))
    with other.read() as reader:
        assert reader.recipient(WORKSPACE, "who-leaves") is not None
        store.write(lambda writer: writer.forget_recipient(WORKSPACE, "who-leaves"))
        assert not store.scrub()
        assert dead_rows(url) == 1
    with under_way(other, touch("u1"), "u1"):
        assert not store.scrub()
    assert store.scrub()
    assert dead_rows(url) == 0


def test_who_began_to_read_after_an_erasure_does_not_make_it_wait(opener: Opener, url: str) -> None:
    store, other = opener(wait_seconds=0.2), opener()
    store.write(lambda writer: writer.put_recipient(make_recipient(recipient_id="who-leaves")))
    store.write(lambda writer: writer.forget_recipient(WORKSPACE, "who-leaves"))
    with other.read() as reader:
        assert reader.recipient(WORKSPACE, "who-leaves") is None
        assert store.scrub()
    assert dead_rows(url) == 0
