"""Attribute values leave records that have not changed for as long as the registry lets them be kept."""

from __future__ import annotations

import pytest

from optimizer.service import outdated, setup, upkeep
from optimizer.service.wiring import Services
from storage.records import Attribute, Recipient, Suppression
from tests.service.asking import ask
from tests.service.conftest import WORKSPACE, FakeClock, campaign


def keep(services: Services, name: str, days: int | None) -> None:
    setup.put_attribute(services, Attribute(WORKSPACE, name, "category", retention_days=days, declared=True))


def put(services: Services, recipient_id: str, **attributes: str) -> None:
    refusal = Suppression("sms", "marketing")
    person = Recipient(WORKSPACE, recipient_id, timezone="Asia/Tokyo", attributes=attributes, suppressed=(refusal,))
    setup.put_recipient(services, person)


def stored(services: Services, name: str) -> Recipient:
    with services.store.read() as reader:
        found = reader.recipient(WORKSPACE, name)
    assert found is not None
    return found


def test_a_value_goes_once_its_record_has_stood_still_for_so_long(services: Services, clock: FakeClock) -> None:
    keep(services, "city", 30)
    keep(services, "plan", 60)
    keep(services, "name", None)
    put(services, "u1", city="Kyoto", plan="pro", name="Aki", other="x")
    before = stored(services, "u1")
    clock.forward(days=30)
    upkeep.retain(services, WORKSPACE)
    assert stored(services, "u1") == before, "not older than 30 days"
    clock.forward(seconds=1)
    upkeep.retain(services, WORKSPACE)
    after = stored(services, "u1")
    assert after.attributes == {"plan": "pro", "name": "Aki", "other": "x"}
    assert (after.timezone, after.suppressed) == (before.timezone, before.suppressed)
    assert (after.version, after.updated_at) == (before.version + 1, before.updated_at)
    clock.forward(days=30)
    upkeep.retain(services, WORKSPACE)
    assert stored(services, "u1").attributes == {"name": "Aki", "other": "x"}, (
        "by its own time, not from the last run on"
    )
    assert outdated.forget_outdated(services, WORKSPACE) == 0


def test_records_that_changed_keep_theirs_however_many_there_are(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outdated, "PAGE", 3)
    keep(services, "city", 30)
    for n in range(10):
        put(services, f"u{n}", city="Kyoto")
    clock.forward(days=20)
    put(services, "u4", city="Kyoto", plan="pro")
    clock.forward(days=20)
    assert outdated.forget_outdated(services, WORKSPACE) == 9
    assert {f"u{n}" for n in range(10) if stored(services, f"u{n}").attributes} == {"u4"}


def test_a_decision_keeps_what_it_was_made_by(services: Services, clock: FakeClock) -> None:
    setup.put_campaign(services, campaign())
    keep(services, "city", 30)
    put(services, "u1", city="Kyoto")
    made = ask(services, "u1")
    clock.forward(days=31)
    upkeep.retain(services, WORKSPACE)
    assert stored(services, "u1").attributes == {}
    with services.store.read() as reader:
        kept = reader.decision(WORKSPACE, made.decision_id)
    assert kept is not None
    assert kept.snapshot.context == made.snapshot.context
    assert "Kyoto" in str(made.snapshot.context)
