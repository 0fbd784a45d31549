"""A channel is left out of a campaign: the log knows it still, the campaign doesn't, and everything goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optimizer.errors import Invalid
from optimizer.service import setup, tuning
from optimizer.service.canary import watch
from optimizer.service.card import card
from optimizer.service.evaluate import evaluate
from optimizer.service.explain import explain
from optimizer.service.exports import Selection, export
from optimizer.service.feedback import examples, judgeable, load, usable
from optimizer.service.insights import insights
from optimizer.service.offered import Offered
from optimizer.service.pricing import reprice
from optimizer.service.refreshing import refresh
from optimizer.service.replay import Replayer
from optimizer.service.report import report_with_trends
from optimizer.service.requests import ScoreRequest
from optimizer.service.retrain import retrain
from optimizer.service.scores import Scorer
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.records import Channel, Guardrail
from storage.rules import Capacity, Rule
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.test_canary import plant
from tests.service.test_retrain import audience

WIDE = campaign(channels=(Channel("email", 0.01), Channel("chat", 0.02)))


def narrow(services: Services) -> None:
    """Leaves chat out."""
    setup.put_campaign(services, replace(WIDE, channels=(Channel("email", 0.01),)))


@pytest.fixture
def before(services: Services, clock: FakeClock) -> list[Decision]:
    """The decisions of a shop with two channels that serves a learned policy; then chat is left out."""
    setup.put_campaign(services, WIDE)
    decided = audience(services, clock, 700, seed=1)
    assert retrain(services, WORKSPACE)[0]["decision"] == "publish"
    services.policies.refresh_now()
    decided += audience(services, clock, 300, seed=2)
    assert {d.channel for d in decided} == {None, "email", "chat"}
    narrow(services)
    return decided


def served(services: Services) -> str:
    with services.store.read() as reader:
        pointer = reader.pointer(WORKSPACE, "spring")
    assert pointer is not None
    return pointer.policy_id


def test_policies_are_judged_on_what_is_still_whole_and_models_learn_from_what_was_done(
    services: Services, before: list[Decision], clock: FakeClock
) -> None:
    after = audience(services, clock, 50, seed=3)
    with services.store.read() as reader:
        log = load(reader, WORKSPACE, clock.now)
    now = log.campaigns["spring"]
    assert {r.decision.decision_id for r in judgeable(log.rows, now)} == {d.decision_id for d in after}
    taught = usable(log.rows, log.campaigns)
    assert {r.decision.channel for r in taught} == {None, "email"}
    assert len(taught) == sum(d.channel != "chat" for d in before) + 50
    assert len(examples(judgeable(log.rows, now), log.campaigns)) == 50


def test_what_was_chosen_is_not_asked_only_what_could_be(before: list[Decision]) -> None:
    """Rows that are left out by the action drawn would bias every estimate."""
    offered = Offered.of(replace(WIDE, channels=(Channel("email"),)))
    assert {offered.chosen(d) for d in before} == {True, False}
    assert {offered.whole(d) for d in before} == {False}
    assert all(Offered.of(WIDE).whole(d) for d in before)


def test_refreshes_and_retrains_go_on(services: Services, before: list[Decision], clock: FakeClock) -> None:
    audience(services, clock, 100, seed=3)
    (told,) = refresh(services, WORKSPACE)
    assert told["decision"] in ("publish", "waits")
    (told,) = retrain(services, WORKSPACE)
    assert (told["decision"], told["rows"]) == ("skipped", 100)
    assert "100 matured rows" in told["reason"]
    services.policies.refresh_now()
    audience(services, clock, 3_400, seed=4)
    (told,) = retrain(services, WORKSPACE)
    assert told["decision"] in ("publish", "reject"), told["reason"]
    assert told["conditions"]
    found = evaluate(services, WORKSPACE, served(services))
    assert found["rows"] >= 3_400


def test_a_first_policy_with_guardrails_is_judged_on_rows_that_match(services: Services, clock: FakeClock) -> None:
    """Harms and likelihood are of the same rows."""
    guarded = replace(
        WIDE,
        guardrails={"unsubscribed": Guardrail(max_rate=0.5)},
        attribution_hours={"clicked": 1.0, "unsubscribed": 1.0},
    )
    setup.put_campaign(services, guarded)
    audience(services, clock, 300, seed=1)
    setup.put_campaign(services, replace(guarded, channels=(Channel("email", 0.01),)))
    audience(services, clock, 500, seed=2)
    (told,) = retrain(services, WORKSPACE)
    assert (told["decision"], told["rows"]) == ("publish", 500), told["reason"]
    assert "guardrails.unsubscribed.rate" in {one["name"] for one in told["conditions"]}


def test_a_canary_from_before_is_watched_on(services: Services, clock: FakeClock) -> None:
    setup.put_campaign(services, WIDE)
    audience(services, clock, 700, seed=1)
    assert retrain(services, WORKSPACE)[0]["decision"] == "publish"
    services.policies.refresh_now()
    plant(services, clock, bad=False)
    audience(services, clock, 150, seed=2)
    narrow(services)
    audience(services, clock, 150, seed=3)
    (told,) = watch(services, WORKSPACE)
    assert (told["decision"], told["rows"]) == ("watched", 300), told["reason"]


def test_decisions_from_before_replay_and_are_explained(services: Services, before: list[Decision]) -> None:
    with services.store.read() as reader:
        replayer = Replayer(reader, services.salt)
        assert [replayer.draw(d) for d in before] == [d.action for d in before]
    through_chat = next(d for d in reversed(before) if d.channel == "chat")
    assert explain(services, WORKSPACE, through_chat.decision_id)["chosen"]["channel"] == "chat"


def test_prices_are_of_what_is_still_asked(services: Services, before: list[Decision], clock: FakeClock) -> None:
    setup.put_rule(services, Rule(WORKSPACE, "hourly", "capacity", Capacity(5, 60)))
    audience(services, clock, 40, seed=3)
    assert {told["decision"] for told in reprice(services, WORKSPACE)} <= {"publish"}


READ: dict[str, Callable[[Services, Path], Any]] = {
    "report": lambda services, folder: report_with_trends(services, WORKSPACE, "spring"),  # noqa: ARG005
    "card": lambda services, folder: card(services, WORKSPACE, served(services)),  # noqa: ARG005
    "insights": lambda services, folder: insights(services, WORKSPACE, "spring"),  # noqa: ARG005
    "feedback": lambda services, folder: export(services, WORKSPACE, "feedback", folder / "f.ndjson", Selection()),
    "decisions": lambda services, folder: export(services, WORKSPACE, "decisions", folder / "d.parquet", Selection()),
    "scores": lambda services, folder: list(  # noqa: ARG005
        Scorer.of(services, WORKSPACE, "spring", "clicked").scores([ScoreRequest("p1-1")])
    ),
}


@pytest.mark.parametrize("what", READ)
def test_what_is_read_can_be_read(
    services: Services, before: list[Decision], clock: FakeClock, tmp_path: Path, what: str
) -> None:
    audience(services, clock, 30, seed=3)
    assert READ[what](services, tmp_path)


def test_tuning_compares_on_what_is_still_whole(
    services: Services, before: list[Decision], clock: FakeClock, tmp_path: Path
) -> None:
    audience(services, clock, 50, seed=3)
    found = tuning.tune(services, WORKSPACE, tmp_path / "j", tuning.Budget(minutes=60.0, trials=1))
    assert found["value"] is None
    with pytest.raises(Invalid, match="50 closed rows"):
        evaluate(services, WORKSPACE, served(services))
