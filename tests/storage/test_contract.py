"""What every store keeps: transactions, snapshots, isolation of failures, closing, reopening."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from storage.errors import StoreUnavailable, VersionConflict
from storage.open import open_store
from storage.port import Reader, Store, Writer
from tests.storage.builders import (
    WORKSPACE,
    at,
    foreign_message,
    make_campaign,
    make_decision,
    make_event,
    make_message,
    make_workspace,
)
from tests.storage.conftest import StoreFactory


class PlannedError(Exception):
    """Raised by a test's own work."""


def put_position(rows: int, writer: Writer) -> None:
    writer.put_import_position(WORKSPACE, "i", rows)


def put_version(version: int, writer: Writer) -> None:
    writer.put_campaign(make_campaign(version=version))


def test_write_returns_what_the_work_returned(store: Store) -> None:
    assert store.write(lambda writer: (writer.put_meta("salt", "s"), 7)) == ("s", 7)


def test_a_failing_work_raises_its_own_error_and_leaves_nothing(store: Store) -> None:
    failure = PlannedError("as planned")

    def work(writer: Writer) -> None:
        writer.put_workspace(make_workspace())
        writer.add_decision(make_decision(), make_message(make_decision()))
        writer.add_event(make_event())
        raise failure

    with pytest.raises(PlannedError) as raised:
        store.write(work)

    assert raised.value is failure
    with store.read() as reader:
        assert reader.workspaces() == ()
        assert reader.decision(WORKSPACE, "dec_1") is None
        assert reader.events(WORKSPACE, make_decision()) == ()
        assert reader.messages(WORKSPACE, ["u1"], at(-100), at(100)) == {}


def test_a_write_sees_what_it_wrote_before(store: Store) -> None:
    def work(writer: Writer) -> tuple[int, int]:
        before = writer.import_position(WORKSPACE, "i")
        writer.put_import_position(WORKSPACE, "i", 5)
        return before, writer.import_position(WORKSPACE, "i")

    assert store.write(work) == (0, 5)


def test_a_read_stays_on_its_snapshot_while_others_commit(store: Store) -> None:
    store.write(lambda writer: writer.put_import_position(WORKSPACE, "i", 1))
    with store.read() as reader:
        assert reader.import_position(WORKSPACE, "i") == 1
        store.write(lambda writer: writer.put_import_position(WORKSPACE, "i", 2))
        store.write(lambda writer: writer.put_campaign(make_campaign()))
        assert reader.import_position(WORKSPACE, "i") == 1
        assert reader.campaign(WORKSPACE, "spring") is None
        with store.read() as later:
            assert later.import_position(WORKSPACE, "i") == 2


def test_a_read_sees_nothing_of_a_write_under_way(store: Store) -> None:
    written, seen = threading.Event(), threading.Event()

    def work(writer: Writer) -> None:
        writer.put_import_position(WORKSPACE, "i", 9)
        written.set()
        assert seen.wait(20)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(store.write, work)
        assert written.wait(20)
        with store.read() as reader:
            assert reader.import_position(WORKSPACE, "i") == 0
        seen.set()
        future.result()
    with store.read() as reader:
        assert reader.import_position(WORKSPACE, "i") == 9


def test_what_a_read_block_raises_passes_through(store: Store) -> None:
    def block() -> None:
        with store.read() as reader:
            assert reader.workspaces() == ()
            raise PlannedError

    with pytest.raises(PlannedError):
        block()
    with store.read() as reader:
        assert reader.workspaces() == ()


def test_failing_works_do_not_harm_the_works_beside_them(store: Store) -> None:
    start = threading.Barrier(16)

    def caller(number: int) -> int:
        start.wait(20)
        stored = 0
        for turn in range(20):
            decision = make_decision(decision_id=f"dec_{number}_{turn}")

            def work(writer: Writer, fails: bool = turn % 3 == 1) -> None:
                writer.add_decision(decision, make_message(decision))  # noqa: B023 - runs within this turn
                if fails:
                    raise PlannedError

            if turn % 3 == 1:
                with pytest.raises(PlannedError):
                    store.write(work)
            else:
                store.write(work)
                stored += 1
        return stored

    with ThreadPoolExecutor(16) as pool:
        acknowledged = sum(pool.map(caller, range(16)))

    with store.read() as reader:
        ids = {d.decision_id for d in reader.decisions(WORKSPACE, limit=1000).items}
        held = reader.messages(WORKSPACE, ["u1"], at(-100), at(100))["u1"]
    assert acknowledged == 16 * 13
    assert ids == {f"dec_{number}_{turn}" for number in range(16) for turn in range(20) if turn % 3 != 1}
    assert {message.message_ref for message in held} == ids


def test_threads_that_read_then_write_never_lose_an_update(store: Store) -> None:
    def increment(writer: Writer) -> int:
        rows = writer.import_position(WORKSPACE, "i") + 1
        writer.put_import_position(WORKSPACE, "i", rows)
        return rows

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: store.write(increment, recipients=[(WORKSPACE, "u1")]), range(400)))

    assert sorted(results) == list(range(1, 401))


def test_threads_that_race_for_a_cap_never_exceed_it(store: Store) -> None:
    def reserve(number: int) -> bool:
        decision = make_decision(decision_id=f"dec_{number}", send_at=at(number / 100))

        def work(writer: Writer) -> bool:
            held = writer.messages(WORKSPACE, ["u1"], at(-100), at(100)).get("u1", ())
            if len(held) >= 3:
                return False
            writer.add_decision(decision, make_message(decision))
            return True

        return store.write(work, recipients=[(WORKSPACE, "u1")])

    with ThreadPoolExecutor(16) as pool:
        reserved = list(pool.map(reserve, range(200)))

    assert sum(reserved) == 3
    with store.read() as reader:
        assert len(reader.messages(WORKSPACE, ["u1"], at(-100), at(100))["u1"]) == 3


def test_two_stores_on_one_database_see_each_other(store_factory: StoreFactory) -> None:
    first, second = store_factory(), store_factory()
    for turn in range(1, 6):
        first.write(partial(put_position, turn))
        with second.read() as reader:
            assert reader.import_position(WORKSPACE, "i") == turn
        second.write(partial(put_version, turn))
    with pytest.raises(VersionConflict):
        first.write(lambda writer: writer.put_campaign(make_campaign(version=5)))


def test_a_reopened_store_has_everything(store_factory: StoreFactory) -> None:
    store = store_factory()
    decision = make_decision()

    def work(writer: Writer) -> None:
        writer.put_workspace(make_workspace())
        writer.put_campaign(make_campaign())
        writer.add_decision(decision, make_message(decision))
        writer.add_event(make_event())

    store.write(work)
    store.close()

    def look(reader: Reader) -> object:
        return (
            reader.workspaces(),
            reader.campaign(WORKSPACE, "spring"),
            reader.decision(WORKSPACE, "dec_1"),
            reader.events(WORKSPACE, decision),
        )

    with store_factory().read() as reader:
        assert look(reader) == ((make_workspace(),), make_campaign(), decision, (make_event(),))


def test_check_passes_on_a_store_that_works(store: Store) -> None:
    store.check()


def test_a_closed_store_is_unavailable_and_may_be_closed_again(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable):
        store.write(lambda writer: writer.put_meta("a", "b"))
    with pytest.raises(StoreUnavailable), store.read():
        pass
    with pytest.raises(StoreUnavailable):
        store.check()


def test_closing_waits_for_writes_that_were_accepted(store_factory: StoreFactory) -> None:
    store = store_factory()
    running, go_on = threading.Event(), threading.Event()

    def work(writer: Writer) -> None:
        running.set()
        assert go_on.wait(20)
        writer.put_import_position(WORKSPACE, "i", 3)

    with ThreadPoolExecutor(2) as pool:
        write = pool.submit(store.write, work)
        assert running.wait(20)
        close = pool.submit(store.close)
        go_on.set()
        write.result()
        close.result()
    with store_factory().read() as reader:
        assert reader.import_position(WORKSPACE, "i") == 3


@pytest.mark.parametrize("url", ["", "x.db", "mysql://host/x", "sqlite://x.db", "sqlite:///", "sqlite:///:memory:"])
def test_an_unknown_database_url_is_refused_naming_what_is_allowed(url: str) -> None:
    with pytest.raises(ValueError, match=r"database.*sqlite:///PATH"):
        open_store(url)


def test_ids_of_any_characters_come_back_as_they_were(store: Store) -> None:
    odd = ["a\0b", "\0", "a", "😀 4-byte", "é", "e\u0301", "with space", "%_*'\"", "\u2028\ufeff", "x" * 300]

    def work(writer: Writer) -> None:
        for text in odd:
            decision = make_decision(decision_id=text, recipient_id=text, request_id=text, metadata={text: text})
            writer.add_decision(decision, make_message(decision))
            assert writer.add_message(foreign_message(recipient_id=text, message_ref="ref" + text))
            writer.add_event(make_event(event_id=text, decision_id=text))

    store.write(work)
    with store.read() as reader:
        for text in odd:
            decision = reader.decision(WORKSPACE, text)
            assert decision is not None
            assert (decision.recipient_id, decision.request_id, decision.metadata) == (text, text, {text: text})
            assert [event.event_id for event in reader.events(WORKSPACE, decision)] == [text]
            assert [m.message_ref for m in reader.messages(WORKSPACE, [text], at(-9), at(9))[text]] == [
                "ref" + text,
                text,
            ]
        assert set(reader.decisions_by_id(WORKSPACE, odd)) == set(odd)
