"""Messages that nobody confirmed: they teach once something else than an answer says that they went out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from optimizer.service import settle, setup, upkeep
from optimizer.service.feedback import Logged, load
from optimizer.service.ingest import ingest
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.retrain import retrain
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.records import Channel, EventMapping, Guardrail, OutcomeWeight
from tests.service.conftest import WORKSPACE, FakeClock, campaign

RELEASING = campaign(
    channels=(Channel("email"),),
    objective={"clicked": OutcomeWeight(1.0)},
    guardrails={"unsubscribed": Guardrail(max_rate=0.05)},
    attribution_hours={"clicked": 1.0, "unsubscribed": 1.0},
    allow_no_send=False,
    unconfirmed="release",
    event_mapping={"Email Delivered": EventMapping("delivered")},
)


@pytest.fixture
def shop(services: Services) -> Services:
    setup.put_campaign(services, RELEASING)
    return services


def sent_to(services: Services, people: int) -> list[Decision]:
    rows = [
        DecisionRequest("spring", f"p{i}", context={"plan": ("pro", "free")[i % 2]}, immediate=True)
        for i in range(people)
    ]
    return [d for d in services.decider.decide_batch(WORKSPACE, rows, "run") if isinstance(d, Decision)]


def tell(services: Services, clock: FakeClock, kind: str, decided: Sequence[Decision]) -> None:
    events = [EventInput(type=kind, occurred_at=clock.now, decision_id=d.decision_id) for d in decided]
    ingest(services, WORKSPACE, events)


def rows_of(services: Services, clock: FakeClock) -> dict[str, Logged]:
    with services.store.read() as reader:
        return {row.decision.decision_id: row for row in load(reader, WORKSPACE, clock.now).of("spring")}


def settled(services: Services, clock: FakeClock) -> None:
    clock.forward(hours=3)
    upkeep.expire(services, WORKSPACE)


def test_they_are_not_chosen_by_their_answers(shop: Services, clock: FakeClock) -> None:
    decided = sent_to(shop, 40)
    tell(shop, clock, "clicked", decided[:20])
    tell(shop, clock, "delivered", decided[10:20])
    tell(shop, clock, "Email Delivered", decided[20:30])
    settled(shop, clock)
    rows = rows_of(shop, clock)
    assert [rows[d.decision_id].decision.status for d in decided] == ["assumed_sent"] * 30 + ["expired"] * 10
    assert {name for name, row in rows.items() if row.trainable} == {d.decision_id for d in decided[10:30]}
    assert all(row.evaluable for row in rows.values()), "by intention to treat"


@pytest.mark.parametrize("learned", ["delivered", "opened"])
def test_an_arrival_that_is_learned_chooses_none_either(services: Services, clock: FakeClock, learned: str) -> None:
    made = campaign(channels=(Channel("email"),), objective={learned: OutcomeWeight(1.0)}, unconfirmed="release")
    setup.put_campaign(services, made)
    decided = [d for d in sent_to(services, 20) if d.variant_id is not None]
    tell(services, clock, "delivered", decided[:5])
    settled(services, clock)
    rows = rows_of(services, clock)
    assert sum(rows[d.decision_id].trainable for d in decided) == (0 if learned == "delivered" else 5)


def test_where_nothing_is_confirmed_a_retrain_says_what_is_missing(shop: Services, clock: FakeClock) -> None:
    decided = sent_to(shop, 300)
    tell(shop, clock, "clicked", decided[::3])
    settled(shop, clock)
    (verdict,) = retrain(shop, WORKSPACE)
    assert verdict["decision"] == "skipped"
    assert "0 matured rows; 200 are needed; 300 messages more teach nothing" in verdict["reason"]


def test_a_refusal_that_called_off_its_own_message_is_learned_from(shop: Services, clock: FakeClock) -> None:
    """It was sent ahead of its time, and the refusal came before both that time and the confirm."""
    window = (clock.now + timedelta(hours=5), clock.now + timedelta(hours=6))
    asked = DecisionRequest("spring", "u1", window=window)
    first, other = (shop.decider.decide(WORKSPACE, asked)[0] for _ in range(2))
    clock.forward(hours=1)
    tell(shop, clock, "unsubscribed", [first])
    rows = rows_of(shop, clock)
    assert [rows[d.decision_id].decision.status for d in (first, other)] == ["revoked", "revoked"]
    assert [rows[d.decision_id].trainable for d in (first, other)] == [True, False]


@pytest.mark.parametrize(("leaving", "passed"), [(0, True), (50, False)])
def test_a_first_policys_guardrails_see_the_harm_of_unconfirmed_messages(
    shop: Services, clock: FakeClock, leaving: int, passed: bool
) -> None:
    decided = sent_to(shop, 400)
    confirmed, unconfirmed = decided[:300], decided[300:]
    for one in confirmed:
        settle.confirm(shop, WORKSPACE, one.decision_id, None, None, None)
    liked = [d for i, d in enumerate(confirmed) if (d.variant_id == "mens") == (i % 2 == 0)]
    tell(shop, clock, "clicked", liked)
    tell(shop, clock, "unsubscribed", unconfirmed[:leaving])
    settled(shop, clock)
    (verdict,) = retrain(shop, WORKSPACE)
    (rate,) = (c for c in verdict["conditions"] if c["name"] == "guardrails.unsubscribed.rate")
    assert rate["passed"] is passed
    assert verdict["decision"] == ("publish" if passed else "reject"), verdict["reason"]
