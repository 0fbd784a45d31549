"""What every store keeps: counts of what came in, and sessions that were ended."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

from storage.intake import Intake
from storage.port import Store
from tests.storage.builders import WORKSPACE, at

DAY = date(2026, 7, 1)
ONE = Intake(WORKSPACE, DAY, "api", "accepted", 3)


def count(store: Store, *added: Intake) -> None:
    store.write(lambda writer: writer.count_intake(added))


def test_counts_add_up_by_day_source_and_result(store: Store) -> None:
    others = (
        replace(ONE, day=DAY + timedelta(days=1)),
        replace(ONE, source="mailgun", count=5),
        replace(ONE, result="rejected.invalid", count=1),
        replace(ONE, workspace_id="other", count=2),
    )
    count(store)
    count(store, ONE, *others)
    count(store, ONE, replace(ONE, count=2**40))
    with store.read() as reader:
        whole = replace(ONE, count=2 * ONE.count + 2**40)
        assert reader.intake(WORKSPACE, DAY) == (whole, others[2], others[1], others[0])
        assert reader.intake(WORKSPACE, DAY + timedelta(days=1)) == (others[0],)
        assert reader.intake("other", DAY) == (others[3],)
        assert reader.intake("none", DAY) == ()


def test_old_counts_are_forgotten_in_every_workspace(store: Store) -> None:
    later = replace(ONE, day=DAY + timedelta(days=1))
    theirs = replace(ONE, workspace_id="other")
    count(store, ONE, later, theirs)
    store.write(lambda writer: writer.drop_intake(later.day))
    with store.read() as reader:
        assert reader.intake(WORKSPACE, DAY) == (later,)
        assert reader.intake("other", DAY) == ()


def test_an_ended_session_stays_ended_until_it_would_have_run_out(store: Store) -> None:
    store.write(lambda writer: writer.end_session("one", at(60), at(0)))
    store.write(lambda writer: writer.end_session("one", at(60), at(1)))
    store.write(lambda writer: writer.end_session("two", at(120), at(60)))
    with store.read() as reader:
        assert reader.session_ended("one")
        assert reader.session_ended("two")
        assert not reader.session_ended("three")
    store.write(lambda writer: writer.end_session("three", at(200), at(61)))
    with store.read() as reader:
        assert not reader.session_ended("one"), "by then the cookie itself is too old"
        assert reader.session_ended("two")
