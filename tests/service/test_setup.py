"""Set-up: versions, archived variants, keys, the default rule, what a replaced recipient keeps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from optimizer.errors import Invalid, NotFound, PreconditionFailed, Unauthenticated
from optimizer.service import recipients as people
from optimizer.service import setup
from optimizer.service.requests import DecisionRequest, RecipientPatch
from optimizer.service.wiring import Services
from storage.records import Attribute, Campaign, Consent, Recipient, Suppression, Variant
from storage.rules import Cap, Capacity, Rule, RuleKind, RuleParameters, WarmUpStep
from tests.service.asking import meanwhile
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign


def test_a_new_workspace_keeps_nights_quiet_for_text_messages(services: Services) -> None:
    with services.store.read() as reader:
        rules = reader.rules(WORKSPACE)
    assert [r.rule_id for r in rules] == [setup.DEFAULT_QUIET_HOURS]
    assert rules[0].applies_to.channels == ("sms", "push")


def test_a_variant_left_out_is_archived(services: Services, spring: Campaign) -> None:
    changed, created = setup.put_campaign(services, campaign(variants=(Variant("mens"), Variant("kids"))))
    assert not created
    assert {v.id: v.status for v in changed.variants} == {"mens": "active", "kids": "active", "womens": "archived"}
    assert changed.version == 2


def test_a_stale_version_is_refused(services: Services, spring: Campaign) -> None:
    with pytest.raises(PreconditionFailed, match="version 1"):
        setup.put_campaign(services, campaign(), if_match=7)


def test_an_archived_campaign_answers_no_more(services: Services, spring: Campaign) -> None:
    setup.archive_campaign(services, WORKSPACE, "spring")
    with pytest.raises(Invalid, match="archived"):
        services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1"))


def test_a_campaign_that_changes_meanwhile_is_archived_as_it_is_then(
    services: Services, spring: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(services, monkeypatch, lambda: setup.put_campaign(services, campaign(name="newer")))
    archived = setup.archive_campaign(services, WORKSPACE, "spring")
    assert (archived.status, archived.name, archived.version) == ("archived", "newer", 3)
    assert setup.archive_campaign(services, WORKSPACE, "spring") == archived
    setup.put_campaign(services, campaign())
    with pytest.raises(PreconditionFailed, match="version 4"):
        setup.archive_campaign(services, WORKSPACE, "spring", if_match=3)
    with pytest.raises(NotFound):
        setup.archive_campaign(services, WORKSPACE, "nope")


def test_a_key_opens_until_it_is_revoked(services: Services) -> None:
    key, secret = setup.create_key(services, WORKSPACE, "ci", ["read", "decide"])
    assert setup.authenticate(services, secret).scopes == ("decide", "read")
    setup.revoke_key(services, WORKSPACE, key.key_id)
    with pytest.raises(Unauthenticated):
        setup.authenticate(services, secret)
    with pytest.raises(Unauthenticated):
        setup.authenticate(services, "st_guess")
    with pytest.raises(NotFound):
        setup.revoke_key(services, WORKSPACE, "key_nope")


def test_an_unknown_scope_names_the_known_ones(services: Services) -> None:
    with pytest.raises(Invalid, match="decide, feedback, track, read, admin"):
        setup.create_key(services, WORKSPACE, "ci", ["root"])


def test_a_replaced_recipient_keeps_refusals_that_events_recorded(services: Services) -> None:
    by_event = Suppression("email", "marketing", source="event:unsubscribed:e1")
    by_crm = Suppression("push", "marketing", source="crm")
    setup.put_recipient(services, Recipient(WORKSPACE, "u1", suppressed=(by_event, by_crm)))
    stored, created = setup.put_recipient(services, Recipient(WORKSPACE, "u1", timezone="Europe/Berlin"))
    assert not created
    assert stored.suppressed == (by_event,)


def test_a_refusal_that_an_event_recorded_outlives_a_callers_own_of_the_same(services: Services) -> None:
    by_event = Suppression("email", "marketing", source="event:unsubscribed:e1", at=START)
    own = Suppression("email", "marketing")

    def put(*suppressed: Suppression) -> tuple[Suppression, ...]:
        return setup.put_recipient(services, Recipient(WORKSPACE, "u1", suppressed=suppressed))[0].suppressed

    assert put(by_event) == (by_event,)
    assert put(own) == (own, by_event)
    assert put(own, own) == (own, by_event)  # as read, without sources
    assert put(own, by_event) == (own, by_event)
    rewritten = replace(by_event, at=None)
    assert put(rewritten) == (rewritten,)
    assert put() == (rewritten,)


def test_attributes_are_typed_at_first_sight(services: Services, spring: Campaign) -> None:
    told = {"age": 33, "plan": "pro", "vip": True, "joined": "2026-01-02T03:04:05Z", "nothing": None}
    told |= {"born": "1990-03-01", "code": "1990-31-01"}
    patch = RecipientPatch(attributes=told)
    services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1", recipient=patch, context={"cart_value": 8.5}))
    with services.store.read() as reader:
        listed = {a.name: (a.type, a.declared) for a in reader.attributes(WORKSPACE)}
    assert listed == {
        "age": ("number", False),
        "plan": ("category", False),
        "vip": ("boolean", False),
        "joined": ("timestamp", False),
        "born": ("timestamp", False),
        "code": ("category", False),
        "cart_value": ("number", False),
    }


def test_a_full_registry_lists_only_what_is_declared_or_private(
    services: Services, spring: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "LISTED", 3)

    def ask(context: dict[str, object]) -> tuple[list[str], int]:
        decision = services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1", context=context))[0]
        assert context.items() <= decision.snapshot.context.items()
        with services.store.read() as reader:
            return [a.name for a in reader.attributes(WORKSPACE)], reader.config_version(WORKSPACE)

    assert ask({"a": 1, "b": 1})[0] == ["a", "b"]
    names, version = ask({"c": 1, "d": 1})
    assert names == ["a", "b", "c"]
    assert ask({"d": 1, "e": 1}) == (names, version)
    services.store.write(lambda writer: people.sight(writer, WORKSPACE, {}, [{"email": "x@y", "f": 1}], {"email"}))
    setup.put_attribute(services, Attribute(WORKSPACE, "d", "text", use_in_model=False))
    with services.store.read() as reader:
        listed = {a.name: a.use_in_model for a in reader.attributes(WORKSPACE)}
    assert listed == {"a": True, "b": True, "c": True, "d": False, "email": False}


WARM = Capacity(9, 60, (WarmUpStep(1, 2),))


def put_rule(services: Services, parameters: RuleParameters, kind: RuleKind = "capacity") -> Rule:
    return setup.put_rule(services, Rule(WORKSPACE, "r", kind, parameters))[0]


def test_a_rule_says_when_it_was_last_changed(services: Services, clock: FakeClock) -> None:
    assert put_rule(services, WARM).updated_at == START
    clock.forward(hours=5)
    assert put_rule(services, WARM).updated_at == clock.now
    clock.forward(hours=5)
    assert setup.archive_rule(services, WORKSPACE, "r").updated_at == clock.now
    with services.store.read() as reader:
        assert {r.rule_id: r.updated_at for r in reader.rules(WORKSPACE)} == {
            setup.DEFAULT_QUIET_HOURS: START,
            "r": clock.now,
        }


def test_a_warm_up_without_a_date_starts_on_the_utc_date_it_is_given_and_keeps_it(
    services: Services, clock: FakeClock
) -> None:
    def starts_on(parameters: Capacity) -> str | None:
        stored = put_rule(services, parameters).parameters
        assert isinstance(stored, Capacity)
        return stored.starts_on

    assert starts_on(Capacity(9, 60)) is None
    clock.now = datetime(2026, 3, 3, 23, 59, tzinfo=UTC)
    assert starts_on(WARM) == "2026-03-03"
    clock.forward(minutes=1)
    assert starts_on(replace(WARM, limit=10)) == "2026-03-03"
    assert starts_on(replace(WARM, starts_on="2026-04-01")) == "2026-04-01"
    assert starts_on(replace(WARM, warm_up=(WarmUpStep(2, 3),))) == "2026-04-01"
    assert starts_on(Capacity(9, 60)) is None
    assert starts_on(WARM) == "2026-03-04"
    put_rule(services, Cap(1, rolling_hours=1.0), "cap")
    clock.forward(days=1)
    assert starts_on(WARM) == "2026-03-05"
    setup.archive_rule(services, WORKSPACE, "r")
    clock.forward(days=1)
    assert starts_on(WARM) == "2026-03-06"


@pytest.mark.parametrize(
    ("more", "moves"),
    [
        ({"attributes": {"plan": "pro"}}, False),
        ({"attributes": {"country": "DE"}}, True),
        ({"timezone": "Europe/Berlin"}, True),
        ({"channels": {"sms": Consent(state=True)}}, True),
        ({"suppressed": (Suppression("email", "*"),)}, True),
    ],
)
def test_a_recipients_mark_moves_with_what_rules_go_by(services: Services, more: dict[str, Any], moves: bool) -> None:
    setup.put_campaign(services, campaign(allow_no_send=False))
    setup.put_recipient(services, Recipient(WORKSPACE, "u1", attributes={"plan": "free"}))
    services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1"))
    for put in (setup.put_recipient, lambda *told: setup.put_recipients(told[0], WORKSPACE, [told[1]])):
        put(services, Recipient(WORKSPACE, "u1", **more))
        with services.store.read() as reader:
            stored = reader.recipient(WORKSPACE, "u1")
        assert stored is not None
        assert (stored.changed_after > 0) == moves
