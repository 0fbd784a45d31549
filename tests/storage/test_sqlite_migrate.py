"""Opening SQLite files: fresh ones, ours, newer ones, those of others."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlite_utils import Database, Migrations

from storage.errors import SchemaMismatch
from storage.log import Change, Reason, ShadowChoice
from storage.migrations import sqlite_0001_first
from storage.rules import Capacity, QuietHours, Selector
from storage.usage import period_of
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
from tests.storage.conftest import Opener


def test_opening_again_changes_nothing_in_the_file(opener: Opener, path: Path) -> None:
    store = opener()
    store.write(lambda writer: writer.add_decision(make_decision(), None))
    store.close()
    before = path.read_bytes()
    opener().close()
    assert path.read_bytes() == before


def test_a_database_of_a_newer_version_is_refused_untouched(opener: Opener, path: Path) -> None:
    opener().close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('sendtide', '9999_future', '')"
        )
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.read_bytes()
    with pytest.raises(SchemaMismatch, match=r"newer.*9999_future"):
        opener()
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused_untouched(opener: Opener, path: Path) -> None:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(SchemaMismatch, match="not a database of Sendtide"):
        opener()
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_untouched(opener: Opener, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"dear diary, " * 1000)
    with pytest.raises(SchemaMismatch, match="not a SQLite database"):
        opener()
    assert path.read_bytes() == b"dear diary, " * 1000


def test_a_migration_that_fails_leaves_an_empty_database(
    opener: Opener, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from storage.sqlite import migrate

    def fails_late(db: object) -> None:
        raise ArithmeticError

    migrate.MIGRATIONS(name="9998_fails")(fails_late)
    monkeypatch.setattr(migrate, "_STEPS", (*migrate._STEPS, ("9998_fails", fails_late)))
    try:
        with pytest.raises(ArithmeticError):
            opener()
    finally:
        migrate.MIGRATIONS._migrations.pop()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    opener().check()


class TestFromTheFirstSchema:
    """A database that only the first migration made, with the rows that its version wrote (``sqlite_0001.sql``)."""

    @pytest.fixture(autouse=True)
    def first_version(self, path: Path) -> None:
        only_first = Migrations("sendtide")
        only_first(name="0001_first")(sqlite_0001_first.first)
        path.parent.mkdir(parents=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            only_first.apply(Database(connection, execute_plugins=False))
            connection.executescript(Path(__file__).with_name("sqlite_0001.sql").read_text())

    def test_decisions_and_messages_read_back_with_nothing_noted_of_their_order_but_the_position(
        self, opener: Opener
    ) -> None:
        details = {
            "reasons": (Reason("weekly", "cap", 12, at(30)), Reason("consent", "consent", 3)),
            "snapshot": replace(
                make_decision().snapshot,
                attempt=1,
                shadow=ShadowChoice("mens", "email", None, 0.5, "pol_9"),
                overridden_rules=("weekly",),
            ),
        }
        stored = {"request_hash": b"\x01\x01", "eligible": b"\xff\x00"}
        expected = [
            make_decision(status="sent", sent_at=at(6.5), provider="p", message_id="m", **stored, **details),
            make_decision(decision_id="dec_2", status="released", closed_at=at(1), **stored),
            make_decision(decision_id="dec_3", send_at=at(9), **stored),
        ]
        with opener().read() as reader:
            found = [reader.decision(WORKSPACE, decision.decision_id) for decision in expected]
            held = reader.messages(WORKSPACE, ["u1"], at(-100), at(100))["u1"]
            assert reader.meta("marked_after") == "3"
        assert found == expected
        assert [(d.position, d.sent_after, d.closed_after) for d in found if d] == [(n, None, None) for n in (1, 2, 3)]
        assert {(d.counted_at, d.joined_at, d.joined_after) for d in found if d} == {(None, None, None)}
        assert held == (foreign_message(), make_message(expected[0]), make_message(expected[2]))
        assert {(message.cost, message.known_after) for message in held} == {(0, 0)}

    def test_messages_of_other_systems_go_by_their_age(self, opener: Opener) -> None:
        store = opener()
        assert store.write(lambda writer: writer.prune_loose(WORKSPACE, at(2), limit=9)) >= 1
        with store.read() as reader:
            assert [m.message_ref for m in reader.message_log(WORKSPACE)] == ["dec_1", "dec_3"]

    def test_rules_read_back_and_their_history_begins_with_what_holds(self, opener: Opener) -> None:
        night = make_rule(rule_id="night", kind="quiet_hours", parameters=QuietHours("21:00", "08:00", ("mon",)))
        weekly = make_rule(version=2, dry_run=True)
        store = opener()
        with store.read() as reader:
            assert reader.rules(WORKSPACE) == reader.rule_history(WORKSPACE) == (night, weekly)
        store.write(lambda writer: writer.put_rule(replace(weekly, version=3)))
        with store.read() as reader:
            history = reader.rule_history(WORKSPACE)
        assert [(rule.rule_id, rule.version, rule.changed_after) for rule in history] == [
            ("night", 1, 0),
            ("weekly", 2, 0),
            ("weekly", 3, 3),
        ]

    def test_recipients_and_events_read_back(self, opener: Opener) -> None:
        with opener().read() as reader:
            recipient = reader.recipient(WORKSPACE, "u1")
            events = reader.events(WORKSPACE, make_decision())
            assert (recipient, events) == (make_recipient(), (make_event(),))
            assert recipient is not None
            assert (recipient.changed_after, events[0].known_after) == (0, 0)
            assert reader.unanswered(WORKSPACE, ["u1"]) == {}

    def test_the_change_feed_reads_back_and_goes_on(self, opener: Opener) -> None:
        store = opener()
        policies = {"campaign_id": "spring", "policy_id": "pol_cold", "replaced_id": "pol_1"}
        assert store.write(lambda writer: writer.add_change(WORKSPACE, "rolled_back", at(1), **policies)) == 2
        with store.read() as reader:
            back, first = reader.policy_changes(WORKSPACE, limit=9, policy_id="pol_1")
        assert first == Change(WORKSPACE, 1, "promoted", at(0), None, "spring", "pol_1", "key key_1 (ann)", None)
        assert (back.policy_id, back.replaced_id) == ("pol_cold", "pol_1")

    def test_the_log_goes_on_and_old_messages_count_for_a_new_capacity(self, opener: Opener) -> None:
        store = opener()
        daily = make_rule(rule_id="daily", kind="capacity", parameters=Capacity(9, 24 * 60), counts=Selector())
        store.write(lambda writer: writer.put_rule(daily))
        new = make_decision(decision_id="dec_4", send_at=at(10))
        store.write(lambda writer: writer.add_decision(new, make_message(new)))
        day = period_of(Capacity(9, 24 * 60), at(0))
        with store.read() as reader:
            decision = reader.decision(WORKSPACE, "dec_4")
            assert decision is not None
            assert decision.position == 4
            assert reader.usage(WORKSPACE, [("daily", day, day)]) == {("daily", day): 4}
