"""What every store keeps: old decisions in files are read as if they had never moved, and return when they change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from operator import methodcaller
from typing import Any, cast

import pyarrow.parquet as pq
import pytest

from storage import parquet
from storage.archive import Archived
from storage.blocks import BLOCK
from storage.bulk import NewEvents
from storage.codec import to_micros
from storage.errors import AlreadyExists, ArchiveUnreadable, OneByOne, StoreUnavailable, VersionConflict
from storage.log import Decision, Event, Group, Reason, ShadowChoice, Status
from storage.port import Reader, Store, Writer
from storage.sql import archive_changes
from storage.sql.archive_places import keys_of
from storage.sql.archive_tables import ArchiveReader
from storage.webhooks import Label
from tests.storage.archives import anything, archive_all, candidates, move, take_out, write_file
from tests.storage.builders import (
    WORKSPACE,
    at,
    foreign_message,
    make_campaign,
    make_decision,
    make_event,
    make_message,
    make_policy,
    make_workspace,
)

COUNT = 60
EVER = (at(-9_000), at(9_000))
TYPES = ("opened", "clicked", "converted")
#: What of the log is old.
BEFORE = at(40)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Row groups of seven rows, so that a short log has many."""
    monkeypatch.setattr(parquet, "GROUP", 7)
    parquet.read_group.cache_clear()
    yield
    parquet.read_group.cache_clear()


def decision(n: int) -> Decision:
    """One of a log in which three decisions share each hour, and everything that varies varies."""
    statuses: tuple[Status, ...] = ("sent", "assumed_sent", "no_send", "withheld", "released", "reserved", "expired")
    groups: tuple[Group, ...] = ("treated", "random", "holdout")
    status = statuses[n % 7]
    made = at(n // 3)
    bare = make_decision()
    shadow = ShadowChoice("mens", "email", made, 0.5, "pol_2") if n % 5 == 0 else None
    none = status in ("no_send", "withheld")
    return replace(
        bare,
        decision_id=f"dec_{n}",
        request_id=f"r{n}",
        recipient_id=f"u{n % 4}",
        campaign_id="spring" if n % 3 else "autumn",
        status=status,
        group=groups[n % 3],
        decided_at=made,
        propensity=None if n % 11 == 0 else 1 / (n + 3),
        action=None if status == "withheld" else n,
        variant_id=None if none else "mens",
        channel=None if none else "email",
        send_at=None if none else made + timedelta(hours=2),
        sent_at=made + timedelta(hours=2, microseconds=n) if status == "sent" else None,
        provider="ses" if status == "sent" else None,
        message_id=f"m{n}" if status == "sent" else None,
        closed_at=made + timedelta(hours=3) if status in ("released", "expired") else None,
        close_reason="zurück \x00" if status == "released" else None,
        imported=n % 13 == 0,
        reasons=(Reason("weekly", "cap", n),) if n % 2 else (),
        metadata={"order": str(n)},
        snapshot=replace(bare.snapshot, context={"n": n, "grüße": "ü"}, shadow=shadow),
    )


def events(n: int) -> list[Event]:
    """What came of a decision."""
    named = make_event(event_id=f"o{n}", decision_id=f"dec_{n}", recipient_id=f"u{n % 4}", occurred_at=at(n // 3 + 4))
    robot = replace(named, event_id=f"a{n}", type="clicked", automated=True)
    bought = replace(named, event_id=f"c{n}", type="converted", value=n / 7, properties={"revenue": n})
    return [named, robot, bought][: n % 4]


def fill(writer: Writer) -> None:
    writer.put_workspace(make_workspace())
    for name in ("spring", "autumn"):
        writer.put_campaign(make_campaign(campaign_id=name))
    for n in range(COUNT):
        one = decision(n)
        writer.add_decision(one, make_message(one))
        if one.status == "sent":
            writer.update_decision(replace(one, counted_at=at(n / 3), joined_at=at(n / 2)), make_message(one))
        writer.add_events(events(n))
        free = make_event(event_id=f"f{n}", type="converted", decision_id=None, recipient_id=f"u{n % 4}", value=1.0)
        writer.add_event(replace(free, occurred_at=at(n / 2)))
    told = make_event(event_id="told", decision_id="dec_7", recipient_id="u3", occurred_at=at(9))
    writer.add_vendor_event(told, "sendgrid", {"email": "a@b"})
    writer.add_message(foreign_message())
    # Two years later: the newest of all stays in the tables whatever its age.
    writer.add_decision(make_decision(decision_id="newest", request_id="newest", decided_at=at(9_000)), None)
    writer.add_event(make_event(event_id="newest", decision_id="newest"))


@pytest.fixture
def filled(store: Store) -> Store:
    store.write(fill)
    return store


def pages(reader: Reader, limit: int, **filters: Any) -> list[tuple[str, ...]]:
    found, cursor = [], None
    while True:
        page = reader.decisions(WORKSPACE, limit=limit, cursor=cursor, **filters)
        found.append(tuple(one.decision_id for one in page.items))
        cursor = page.cursor
        if cursor is None:
            return found


def columns(reader: Reader, since: datetime, until: datetime) -> object:
    """The columns of a campaign as rows, in an order of their own: chunks come in none."""
    decided = [
        row
        for chunk in reader.decision_columns(WORKSPACE, "spring", since, until)
        for row in zip(*(getattr(chunk, name) for name in chunk.__slots__), strict=True)
    ]
    happened = [
        row
        for chunk in reader.event_columns(WORKSPACE, "spring", since, until, types=TYPES, properties_of=("converted",))
        for row in zip(*(getattr(chunk, name) for name in chunk.__slots__), strict=True)
    ]
    return sorted(decided), sorted(happened, key=repr)


def told(store: Store) -> dict[str, object]:
    """Everything that a reader answers about the log."""
    ids = [f"dec_{n}" for n in range(COUNT)]
    with store.read() as reader:
        stamps = reader.block_stamps(WORKSPACE)
        feedback = {
            str(given): list(reader.feedback(WORKSPACE, **given))
            for given in (
                {},
                {"campaign_id": "spring"},
                {"campaign_id": "autumn", "since": at(3), "until": at(11)},
                {"since": at(7.5)},
                {"imported": True},
                {"imported": False, "until": at(13)},
            )
        }
        decisions = reader.decisions_by_id(WORKSPACE, ids)
        return {
            **feedback,
            "positions": [
                (one.position, one.sent_after, one.joined_after)
                for one in (row.decision for row in reader.feedback(WORKSPACE))
            ],
            "known after": [e.known_after for r in reader.feedback(WORKSPACE) for e in r.events],
            "pages": [pages(reader, limit) for limit in (1, 5, 100)],
            "spring": pages(reader, 4, campaign_id="spring"),
            "u2": pages(reader, 4, recipient_id="u2"),
            "u2 in spring": pages(reader, 4, recipient_id="u2", campaign_id="spring"),
            "released": pages(reader, 2, status="released"),
            "reserved": pages(reader, 2, status="reserved"),
            "by id": [reader.decision(WORKSPACE, one) for one in (*ids, "nobody")],
            "by ids": sorted(decisions.items()),
            "named": sorted(reader.named(WORKSPACE, [*ids, "nobody"]).items()),
            "replies": sorted(
                (one, sorted(heard, key=repr)) for one, heard in reader.replies(WORKSPACE, [*ids, "nobody"]).items()
            ),
            "known": sorted(reader.known_events(WORKSPACE, ["nothing", "told", *(f"c{n}" for n in range(COUNT))])),
            "by message": [reader.decisions_by_message(WORKSPACE, "ses", [f"m{n}"]) for n in range(COUNT)],
            "by either message": reader.decisions_by_message(WORKSPACE, "ses", ["m0", "m7"]),
            "by their message": reader.decisions_by_message(WORKSPACE, "ses", ["m0", "m7"], recipient_id="u0"),
            "by another's": reader.decisions_by_message(WORKSPACE, "twilio", ["m0"]),
            "events": [reader.events(WORKSPACE, decisions[one]) for one in ids if one in decisions],
            "about": [reader.events_about(WORKSPACE, f"u{n}") for n in range(5)],
            "columns": columns(reader, *EVER),
            "some columns": columns(reader, at(5), at(12)),
            "many": [reader.has_decisions(WORKSPACE, "spring", count) for count in (30, 37, 38, 50)],
            "answers": [reader.has_answers(workspace) for workspace in (WORKSPACE, "w2")],
            "stamps": stamps,
            "blocks": [reader.decision_block(WORKSPACE, "spring", block) for block in stamps.decisions],
            "event blocks": [
                reader.event_block(WORKSPACE, "spring", block, TYPES, {"converted"}) for block in stamps.events
            ],
            "open": reader.open_decisions(WORKSPACE, "u1"),
            "messages": list(reader.message_log(WORKSPACE)),
            "elsewhere": (reader.decision("w2", "dec_1"), reader.decisions("w2", limit=9), list(reader.feedback("w2"))),
        }


def live(store: Store) -> set[str]:
    """The decisions of the log that are in the tables."""
    with store.read() as reader:
        return set(cast(ArchiveReader, reader)._stored(WORKSPACE, [f"dec_{n}" for n in range(COUNT)]))


def test_everything_is_read_as_before(filled: Store) -> None:
    before = told(filled)
    moved = archive_all(filled, BEFORE)
    assert moved == sum(decision(n).status != "reserved" for n in range(COUNT))
    assert live(filled) == {f"dec_{n}" for n in range(COUNT) if decision(n).status == "reserved"}
    after = told(filled)
    for name, value in before.items():
        assert after[name] == value, name


def test_a_file_of_before_columns_were_added_is_read_and_comes_back(filled: Store) -> None:
    archive_all(filled, BEFORE)
    before = told(filled)
    (file,) = _files(filled)
    path = filled.archive / file.path
    table = pq.read_table(path, partitioning=None).drop_columns(["counted_at", "joined_at", "joined_after"])
    pq.write_table(table, path, row_group_size=parquet.GROUP)
    parquet.read_group.cache_clear()
    with filled.read() as reader:
        seen = reader.decisions_by_id(WORKSPACE, ["dec_0", "dec_7"])
    assert {(one.counted_at, one.joined_at, one.joined_after) for one in seen.values()} == {(None, None, None)}
    after = told(filled)
    for name in ("about", "known after", "pages", "columns", "messages"):
        assert after[name] == before[name], name
    assert filled.write(lambda writer: writer.bring_back(WORKSPACE, "u0")) > 0
    assert "dec_0" in live(filled)
    with filled.read() as reader:
        assert reader.decision(WORKSPACE, "dec_0") == seen["dec_0"]


def test_messages_that_share_an_id_may_lie_in_tables_and_files(filled: Store) -> None:
    archive_all(filled, BEFORE)
    filled.write(lambda writer: writer.add_event(_late(decision_id="dec_7", recipient_id="u3")))
    assert "dec_7" in live(filled)
    with filled.read() as reader:
        found = reader.decisions_by_message(WORKSPACE, "ses", ["m0", "m7"])
        theirs = reader.decisions_by_message(WORKSPACE, "ses", ["m0", "m7"], recipient_id="u0")
    assert [[one.decision_id for one in told] for told in (found, theirs)] == [["dec_7", "dec_0"], ["dec_0"]]


def test_files_that_overlap_are_read_in_order(filled: Store) -> None:
    """As stragglers make them: each has every third of the rows."""
    before = told(filled)
    rows = candidates(filled, BEFORE)
    for number in range(3):
        part = rows[number::3]
        assert move(filled, write_file(filled, part, number + 1), part) == len(part)
    assert told(filled) == before


def test_a_write_sees_both(filled: Store) -> None:
    archive_all(filled, BEFORE)

    def look(writer: Writer) -> tuple[object, ...]:
        found = writer.decision(WORKSPACE, "dec_1")
        assert found is not None
        return (
            found.status,
            list(writer.decisions_by_id(WORKSPACE, ["dec_2", "dec_5", "nobody"])),
            writer.named(WORKSPACE, ["dec_3"])["dec_3"].status,
            [event.event_id for event in writer.events(WORKSPACE, found) if event.decision_id],
        )

    assert filled.write(look) == ("assumed_sent", ["dec_5", "dec_2"], "withheld", ["o1"])
    assert "dec_1" not in live(filled)


def test_rows_move_in_steps_and_are_read_all_the_while(filled: Store) -> None:
    before = told(filled)
    rows = candidates(filled, BEFORE)
    file = write_file(filled, rows)
    while file.moved < file.rows:
        assert told(filled) == before
        part = rows[file.moved : file.moved + 9]
        assert move(filled, file, part) == len(part)
        with pytest.raises(VersionConflict):
            move(filled, file, part)
        (file,) = _files(filled)
    assert told(filled) == before


def _files(store: Store) -> tuple[Any, ...]:
    with store.read() as reader:
        return reader.archive_files(WORKSPACE)


def test_a_row_that_was_changed_meanwhile_stays_in_the_tables(filled: Store) -> None:
    rows = candidates(filled, BEFORE)
    file = write_file(filled, rows)
    filled.write(lambda writer: writer.add_event(make_event(event_id="late", decision_id="dec_2")))
    filled.write(lambda writer: writer.update_decision(replace(decision(4), close_reason="other"), None))
    before = told(filled)
    assert move(filled, file, rows) == len(rows) - 2
    assert live(filled) >= {"dec_2", "dec_4"}
    assert told(filled) == before


def test_what_was_not_moved_can_be_given_up(filled: Store) -> None:
    before = told(filled)
    rows = candidates(filled, BEFORE)
    file = write_file(filled, rows)
    move(filled, file, rows[:10])
    (file,) = _files(filled)
    filled.write(lambda writer: writer.give_up_moving(file))
    assert told(filled) == before
    with pytest.raises(VersionConflict):
        move(filled, file, rows[10:20])
    take_out(filled)
    assert told(filled) == before
    assert archive_all(filled, BEFORE, 2) == len(rows) - 10
    assert told(filled) == before


def _late(**changes: Any) -> Event:
    return make_event(
        **{"event_id": "late", "decision_id": "dec_1", "recipient_id": "u1", "type": "clicked", **changes}
    )


def _columns_of(event: Event) -> NewEvents:
    return NewEvents(
        received_at=to_micros(event.received_at),
        ids=[event.event_id],
        types=[event.type],
        occurred_at=[to_micros(event.occurred_at)],
        recipients=[event.recipient_id],
        campaigns=[event.campaign_id],
        values=[event.value],
        automated=[event.automated],
        properties=[None],
        matched=[True],
        decisions=[event.decision_id],
        providers=[None],
        messages=[None],
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.add_event(_late()),
        lambda w: w.add_events([_late(), _late(event_id="other", decision_id="dec_2", recipient_id="u2")]),
        lambda w: w.add_new_events(WORKSPACE, _columns_of(_late())),
        lambda w: w.add_vendor_event(_late(), "ses", {"a": 1}),
        lambda w: w.update_decision(replace(decision(1), status="sent", sent_at=at(9)), make_message(decision(1))),
        lambda w: w.add_message(foreign_message(message_ref="dec_1", recipient_id="u1")),
        lambda w: w.match_events(WORKSPACE, decision(1)),
    ],
    ids=["event", "events", "columns", "vendor", "update", "message", "match"],
)
def test_a_change_brings_its_decision_back(filled: Store, change: Callable[[Writer], object]) -> None:
    archive_all(filled, BEFORE)
    assert "dec_1" not in live(filled)
    filled.write(change)
    assert "dec_1" in live(filled)
    filled.write(lambda writer: writer.add_event(make_event(event_id="newer", decision_id="newest")))
    after = told(filled)
    assert archive_all(filled, BEFORE, 2) >= 1
    assert told(filled) == after


def test_an_archived_decision_is_erased(filled: Store) -> None:
    archive_all(filled, BEFORE)
    filled.write(lambda writer: writer.erase_decision(replace(decision(4), recipient_id="erased")))
    assert live(filled) >= {"dec_4"}
    after = told(filled)
    assert archive_all(filled, BEFORE, 2) == 1
    assert told(filled) == after


def test_a_changed_decision_is_as_if_it_had_never_moved(filled: Store) -> None:
    def change(writer: Writer) -> None:
        writer.add_event(_late())
        writer.label_events(WORKSPACE, [("o1", Label(automated=True, confidence=0.9, reason="machine"))])
        writer.update_decision(replace(decision(1), status="sent", sent_at=at(9)), None)

    with filled.read() as reader:
        was = reader.decisions_by_id(WORKSPACE, ["dec_1"])["dec_1"]
    archive_all(filled, BEFORE)
    filled.write(change)
    with filled.read() as reader:
        found = reader.decision(WORKSPACE, "dec_1")
        assert found is not None
        assert (found.status, found.position, found.request_hash) == ("sent", was.position, was.request_hash)
        heard = [one for one in reader.events(WORKSPACE, found) if one.decision_id]
        assert [(one.event_id, one.automated) for one in heard] == [("o1", True), ("late", False)]


def test_an_event_that_is_known_is_known_in_the_archive(filled: Store) -> None:
    archive_all(filled, BEFORE)
    before = told(filled)
    assert not filled.write(lambda writer: writer.add_event(events(1)[0]))
    with pytest.raises(OneByOne):
        filled.write(lambda writer: writer.add_new_events(WORKSPACE, _columns_of(events(2)[0])))
    assert told(filled) == before


@pytest.mark.parametrize("named", [None, "dec_2"])
def test_an_archived_event_is_known_whatever_it_names_now(filled: Store, named: str | None) -> None:
    archive_all(filled, BEFORE)
    again = replace(events(1)[0], decision_id=named, recipient_id="u2")
    fresh = replace(again, event_id="fresh")

    def each(writer: Writer) -> tuple[bool, bool, int, bool]:
        return (
            writer.add_event(again),
            writer.add_vendor_event(again, "ses", {"a": 1}),
            writer.add_events([again, fresh]),
            writer.add_event(fresh),
        )

    assert filled.write(each) == (False, False, 1, False)
    with pytest.raises(OneByOne):
        filled.write(lambda writer: writer.add_new_events(WORKSPACE, _columns_of(again)))
    assert filled.write(lambda writer: writer.bring_back(WORKSPACE, "u1")) > 0
    with filled.read() as reader:
        heard = [event.event_id for row in reader.feedback(WORKSPACE) for event in row.events if event.decision_id]
    assert heard.count("o1") == 1


@pytest.mark.parametrize("later", [True, False])
def test_an_archived_event_that_was_stored_again_counts_once(
    filled: Store, monkeypatch: pytest.MonkeyPatch, *, later: bool
) -> None:
    """As where the archive was made before it told of its events' ids: whichever was received first stays."""

    def of_decision(row: Archived) -> list[int]:
        return keys_of(replace(row, events=()))

    with monkeypatch.context() as patch:
        patch.setattr(archive_changes, "keys_of", of_decision)
        archive_all(filled, BEFORE)
        first = events(1)[0]
        received = first.received_at + timedelta(hours=1 if later else -1)
        again = replace(first, decision_id=None, recipient_id="u2", type="converted", received_at=received)
        assert filled.write(lambda writer: writer.add_event(again))
    with filled.read() as reader:
        stamps = reader.block_stamps(WORKSPACE)
    assert filled.write(lambda writer: writer.add_event(_late()))
    assert "dec_1" in live(filled)
    with filled.read() as reader:
        heard = [event for row in reader.feedback(WORKSPACE) for event in row.events if event.event_id == "o1"]
        one = heard[0]
        assert all(event == one for event in heard)  # without a decision's name it counts for each of its recipient
        assert (one.decision_id, one.type, one.received_at) == (
            ("dec_1", "opened", first.received_at) if later else (None, "converted", received)
        )
        assert reader.block_stamps(WORKSPACE).events != stamps.events
    assert filled.write(lambda writer: writer.bring_back(WORKSPACE, "u1")) > 0
    assert archive_all(filled, BEFORE, 2) > 0


def test_an_archived_decision_is_not_stored_twice(filled: Store) -> None:
    archive_all(filled, BEFORE)
    for work in (
        lambda w: w.add_decision(decision(1), None),
        lambda w: w.add_decisions([(decision(2), None), (make_decision(decision_id="new"), None)]),
    ):
        with pytest.raises(AlreadyExists):
            filled.write(work)
    with filled.read() as reader:
        assert reader.decision(WORKSPACE, "new") is None


def test_a_persons_decisions_come_back_and_their_bytes_go(filled: Store) -> None:
    before = told(filled)
    archive_all(filled, BEFORE)
    (old,) = _files(filled)
    count = filled.write(lambda writer: writer.bring_back(WORKSPACE, "u1"))
    assert count == sum(n % 4 == 1 and decision(n).status != "reserved" for n in range(COUNT))
    assert filled.write(lambda writer: writer.bring_back(WORKSPACE, "nobody")) == 0
    assert told(filled) == before
    take_out(filled)
    (new,) = _files(filled)
    assert new.path != old.path
    rows = [row for group in parquet.read_groups(filled.archive / new.path, new.rows) for row in group]
    assert sum(row is None for row in rows) == count
    assert all(row is None or row.decision[parquet.RECIPIENT] != "u1" for row in rows)
    assert told(filled) == before


def test_of_two_copies_of_a_file_the_first_counts(filled: Store) -> None:
    before = told(filled)
    archive_all(filled, BEFORE)
    (old,) = _files(filled)
    rows = [row for group in parquet.read_groups(filled.archive / old.path, old.rows) for row in group]
    copies = []
    for _ in range(2):
        path = parquet.next_path(old.path)
        copies.append(replace(old, path=path, checksum=parquet.write(filled.archive / path, [rows])))
    filled.write(lambda writer: writer.put_clean_file(old, copies[0], []))
    with pytest.raises(VersionConflict):
        filled.write(lambda writer: writer.put_clean_file(old, copies[1], []))
    assert _files(filled) == (copies[0],)
    (filled.archive / copies[1].path).unlink()
    assert told(filled) == before


def test_an_erasure_marks_files_until_they_are_clean(filled: Store) -> None:
    def mark() -> int | None:
        with filled.read() as reader:
            return reader.cleaning_wanted(WORKSPACE)

    assert mark() is None
    filled.write(lambda writer: writer.want_cleaning(WORKSPACE))
    first = mark()
    assert first is not None
    filled.write(lambda writer: writer.want_cleaning(WORKSPACE))
    filled.write(lambda writer: writer.note_cleaned(WORKSPACE, first))
    second = mark()
    assert second not in (None, first)
    filled.write(lambda writer: writer.note_cleaned(WORKSPACE, second or 0))
    assert mark() is None


def test_who_read_the_old_path_finds_the_new_file_and_is_told_what_it_lacks(filled: Store) -> None:
    archive_all(filled, BEFORE)
    with filled.read() as reader:
        whole = [row.decision.decision_id for row in reader.feedback(WORKSPACE)]
        groups = reader.archive_files(WORKSPACE)[0].contents.groups
        (left,) = (one for one in reader.decisions(WORKSPACE, limit=1, recipient_id="u2").items)
        back = reader.decisions(WORKSPACE, limit=1000, recipient_id="u1").items[-1]  # the oldest, which is archived
        filled.write(lambda writer: writer.bring_back(WORKSPACE, "u1"))
        take_out(filled)
        parquet.read_group.cache_clear()
        assert reader.decision(WORKSPACE, left.decision_id) == left
        for read in (
            lambda: list(reader.feedback(WORKSPACE)),
            lambda: reader.decisions(WORKSPACE, limit=1000),
            lambda: reader.decision_block(WORKSPACE, "spring", (back.position or 0) // BLOCK),
        ):
            with pytest.raises(ArchiveUnreadable, match="ask again"):
                read()
    assert len(groups) > 1
    with filled.read() as reader:
        assert [row.decision.decision_id for row in reader.feedback(WORKSPACE)] == whole


def test_a_file_that_is_gone_or_damaged_is_told(filled: Store) -> None:
    archive_all(filled, BEFORE)
    (file,) = _files(filled)
    path = filled.archive / file.path
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], whole[:2000] + bytes(50) + whole[2050:]):
        path.write_bytes(damage)
        parquet.read_group.cache_clear()
        with filled.read() as reader, pytest.raises(StoreUnavailable, match="SENDTIDE_ARCHIVE_FOLDER"):
            list(reader.feedback(WORKSPACE))
    path.unlink()
    parquet.read_group.cache_clear()
    with filled.read() as reader, pytest.raises(StoreUnavailable, match="SENDTIDE_ARCHIVE_FOLDER"):
        list(reader.feedback(WORKSPACE))


def test_retention_drops_a_file_that_is_old_enough(filled: Store) -> None:
    filled.write(lambda writer: writer.add_policy(make_policy(policy_id="pol_2", created_at=at(-1))))
    rows = candidates(filled, at(10))
    first = write_file(filled, rows)
    move(filled, first, rows)
    archive_all(filled, BEFORE, 2)
    assert filled.write(lambda writer: writer.prune(WORKSPACE, at(5))) == 0  # the first file reaches beyond it
    kept = len(rows)
    stamps = told(filled)["stamps"]
    assert filled.write(lambda writer: writer.prune(WORKSPACE, at(10))) == kept
    after = told(filled)
    with filled.read() as reader:
        assert [file.number for file in reader.archive_files(WORKSPACE)] == [2]
        ids = [row.decision.decision_id for row in reader.feedback(WORKSPACE)]
        gone = {row.decision[0] for row in rows}
        assert not gone & set(ids)
        refs = {message.message_ref for message in reader.message_log(WORKSPACE)}
        assert not gone & refs
        assert reader.decision(WORKSPACE, rows[0].decision[0]) is None
        assert reader.policy(WORKSPACE, "pol_2") is not None
        free = [e.event_id for r in reader.feedback(WORKSPACE) for e in r.events if e.decision_id is None]
    assert after["stamps"] != stamps
    assert free
    assert filled.write(lambda writer: writer.prune(WORKSPACE, at(8_999))) == COUNT - kept - 8
    with filled.read() as reader:
        assert reader.policy(WORKSPACE, "pol_2") is not None or not reader.archive_files(WORKSPACE)
        assert reader.archive_files(WORKSPACE) == ()


def test_retention_in_steps_drops_a_file_at_a_time(filled: Store) -> None:
    oldest = candidates(filled, at(10))
    move(filled, write_file(filled, oldest), oldest)
    archive_all(filled, BEFORE, 2)
    with filled.read() as reader:
        rows = [file.rows for file in reader.archive_files(WORKSPACE)]
    assert len(rows) == 2
    gone = [filled.write(lambda writer: writer.prune(WORKSPACE, at(8_999), limit=3)) for _ in rows]
    assert gone == rows
    with filled.read() as reader:
        assert reader.archive_files(WORKSPACE) == ()
        ids = {row.decision.decision_id for row in reader.feedback(WORKSPACE)}
        assert {one.decision_id for one in reader.message_log(WORKSPACE) if one.decision_id is not None} <= ids


def test_a_message_that_still_counts_keeps_its_file(filled: Store) -> None:
    ids = {row.decision[0] for row in candidates(filled, BEFORE)}
    archive_all(filled, BEFORE)
    with filled.read() as reader:
        (file,) = reader.archive_files(WORKSPACE)
        latest = max(one.at for one in reader.message_log(WORKSPACE) if one.decision_id in ids)

    def prune(counting_from: datetime) -> int:
        return filled.write(lambda writer: writer.prune(WORKSPACE, at(8_999), counting_from=counting_from, limit=99))

    while prune(latest):
        pass
    with filled.read() as reader:
        assert reader.archive_files(WORKSPACE) == (file,)
    assert prune(latest + timedelta(microseconds=1)) == file.rows


def test_events_of_archived_decisions_are_not_loose(filled: Store) -> None:
    archive_all(filled, BEFORE, 2)
    with filled.read() as reader:
        assert reader.archive_files(WORKSPACE)
        before = [(row.decision.decision_id, row.events) for row in reader.feedback(WORKSPACE)]
    assert any(event.decision_id is None for _, events in before for event in events)
    filled.write(lambda writer: writer.prune_loose(WORKSPACE, at(8_999), limit=10_000))
    with filled.read() as reader:
        assert [(row.decision.decision_id, row.events) for row in reader.feedback(WORKSPACE)] == before


def test_an_order_stays_for_an_archived_decision_that_outlives_one_in_the_tables(store: Store) -> None:
    """Both count it. The file is kept for a younger decision, while retention takes the one in the tables."""
    made = {
        name: make_decision(decision_id=name, request_id=name, recipient_id=who, decided_at=at(when), status="released")
        for name, who, when in (("a", "p", -300), ("b", "p", -298), ("young", "q", -280), ("newest", "q", 0))
    }
    for one in made.values():
        store.write(methodcaller("add_decision", one, None))
    order = make_event(
        event_id="order", decision_id=None, recipient_id="p", type="converted", occurred_at=at(-297), value=9.0
    )
    assert store.write(methodcaller("add_event", order))
    assert store.write(methodcaller("add_event", make_event(event_id="last", decision_id="newest")))
    rows = [row for row in candidates(store, at(-100)) if row.decision[0] in ("a", "young")]
    assert move(store, write_file(store, rows), rows) == 2

    def orders() -> dict[str, list[str]]:
        with store.read() as reader:
            return {
                row.decision.decision_id: [one.event_id for one in row.events] for row in reader.feedback(WORKSPACE)
            }

    assert orders() == {"a": ["order"], "b": ["order"], "young": [], "newest": ["last"]}
    while store.write(methodcaller("prune", WORKSPACE, at(-290), limit=10)):
        pass
    while store.write(methodcaller("prune_loose", WORKSPACE, at(-290), limit=10)):
        pass
    assert orders() == {"a": ["order"], "young": [], "newest": ["last"]}


def test_the_number_of_a_dropped_event_is_given_to_no_other(filled: Store) -> None:
    """Archived events have higher numbers than any of the tables then: a new one would be hidden behind theirs."""
    lost = make_event(event_id="lost", decision_id="nobodys", recipient_id="nobody", matched=False)
    filled.write(lambda writer: writer.add_event(lost))
    archive_all(filled, BEFORE)
    filled.write(lambda writer: writer.drop_events(WORKSPACE, ["lost"]))
    with filled.read() as reader:
        (open_, *_) = reader.decisions(WORKSPACE, limit=1).items
        assert reader.known_events(WORKSPACE, ["lost"]) == {}
        assert reader.events_about(WORKSPACE, "nobody") == ()
        stamps = [reader.block_stamps(WORKSPACE).events]
    for name in ("new", "newer"):
        event = make_event(event_id=name, decision_id=open_.decision_id)
        assert filled.write(methodcaller("add_event", event))
        with filled.read() as reader:
            stamps.append(reader.block_stamps(WORKSPACE).events)
    assert stamps[0] != stamps[1] != stamps[2]
    filled.write(lambda writer: writer.prune_loose(WORKSPACE, at(8_999), limit=10_000))
    with filled.read() as reader:
        assert {"new", "newer"} <= reader.known_events(WORKSPACE, ["new", "newer"]).keys()


def test_only_closed_and_settled_decisions_of_one_month_are_offered(filled: Store) -> None:
    def settled(one: Decision) -> bool:
        return one.recipient_id != "u3"

    with filled.read() as reader:
        rows, after = reader.archivable(WORKSPACE, at(5), settled, limit=100)
        ids = [row.decision[0] for row in rows]
        assert ids == sorted(ids, key=lambda one: (int(one[4:]) // 3, one))
        assert {int(one[4:]) for one in ids} == {
            n for n in range(15) if n % 4 != 3 and decision(n).status != "reserved"
        }
        assert reader.archivable(WORKSPACE, at(5), settled, after=after, limit=100) == ((), None)
        few, after = reader.archivable(WORKSPACE, at(5), anything, limit=3)
        assert [row.decision[0] for row in few] == ["dec_0", "dec_1", "dec_2"]
        next_, _ = reader.archivable(WORKSPACE, at(5), anything, after=after, limit=3)
        assert [row.decision[0] for row in next_] == ["dec_3", "dec_4", "dec_6"]
    month = make_decision(decision_id="april", request_id="april", decided_at=at(24 * 30), status="sent")
    filled.write(lambda writer: writer.add_decision(month, None))
    filled.write(lambda writer: writer.add_decision(replace(month, decision_id="last", request_id="last"), None))
    with filled.read() as reader:
        rows, after = reader.archivable(WORKSPACE, at(24 * 60), anything, limit=100)
        assert "april" not in {row.decision[0] for row in rows}
        rows, _ = reader.archivable(WORKSPACE, at(24 * 60), anything, after=after, limit=100)
        assert [row.decision[0] for row in rows] == ["april"]


def test_the_newest_decision_and_event_stay(store: Store) -> None:
    old = replace(decision(1), decision_id="old", request_id="old")
    new = replace(decision(2), decision_id="new", request_id="new")
    store.write(lambda w: w.add_decisions([(old, None), (new, None)]))
    assert [row.decision[0] for row in candidates(store, BEFORE)] == ["old"]
    store.write(lambda w: w.add_event(make_event(decision_id="old")))
    assert candidates(store, BEFORE) == []


def test_events_that_race_with_the_move_are_each_there_once(filled: Store) -> None:
    """One thread moves and takes out again and again, three report events; nobody loses anything."""
    ended = threading.Event()
    people = {f"dec_{n}": f"u{n % 4}" for n in range(COUNT)}

    def report(worker: int) -> int:
        count = 0
        while not ended.is_set() or count < 10:
            name = f"dec_{(7 * count + worker) % COUNT}"
            event = make_event(event_id=f"{worker}-{count}", decision_id=name, recipient_id=people[name])
            filled.write(lambda w, e=event: _reported(w, e), recipients=[(WORKSPACE, people[name])])  # type: ignore[misc]
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        reports = [pool.submit(report, worker) for worker in range(3)]
        try:
            for number in range(1, 9):
                archive_all(filled, BEFORE, number)
                take_out(filled)
        finally:
            ended.set()
        told_ = {f"{worker}-{n}" for worker, one in enumerate(reports) for n in range(one.result())}
    archive_all(filled, BEFORE, 99)
    with filled.read() as reader:
        rows = list(reader.feedback(WORKSPACE))
    assert sorted(row.decision.decision_id for row in rows) == sorted([*people, "newest"])
    heard = [event.event_id for row in rows for event in row.events if event.decision_id is not None]
    assert len(heard) == len(set(heard))
    assert told_ <= set(heard)


def _reported(writer: Writer, event: Event) -> None:
    """As whoever stores an event does: the decision first."""
    assert event.decision_id in writer.named(WORKSPACE, [event.decision_id or ""])
    assert writer.add_event(event)
