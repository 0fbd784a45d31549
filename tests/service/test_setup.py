"""Set-up: versions, archived variants, keys, the default rule, what a replaced recipient keeps."""

from __future__ import annotations

import pytest

from optimizer.errors import Invalid, NotFound, PreconditionFailed, Unauthenticated
from optimizer.service import setup
from optimizer.service.requests import DecisionRequest, RecipientPatch
from optimizer.service.wiring import Services
from storage.records import Campaign, Recipient, Suppression, Variant
from tests.service.conftest import WORKSPACE, campaign


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
    with pytest.raises(Invalid, match="decide, feedback, read, admin"):
        setup.create_key(services, WORKSPACE, "ci", ["root"])


def test_a_replaced_recipient_keeps_refusals_that_events_recorded(services: Services) -> None:
    by_event = Suppression("email", "marketing", source="event:unsubscribed:e1")
    by_crm = Suppression("push", "marketing", source="crm")
    setup.put_recipient(services, Recipient(WORKSPACE, "u1", suppressed=(by_event, by_crm)))
    stored, created = setup.put_recipient(services, Recipient(WORKSPACE, "u1", timezone="Europe/Berlin"))
    assert not created
    assert stored.suppressed == (by_event,)


def test_attributes_are_typed_at_first_sight(services: Services, spring: Campaign) -> None:
    told = {"age": 33, "plan": "pro", "vip": True, "joined": "2026-01-02T03:04:05Z", "nothing": None}
    patch = RecipientPatch(attributes=told)
    services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1", recipient=patch, context={"cart_value": 8.5}))
    with services.store.read() as reader:
        listed = {a.name: (a.type, a.declared) for a in reader.attributes(WORKSPACE)}
    assert listed == {
        "age": ("number", False),
        "plan": ("category", False),
        "vip": ("boolean", False),
        "joined": ("timestamp", False),
        "cart_value": ("number", False),
    }
