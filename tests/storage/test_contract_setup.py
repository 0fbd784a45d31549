"""What every store keeps: set-up records, versions, compare-and-set, walls between workspaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest

from storage.errors import VersionConflict
from storage.port import Store, Writer
from storage.records import Campaign
from storage.rules import (
    Adapt,
    Blackout,
    Budget,
    Cap,
    Capacity,
    Fatigue,
    QuietHours,
    RuleKind,
    Selector,
    WarmUpStep,
)
from tests.storage.builders import (
    WORKSPACE,
    at,
    make_attribute,
    make_campaign,
    make_key,
    make_recipient,
    make_rule,
    make_workspace,
)


def put_campaign(campaign: Campaign) -> Callable[[Writer], None]:
    return lambda writer: writer.put_campaign(campaign)


def test_the_first_value_of_a_meta_fact_holds(store: Store) -> None:
    assert store.write(lambda writer: writer.put_meta("salt", "first")) == "first"
    assert store.write(lambda writer: writer.put_meta("salt", "second")) == "first"
    assert store.write(lambda writer: (writer.put_meta("empty", ""), writer.put_meta("empty", "x"))) == ("", "")
    with store.read() as reader:
        assert reader.meta("salt") == "first"
        assert reader.meta("pepper") is None


def test_workspaces_are_replaced_and_listed_by_id(store: Store) -> None:
    changed = make_workspace(mode="paused", version=2)

    def work(writer: Writer) -> None:
        for workspace in (make_workspace(workspace_id="w2"), make_workspace(), changed):
            writer.put_workspace(workspace)

    store.write(work)
    with store.read() as reader:
        assert reader.workspaces() == (changed, make_workspace(workspace_id="w2"))
        assert reader.workspace(WORKSPACE) == changed
        assert reader.workspace("w3") is None


def test_keys_are_found_by_hash_and_listed_oldest_first(store: Store) -> None:
    old = make_key(key_id="key_0", secret_hash=b"\x11" * 32, created_at=at(-5))
    revoked = make_key(revoked_at=at(1))

    def work(writer: Writer) -> None:
        for key in (make_key(), old, revoked, make_key(workspace_id="w2", secret_hash=b"\x22" * 32)):
            writer.put_key(key)

    store.write(work)
    with store.read() as reader:
        assert reader.keys(WORKSPACE) == (old, revoked)
        assert reader.key_by_hash(revoked.secret_hash) == revoked
        assert reader.key_by_hash(b"\x33" * 32) is None


def test_config_version_grows_with_every_change_of_the_workspaces_set_up(store: Store) -> None:
    changes = (
        lambda writer: writer.put_workspace(make_workspace()),
        lambda writer: writer.put_campaign(make_campaign()),
        lambda writer: writer.put_rule(make_rule()),
        lambda writer: writer.put_attribute(make_attribute()),
        lambda writer: writer.put_campaign(make_campaign(version=2)),
    )
    seen = [0]
    for change in changes:
        store.write(change)
        with store.read() as reader:
            seen.append(reader.config_version(WORKSPACE))
            assert reader.config_version("w2") == 0
    assert seen == sorted(set(seen))


def test_every_campaign_version_is_kept(store: Store) -> None:
    versions = [make_campaign(version=n, name=f"v{n}", updated_at=at(n)) for n in (1, 2, 3)]
    for campaign in versions:
        store.write(put_campaign(campaign))
    with store.read() as reader:
        assert reader.campaign(WORKSPACE, "spring") == versions[2]
        assert [reader.campaign(WORKSPACE, "spring", n) for n in (1, 2, 3)] == versions
        assert reader.campaign(WORKSPACE, "spring", 4) is None
        assert reader.campaign("w2", "spring") is None


@pytest.mark.parametrize("version", [0, 1, 3])
def test_a_campaign_rule_or_recipient_of_another_version_than_the_next_is_refused(store: Store, version: int) -> None:
    store.write(lambda writer: writer.put_campaign(make_campaign()))
    store.write(lambda writer: writer.put_rule(make_rule()))
    store.write(lambda writer: writer.put_recipient(make_recipient()))
    with store.read() as reader:
        before = reader.config_version(WORKSPACE)
    for refused in (
        lambda writer: writer.put_campaign(make_campaign(version=version, name="lost")),
        lambda writer: writer.put_rule(make_rule(version=version, enabled=False)),
        lambda writer: writer.put_recipient(make_recipient(version=version, timezone=None)),
    ):
        with pytest.raises(VersionConflict, match="2 comes next"):
            store.write(refused)
    with store.read() as reader:
        assert reader.campaign(WORKSPACE, "spring") == make_campaign()
        assert reader.rules(WORKSPACE) == (make_rule(),)
        assert reader.recipient(WORKSPACE, "u1") == make_recipient()
        assert reader.config_version(WORKSPACE) == before


def test_the_first_version_is_one(store: Store) -> None:
    with pytest.raises(VersionConflict):
        store.write(lambda writer: writer.put_campaign(make_campaign(version=2)))
    with pytest.raises(VersionConflict):
        store.write(lambda writer: writer.put_recipient(make_recipient(version=2)))


def test_campaigns_are_paged_by_id_in_their_current_version(store: Store) -> None:
    ids = ["a", "b", "c", "d", "é", "😀"]

    def work(writer: Writer) -> None:
        for campaign_id in reversed(ids):
            writer.put_campaign(make_campaign(campaign_id=campaign_id))
        writer.put_campaign(make_campaign(campaign_id="b", version=2, status="archived"))
        writer.put_campaign(make_campaign(campaign_id="aa", workspace_id="w2"))

    store.write(work)
    listed: list[Campaign] = []
    with store.read() as reader:
        page = reader.campaigns(WORKSPACE, limit=2)
        listed += page.items
        while page.cursor is not None:
            page = reader.campaigns(WORKSPACE, limit=2, cursor=page.cursor)
            assert len(page.items) == 2
            listed += page.items
        assert reader.campaigns(WORKSPACE, limit=6).cursor is None
    assert [(campaign.campaign_id, campaign.version) for campaign in listed] == [
        (campaign_id, 2 if campaign_id == "b" else 1) for campaign_id in ids
    ]


def test_rules_of_every_kind_come_back_by_id(store: Store) -> None:
    scope = Selector(channels=("sms",), except_categories=("transactional",), campaigns=("spring",))
    plan = (WarmUpStep(1, 50), WarmUpStep(3, 200))
    rules = (
        make_rule(rule_id="a", parameters=Cap(1, calendar="week", week_start="sun"), applies_to=scope, dry_run=True),
        make_rule(rule_id="b", kind="quiet_hours", parameters=QuietHours("21:00", "08:00", ("mon", "sun"))),
        make_rule(rule_id="c", enabled=False, archived=True, updated_at=at(1)),
        make_rule(rule_id="d", kind="gap", parameters=Cap(1, rolling_hours=4.0, adapt=Adapt(3, 0))),
        make_rule(rule_id="e", kind="blackout", parameters=Blackout(("2026-12-24",), True, "DE")),
        make_rule(rule_id="f", kind="capacity", parameters=Capacity(500, 60, plan, "2026-03-01")),
        make_rule(rule_id="g", kind="budget", parameters=Budget(10_000_000, "month", "Europe/Berlin")),
        make_rule(rule_id="h", kind="fatigue", parameters=Fatigue("unsubscribed", 0.002)),
    )
    assert {rule.kind for rule in rules} == set(get_args(RuleKind))

    def work(writer: Writer) -> None:
        for rule in reversed(rules):
            writer.put_rule(rule)

    store.write(work)
    store.write(lambda writer: writer.put_rule(replace(rules[0], version=2, enabled=False)))
    with store.read() as reader:
        assert reader.rules(WORKSPACE) == (replace(rules[0], version=2, enabled=False), *rules[1:])
        assert reader.rules("w2") == ()


def test_every_version_of_a_rule_is_kept(store: Store) -> None:
    a = [make_rule(rule_id="a", version=n, parameters=Cap(n, rolling_hours=1.0), updated_at=at(n)) for n in (1, 2, 3)]
    b = [make_rule(rule_id="b"), make_rule(rule_id="b", version=2, archived=True)]
    for rule in (b[0], *a, b[1], make_rule(workspace_id="w2")):
        store.write(lambda writer, rule=rule: writer.put_rule(rule))  # type: ignore[misc]
    with store.read() as reader:
        assert reader.rule_history(WORKSPACE) == (*a, *b)
        assert reader.rule_history("w2") == (make_rule(workspace_id="w2"),)
        assert reader.rule_history("w3") == ()


def test_attributes_are_replaced_and_listed_by_name(store: Store) -> None:
    plan = make_attribute(name="plan", type="category", sensitive=True, retention_days=30, declared=True)

    def work(writer: Writer) -> None:
        for attribute in (make_attribute(name="plan"), make_attribute(), plan):
            writer.put_attribute(attribute)

    store.write(work)
    with store.read() as reader:
        assert reader.attributes(WORKSPACE) == (make_attribute(), plan)
        assert reader.attributes("w2") == ()


def test_recipients_come_back_whole_alone_and_in_any_number(store: Store) -> None:
    people = [make_recipient(recipient_id=f"u{n:04}", attributes={"n": n}) for n in range(1500)]
    store.write(lambda writer: writer.put_recipients(people))
    changed = replace(people[3], version=2, timezone=None, attributes={}, channels={}, suppressed=(), updated_at=None)
    store.write(lambda writer: writer.put_recipient(changed))
    people[3] = changed
    with store.read() as reader:
        assert reader.recipient(WORKSPACE, "u0003") == changed
        assert reader.recipient(WORKSPACE, "nobody") is None
        found = reader.recipients(WORKSPACE, [p.recipient_id for p in people] + ["u0001", "nobody"])
        assert found == {p.recipient_id: p for p in people}
        assert reader.recipients(WORKSPACE, []) == {}
        assert reader.recipients("w2", ["u0001"]) == {}


def test_recipients_are_gone_through_by_id(store: Store) -> None:
    people = [make_recipient(recipient_id=name) for name in ("B", "a", "b", "é", "😀")]
    theirs = make_recipient(workspace_id="w2", recipient_id="c")
    store.write(lambda writer: writer.put_recipients([*reversed(people), theirs]))
    with store.read() as reader:
        assert reader.recipients_after(WORKSPACE, "", limit=9) == tuple(people)
        assert reader.recipients_after(WORKSPACE, "a", limit=2) == tuple(people[2:4])
        assert reader.recipients_after(WORKSPACE, "😀", limit=9) == ()


def test_many_recipients_are_stored_all_or_none(store: Store) -> None:
    store.write(lambda writer: writer.put_recipient(make_recipient()))
    fresh = make_recipient(recipient_id="u2")
    with pytest.raises(VersionConflict, match="u1"):
        store.write(lambda writer: writer.put_recipients([fresh, make_recipient(version=3)]))
    store.write(lambda writer: writer.put_recipients([make_recipient(version=2), make_recipient(version=3)]))
    store.write(lambda writer: writer.put_recipients([]))
    with store.read() as reader:
        assert reader.recipient(WORKSPACE, "u2") is None
        assert reader.recipient(WORKSPACE, "u1") == make_recipient(version=3)
