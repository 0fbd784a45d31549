"""Absurd data is refused with a reason; a suspicious feature is named in the verdict and stays out of the model."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from optimizer.bandit.rewards import CLOCK_SKEW, Outcome
from optimizer.model.features import kind_of
from optimizer.model.inference import RewardModel
from optimizer.service import setup
from optimizer.service.feedback import Logged
from optimizer.service.ingest import ingest
from optimizer.service.refreshing import refresh
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.retrain import retrain
from optimizer.service.soundness import soundness
from optimizer.service.training import carry_out
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.policies import TrainingRun
from storage.records import Attribute, Channel, JsonObject, OutcomeWeight, Recipient
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign

SHOP = campaign(channels=(Channel("email"),))


@pytest.fixture
def shop(services: Services) -> Services:
    setup.put_campaign(services, SHOP)
    return services


def audience(services: Services, clock: FakeClock, people: int, clicks: Any, **more: Any) -> list[Decision]:
    """One decision each; ``clicks(i)`` says whether the i-th clicks; ``more`` adds to the context, by name and i."""
    rng = np.random.default_rng(3)
    plans = rng.choice(["pro", "free"], people)
    clicked = [bool(clicks(rng)) for _ in range(people)]
    rows = [
        DecisionRequest(
            "spring",
            f"p{i}",
            context={"plan": str(plans[i])}
            | {name: v for name, of in more.items() if (v := of(i, clicked[i])) is not None},
            immediate=True,
        )
        for i in range(people)
    ]
    decided = [d for d in services.decider.decide_batch(WORKSPACE, rows, "run") if isinstance(d, Decision)]
    at = clock.now + timedelta(minutes=1)
    events = [
        EventInput(type="clicked", occurred_at=at, decision_id=d.decision_id)
        for d, hit in zip(decided, clicked, strict=True)
        if hit and d.variant_id is not None
    ]
    clock.forward(hours=2)
    if events:
        ingest(services, WORKSPACE, events)
    return decided


class TestSuspiciousFeatures:
    def test_they_are_named_in_the_verdict_and_not_in_the_model(self, shop: Services, clock: FakeClock) -> None:
        audience(
            shop,
            clock,
            1500,
            lambda rng: rng.random() < 0.2,
            clicked_at=lambda i, hit: f"2026-03-02T09:{i % 60:02d}:00Z" if hit else None,
            token=lambda i, _: f"t{i}",
            region=lambda _, __: "eu",
        )
        shop = replace(shop, settings=replace(shop.settings, gate=False))
        verdict = retrain(shop, WORKSPACE)[0]
        assert verdict["decision"] == "publish"
        told = {finding["feature"]: finding["problem"] for finding in verdict["data"]["findings"]}
        assert told == {"clicked_at": "leaking", "region": "constant", "token": "identity"}
        with shop.store.read() as reader:
            policy = reader.policy(WORKSPACE, verdict["policy_id"])
            assert policy is not None
            assert policy.verdict["data"]["left_out"] == ["clicked_at", "region", "token"]
            artifact = reader.artifact(WORKSPACE, policy.mixture[0].artifact_id or "")
        assert artifact is not None
        model = RewardModel.load(artifact.blob)
        assert {column.name for column in model.spec.columns} == {"plan"}

    def test_a_first_test_call_types_no_attribute_for_good(self, shop: Services, clock: FakeClock) -> None:
        """Later decisions are learned from by what they say, and the registry lists it; what was declared stays."""
        setup.put_attribute(shop, Attribute(WORKSPACE, "opt", "boolean"))
        shop.decider.decide(WORKSPACE, DecisionRequest("spring", "dev", context={"age": "33", "tier": 0, "opt": True}))
        audience(
            shop,
            clock,
            900,
            lambda rng: rng.random() < 0.3,
            age=lambda i, _: 20 + i % 50,
            tier=lambda i, _: ("gold", "silver")[i % 2],
            opt=lambda i, _: i % 3 == 0 if i % 2 else "weekly",
        )
        shop = replace(shop, settings=replace(shop.settings, gate=False))
        verdict = retrain(shop, WORKSPACE)[0]
        assert verdict["decision"] == "publish"
        found = {one["feature"]: (one["problem"], one["left_out"]) for one in verdict["data"]["findings"]}
        assert found == {"opt": ("unreadable", False)}
        with shop.store.read() as reader:
            listed = {one.name: one.type for one in reader.attributes(WORKSPACE)}
            policy = reader.policy(WORKSPACE, verdict["policy_id"])
            assert policy is not None
            artifact = reader.artifact(WORKSPACE, policy.mixture[0].artifact_id or "")
        assert listed == {"age": "number", "tier": "category", "opt": "boolean", "plan": "category"}
        assert artifact is not None
        spec = RewardModel.load(artifact.blob).spec
        assert {column.name: kind_of(column) for column in spec.columns} == listed


class TestRefusal:
    @pytest.mark.parametrize("always", [False, True])
    def test_outcomes_that_are_all_alike(self, shop: Services, clock: FakeClock, always: bool) -> None:
        audience(shop, clock, 300, lambda _: always)
        verdict = retrain(shop, WORKSPACE)[0]
        if always:  # nobody clicks without a message, so where some got none the outcomes differ
            assert verdict["decision"] != "refused"
            return
        assert verdict["decision"] == "refused"
        assert "data.outcomes" in verdict["reason"]
        assert "incumbent stays" in verdict["reason"]

    def test_the_run_is_rejected_and_nothing_is_stored(self, shop: Services, clock: FakeClock) -> None:
        audience(shop, clock, 300, lambda _: False)
        ended = carry_out(shop, TrainingRun(WORKSPACE, "run_1", "retrain", "running", clock.now))
        assert ended.status == "rejected"
        (verdict,) = ended.verdict["campaigns"]
        assert [c["name"] for c in verdict["conditions"]] == ["data.outcomes"]
        with shop.store.read() as reader:
            assert reader.policies(WORKSPACE, limit=5).items == ()
            assert reader.pointer(WORKSPACE, "spring") is None

    def test_a_refused_campaign_does_not_hold_up_another(self, shop: Services, clock: FakeClock) -> None:
        setup.put_campaign(
            shop,
            replace(
                SHOP, campaign_id="broken", objective={"bought": OutcomeWeight(1.0)}, attribution_hours={"bought": 1.0}
            ),
        )
        rows = [DecisionRequest("broken", f"b{i}", immediate=True) for i in range(300)]
        shop.decider.decide_batch(WORKSPACE, rows, "other")
        audience(shop, clock, 600, lambda rng: rng.random() < 0.3)
        told = {verdict["campaign_id"]: verdict["decision"] for verdict in retrain(shop, WORKSPACE)}
        assert told["broken"] == "refused"
        assert told["spring"] in ("publish", "reject")

    def test_a_refresh_leaves_out_what_a_retrain_refuses(self, shop: Services, clock: FakeClock) -> None:
        audience(shop, clock, 600, lambda rng: rng.random() < 0.3)
        shop = replace(shop, settings=replace(shop.settings, gate=False))
        assert retrain(shop, WORKSPACE)[0]["decision"] == "publish"
        shop.policies.refresh_now()
        setup.put_campaign(shop, replace(SHOP, campaign_id="broken", objective={"bought": OutcomeWeight(1.0)}))
        for name, people in (("broken", 300), ("spring", 100)):
            rows = [DecisionRequest(name, f"{name}{i}", immediate=True) for i in range(people)]
            shop.decider.decide_batch(WORKSPACE, rows, name)
        clock.forward(hours=100)
        (told,) = refresh(shop, WORKSPACE)
        assert told["decision"] == "publish"
        with shop.store.read() as reader:
            policy = reader.policy(WORKSPACE, told["policy_id"])
            assert policy is not None
            artifact = reader.artifact(WORKSPACE, policy.mixture[0].artifact_id or "")
        assert artifact is not None
        assert RewardModel.load(artifact.blob).artifact_meta["rows"] == 700


def logged(decision: Decision, *, hit: bool) -> Logged:
    return Logged(decision, {"clicked": Outcome(hit, None, None, True)}, float(hit), matured=True)


class TestConditions:
    @pytest.fixture
    def rows(self, shop: Services, clock: FakeClock) -> list[Logged]:
        made = audience(shop, clock, 40, lambda rng: rng.random() < 0.3)
        return [logged(d, hit=i % 3 == 0) for i, d in enumerate(made)]

    def failed(self, rows: list[Logged]) -> list[str]:
        return [c.name for c in soundness(SHOP, rows) if not c.passed]

    def changed(self, rows: list[Logged], place: int, **changes: Any) -> list[Logged]:
        row = rows[place]
        return [*rows[:place], replace(row, decision=replace(row.decision, **changes)), *rows[place + 1 :]]

    def test_a_sound_log_passes(self, rows: list[Logged]) -> None:
        assert self.failed(rows) == []

    @pytest.mark.parametrize("propensity", [1.2, 0.0, -0.5, float("nan"), 1e-15])
    def test_impossible_propensities(self, rows: list[Logged], propensity: float) -> None:
        bad = self.changed(rows, 7, propensity=propensity)
        (found,) = [c for c in soundness(SHOP, bad) if not c.passed]
        assert found.name == "data.propensities"
        assert rows[7].decision.decision_id in found.detail

    def test_a_vanishing_propensity_that_an_import_kept_stops_no_training(self, rows: list[Logged]) -> None:
        kept = self.changed(rows, 7, propensity=1e-15, imported=True)
        assert self.failed(kept) == []
        assert not kept[7].evaluable
        assert self.failed(self.changed(rows, 7, propensity=1.2, imported=True)) == ["data.propensities"]

    def test_a_lone_action_is_certain(self, rows: list[Logged]) -> None:
        assert self.failed(self.changed(rows, 3, eligible_actions=1, propensity=0.5)) == ["data.propensities"]
        assert self.failed(self.changed(rows, 3, eligible_actions=1, propensity=1.0)) == []
        assert self.failed(self.changed(rows, 3, propensity=None)) == []

    def test_times_in_the_wrong_order(self, rows: list[Logged]) -> None:
        bad = self.changed(rows, 3, sent_at=START - timedelta(days=2))
        assert self.failed(bad) == ["data.times"]

    @pytest.mark.parametrize("lag", [0.4, 1.0, CLOCK_SKEW.total_seconds()])
    def test_a_sender_whose_clock_lags_or_tells_whole_seconds_teaches(self, rows: list[Logged], lag: float) -> None:
        told = [r.decision.decided_at - timedelta(seconds=lag) for r in rows]
        late = [
            replace(r, decision=replace(r.decision, sent_at=at)) if r.decision.send_at is not None else r
            for r, at in zip(rows, told, strict=True)
        ]
        assert self.failed(late) == []

    def test_rewards_that_are_not_finite(self, rows: list[Logged]) -> None:
        assert self.failed([*rows[:-1], replace(rows[-1], reward=float("inf"))]) == ["data.rewards"]

    @pytest.mark.parametrize(
        ("context", "failed"),
        [
            ({"a": None, "b": None, "c": None, "d": "known"}, []),
            ({"a": None}, []),
            ({"a": float("inf"), "b": 1.0}, []),
            ({"a": float("inf"), "b": float("nan"), "c": 1.0, "d": None}, ["data.values"]),
        ],
    )
    def test_values_that_are_there_must_be_finite_mostly(
        self, rows: list[Logged], context: JsonObject, failed: list[str]
    ) -> None:
        told = [
            replace(r, decision=replace(r.decision, snapshot=replace(r.decision.snapshot, context=context)))
            for r in rows
        ]
        assert self.failed(told) == failed


class TestSparseRecords:
    def test_columns_that_are_sent_as_null_are_learned_from_like_columns_left_out(
        self, shop: Services, clock: FakeClock
    ) -> None:
        sparse: JsonObject = {"country": "DE", "crm_1": None, "crm_2": None, "crm_3": None, "crm_4": None}
        for i in range(400):
            setup.put_recipient(shop, Recipient(WORKSPACE, f"p{i}", attributes=sparse))
        made = audience(shop, clock, 400, lambda rng: rng.random() < 0.3)
        assert {frozenset(d.snapshot.context) for d in made} == {frozenset({"country", "plan"})}
        assert retrain(shop, WORKSPACE)[0]["decision"] != "refused"
