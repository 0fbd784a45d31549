"""The loop on a made-up audience: train, judge, publish, serve, refresh, replay — and refuse what proves nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from optimizer.bandit.evidence import GateLimits
from optimizer.errors import Conflict, Invalid
from optimizer.model.inference import RewardModel
from optimizer.model.training.options import learned_from
from optimizer.service import heldout, learning, replay, settle, setup, upkeep
from optimizer.service import retrain as retraining
from optimizer.service.annealing import exploration_numbers
from optimizer.service.evaluate import evaluate
from optimizer.service.evidence import Paired, pair
from optimizer.service.feedback import Logged, load
from optimizer.service.heldout import comparable
from optimizer.service.ids import COLD_POLICY
from optimizer.service.ingest import ingest
from optimizer.service.judging import too_few
from optimizer.service.pricing import publish_prices
from optimizer.service.publish import publish
from optimizer.service.refreshing import refresh
from optimizer.service.replay import Replayer
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.retrain import retrain
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.policies import Component
from storage.records import Baseline, Campaign, Channel, GroupShares, Guardrail, JsonObject, OutcomeWeight
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.trained import publish_model


def try_out(services: Services, clock: FakeClock, rows: int, of: int, *, seed: int) -> None:
    """Decisions of the campaign ``staff`` for a handful of people, a third of whose messages are clicked."""
    rng = np.random.default_rng(seed)
    asked = [
        DecisionRequest("staff", f"me{i % of}", context={"n": i}, immediate=True, request_id=f"q{seed}-{i}")
        for i in range(rows)
    ]
    decided = [d for d in services.decider.decide_batch(WORKSPACE, asked, f"staff{seed}") if isinstance(d, Decision)]
    at = clock.now + timedelta(minutes=1)
    clock.forward(hours=2)
    clicks = [d.decision_id for d in decided if d.variant_id is not None and rng.random() < 0.3]
    ingest(services, WORKSPACE, [EventInput(type="clicked", occurred_at=at, decision_id=name) for name in clicks])


def audience(
    services: Services,
    clock: FakeClock,
    people: int,
    *,
    seed: int,
    effect: float = 0.5,
    context: dict[str, str] | None = None,
) -> list[Decision]:
    """One decision each for ``people``; "pro" people click on mens, the others on womens, with .2 + ``effect``."""
    rng = np.random.default_rng(seed)
    plans = rng.choice(["pro", "free"], people)
    rows = [
        DecisionRequest("spring", f"p{seed}-{i}", context={"plan": str(plan), **(context or {})}, immediate=True)
        for i, plan in enumerate(plans)
    ]
    decided = [d for d in services.decider.decide_batch(WORKSPACE, rows, f"run{seed}") if isinstance(d, Decision)]
    events = []
    for decision, plan in zip(decided, plans, strict=True):
        liked = "mens" if plan == "pro" else "womens"
        if decision.variant_id is not None and rng.random() < 0.2 + effect * (decision.variant_id == liked):
            at = clock.now + timedelta(minutes=1)
            events.append(EventInput(type="clicked", occurred_at=at, decision_id=decision.decision_id))
    clock.forward(hours=2)
    ingest(services, WORKSPACE, events)
    return decided


@pytest.fixture
def shop(services: Services) -> Services:
    setup.put_campaign(services, campaign(channels=(Channel("email"),), objective={"clicked": OutcomeWeight(1.0)}))
    return services


def share_of_liked(services: Services, clock: FakeClock, seed: int) -> float:
    decided = audience(services, clock, 300, seed=seed)
    liked = [d.variant_id == ("mens" if d.snapshot.context["plan"] == "pro" else "womens") for d in decided]
    return float(np.mean(liked))


def test_a_first_policy_that_predicts_goes_live_and_serves(shop: Services, clock: FakeClock) -> None:
    audience(shop, clock, 800, seed=1)
    verdict = retrain(shop, WORKSPACE)[0]
    assert verdict["decision"] == "publish", verdict["reason"]
    assert verdict["alpha"] == 1.0
    shop.policies.refresh_now()
    assert shop.policies.current(WORKSPACE, "spring").policy_id == verdict["policy_id"]
    assert share_of_liked(shop, clock, seed=2) > 0.8


@pytest.mark.parametrize(("opens", "decision"), [(True, "publish"), (False, "reject")])
def test_a_first_policy_for_clicks_comes_sooner_where_opens_are_told(
    shop: Services, clock: FakeClock, opens: bool, decision: str
) -> None:
    rng = np.random.default_rng(7)
    plans = rng.choice(["pro", "free"], 500)
    rows = [DecisionRequest("spring", f"p{i}", context={"plan": str(p)}, immediate=True) for i, p in enumerate(plans)]
    events = []
    for decided, plan in zip(shop.decider.decide_batch(WORKSPACE, rows, "run"), plans, strict=True):
        assert isinstance(decided, Decision)
        liked = decided.variant_id == ("mens" if plan == "pro" else "womens")
        if decided.variant_id is not None and rng.random() < 0.2 + 0.4 * liked:
            kinds = ["opened"] * opens + ["clicked"] * bool(rng.random() < 0.2)
            at = clock.now + timedelta(minutes=1)
            events += [EventInput(type=kind, occurred_at=at, decision_id=decided.decision_id) for kind in kinds]
    clock.forward(hours=2)
    ingest(shop, WORKSPACE, events)
    verdict = retrain(shop, WORKSPACE)[0]
    assert verdict["decision"] == decision, verdict["reason"]
    (gain,) = (c for c in verdict["conditions"] if c["name"] == "calibration.gain")
    assert ("opened or clicked" in gain["detail"]) == opens


@pytest.mark.parametrize("guardrails", [{}, {"unsubscribed": Guardrail(max_rate=0.5)}])
def test_a_campaign_of_a_few_testers_waits_and_keeps_no_other_from_learning(
    shop: Services, clock: FakeClock, guardrails: dict[str, Guardrail]
) -> None:
    tried = campaign(
        campaign_id="staff",
        channels=(Channel("email"),),
        guardrails=guardrails,
        attribution_hours={"clicked": 1.0, "unsubscribed": 1.0},
    )
    setup.put_campaign(shop, tried)
    audience(shop, clock, 800, seed=1)
    try_out(shop, clock, 240, 4, seed=2)
    told = {one["campaign_id"]: one for one in retrain(shop, WORKSPACE)}
    assert told["spring"]["decision"] == "publish", told["spring"]["reason"]
    staff = told["staff"]
    assert (staff["decision"], staff["policy_id"], staff["rows"]) == ("skipped", None, 240)
    assert staff["reason"].startswith("the 240 rows to judge by are of too few recipients: 4, and 5 are needed")
    with shop.store.read() as reader:
        assert reader.policies(WORKSPACE, limit=9, campaign_id="staff").items == (), "no error is spent"


def test_a_first_verdict_looks_at_all_rows_a_few_times_and_not_once_for_each(
    shop: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = {"clicked": 1.0, "unsubscribed": 1.0}
    guarded = campaign(
        channels=(Channel("email"),), guardrails={"unsubscribed": Guardrail(0.5)}, attribution_hours=hours
    )
    setup.put_campaign(shop, guarded)
    audience(shop, clock, 800, seed=1)
    looks: list[int] = []

    def counted(rows: Sequence[Logged], *more: Any) -> Any:
        looks.append(len(rows))
        return exploration_numbers(rows, *more)

    monkeypatch.setattr(retraining, "exploration_numbers", counted)
    verdict = retrain(shop, WORKSPACE)[0]
    assert "guardrails.unsubscribed.rate" in {one["name"] for one in verdict["conditions"]}
    assert len(looks) < 5


def test_a_policy_is_not_judged_by_one_person(services: Services, clock: FakeClock) -> None:
    made, _ = setup.put_campaign(services, campaign(campaign_id="staff", channels=(Channel("email"),)))
    policy = publish_model(services, made)
    try_out(services, clock, 3_400, 1, seed=3)
    (told,) = retrain(services, WORKSPACE)
    assert told["decision"] == "skipped"
    assert "too few recipients: 1, and 5 are needed" in told["reason"]
    with pytest.raises(Invalid, match="too few recipients: 1"):
        evaluate(services, WORKSPACE, policy.policy_id)


def test_outcomes_without_a_pattern_publish_nothing(shop: Services, clock: FakeClock) -> None:
    audience(shop, clock, 800, seed=3, effect=0.0)
    verdict = retrain(shop, WORKSPACE)[0]
    assert verdict["decision"] == "reject"
    assert any(not c["passed"] for c in verdict["conditions"])
    with shop.store.read() as reader:
        assert reader.pointer(WORKSPACE, "spring") is None
        assert [p.status for p in reader.policies(WORKSPACE, limit=5).items] == ["rejected"]


def test_too_few_rows_are_not_judged(shop: Services, clock: FakeClock) -> None:
    audience(shop, clock, 50, seed=4)
    assert retrain(shop, WORKSPACE)[0]["decision"] == "skipped"


def test_learned_decisions_replay_exactly(shop: Services, clock: FakeClock) -> None:
    audience(shop, clock, 600, seed=5)
    retrain(shop, WORKSPACE)
    shop.policies.refresh_now()
    decided = audience(shop, clock, 60, seed=6)
    assert {d.policy_id for d in decided} != {COLD_POLICY}
    with shop.store.read() as reader:
        replayer = Replayer(reader, shop.salt)
        for decision in decided:
            assert replayer.draw(decision) == decision.action
            assert decision.action is not None
            assert replayer.vector(decision)[decision.action] == pytest.approx(decision.propensity, abs=1e-6)


def test_few_of_many_policies_are_held_while_a_log_is_replayed(
    shop: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line of refreshes is hundreds of models."""
    monkeypatch.setattr(replay, "MOST_HELD", 2)
    audience(shop, clock, 800, seed=7)
    retrain(shop, WORKSPACE)
    decided = []
    for step in range(3):
        shop.policies.refresh_now()
        decided += audience(shop, clock, 100, seed=70 + step)
        refresh(shop, WORKSPACE)
    with shop.store.read() as reader:
        replayer = Replayer(reader, shop.salt)
        for decision in [*decided, *decided]:
            assert replayer.vector(decision)[decision.action or 0] == pytest.approx(decision.propensity, abs=1e-9)
            assert len(replayer._policies) <= 2
            assert len(replayer._models) <= 2
    assert len({decision.policy_id for decision in decided}) == 3


def test_a_refresh_publishes_a_revision_of_the_gated_policy(shop: Services, clock: FakeClock) -> None:
    audience(shop, clock, 800, seed=7)
    gated = retrain(shop, WORKSPACE)[0]["policy_id"]
    shop.policies.refresh_now()
    assert refresh(shop, WORKSPACE)[0]["decision"] == "unchanged"
    audience(shop, clock, 200, seed=8)
    refreshed = refresh(shop, WORKSPACE)[0]
    assert refreshed["decision"] == "publish", refreshed
    with shop.store.read() as reader:
        revision = reader.policy(WORKSPACE, refreshed["policy_id"])
    assert revision is not None
    assert (revision.revision, revision.parent_id) == (True, gated)


def test_a_refresh_learns_all_anew_once_outcomes_have_outgrown_what_serves(shop: Services, clock: FakeClock) -> None:
    """Moods are told from the first policy on: no refit of its last layer could know of them."""

    def serving() -> tuple[RewardModel, JsonObject]:
        shop.policies.refresh_now()
        model = shop.policies.current(WORKSPACE, "spring").models[-1]
        assert model is not None
        return model, model.artifact_meta

    audience(shop, clock, 400, seed=1)
    assert retrain(shop, WORKSPACE)[0]["decision"] == "publish"
    _, first = serving()
    learned = learned_from(first)
    for seed, people in ((2, learned // 2 - 10), (3, 40)):
        before = serving()[1]
        assert learned_from(before) == learned
        assert before["seed"] == first["seed"], "a refit draws as before"
        assert "mood" not in serving()[0].spec.owners
        audience(shop, clock, people, seed=seed, context={"mood": "up"})
        assert refresh(shop, WORKSPACE)[0]["decision"] == "publish"
    model, meta = serving()
    assert learned_from(meta) == meta["rows"] > 1.5 * learned
    assert "mood" in model.spec.owners
    assert meta["seed"] != first["seed"], "it draws anew"


def test_a_canary_s_model_is_refitted_and_not_learned_anew(shop: Services, clock: FakeClock) -> None:
    """Where it has to wait it would be trained every minute."""
    with shop.store.read() as reader:
        spring = reader.campaign(WORKSPACE, "spring")
    assert spring is not None
    whole = publish_model(shop, spring, n=200)
    with shop.store.read() as reader:
        pointer = reader.pointer(WORKSPACE, "spring")
    mixture = (Component(0.9, None), Component(0.1, whole.mixture[0].artifact_id))
    publish(shop, [], replace(whole, policy_id="canary", mixture=mixture), pointer, clock.now)
    shop.policies.refresh_now()
    audience(shop, clock, 400, seed=1)
    assert refresh(shop, WORKSPACE)[0]["decision"] == "publish"
    shop.policies.refresh_now()
    (model,) = (one for one in shop.policies.current(WORKSPACE, "spring").models if one is not None)
    assert model.artifact_meta["rows"] > 300
    assert model.artifact_meta["learned"] == 200


def test_revisions_that_decided_nothing_are_forgotten_and_what_was_decided_replays(
    shop: Services, clock: FakeClock
) -> None:
    audience(shop, clock, 800, seed=1)
    gated = retrain(shop, WORKSPACE)[0]["policy_id"]
    shop.policies.refresh_now()
    revisions = []
    for n in range(4):
        audience(shop, clock, 40, seed=2 + n)
        revisions.append(refresh(shop, WORKSPACE)[0]["policy_id"])
        if n == 1:
            shop.policies.refresh_now()
    decided = audience(shop, clock, 40, seed=9)
    assert len({gated, *revisions}) == 5
    clock.forward(days=2)
    upkeep.retain(shop, WORKSPACE)
    with shop.store.read() as reader:
        kept = reader.policies(WORKSPACE, limit=99).items
        line = [(p.policy_id, p.parent_id) for p in kept if p.mixture]
        assert line == [(revisions[3], revisions[1]), (revisions[1], gated), (gated, COLD_POLICY)]
        assert {d.policy_id for d in decided} == {revisions[1]}
        replayer = Replayer(reader, shop.salt)
        assert [replayer.draw(d) for d in decided] == [d.action for d in decided]
    assert refresh(shop, WORKSPACE)[0]["decision"] == "publish"


def test_a_later_candidate_is_judged_against_the_incumbent(
    shop: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    audience(shop, clock, 600, seed=9)
    first = retrain(shop, WORKSPACE)[0]["policy_id"]
    shop.policies.refresh_now()
    audience(shop, clock, 2_800, seed=10)
    audience(shop, clock, 1_200, seed=12)
    refreshed = refresh(shop, WORKSPACE)[0]["policy_id"]
    compared: dict[str, int] = {}

    def told(replayer: Replayer, held: list[Logged], of: Campaign, *parts: Any) -> Paired:
        for name, live in zip(("incumbent", "candidate"), parts, strict=False):
            compared[name] = live.models[-1].artifact_meta["rows"]
        compared["held"] = len(held)
        return pair(replayer, held, of, *parts)

    monkeypatch.setattr("optimizer.service.retrain.pair", told)
    later = retrain(shop, WORKSPACE)[0]
    # Both know the rows before the held-out ones, though what serves has been refreshed with all: neither is better.
    assert compared == {"incumbent": 3400, "candidate": 3400, "held": 1200}
    assert later["decision"] == "reject", later["reason"]
    assert {c["name"].split(".")[0] for c in later["conditions"]} >= {"integrity", "value", "support", "canary"}
    assert [rung["alpha"] for rung in later["rungs"]] == [1.0, 0.6, 0.3, 0.1]
    assert all(rung["failed"] for rung in later["rungs"])
    # A whole incumbent has no rung to go on from: what replaces it is a canary first.
    assert next(c["limit"] for c in later["conditions"] if c["name"] == "canary") == 0.1
    with shop.store.read() as reader:
        assert {p.policy_id for p in reader.policies(WORKSPACE, limit=9).items} >= {
            first,
            refreshed,
            later["policy_id"],
        }
        pointer = reader.pointer(WORKSPACE, "spring")
    assert pointer is not None
    assert pointer.policy_id == refreshed


def test_a_later_candidate_waits_for_rows_that_could_let_it_through_and_spends_no_try(
    shop: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    audience(shop, clock, 600, seed=9)
    assert retrain(shop, WORKSPACE)[0]["decision"] == "publish"
    shop.policies.refresh_now()
    audience(shop, clock, 3_300, seed=10)
    early = retrain(shop, WORKSPACE)[0]
    assert (early["decision"], early["policy_id"], early["conditions"]) == ("skipped", None, [])
    assert early["reason"].startswith("990 rows to judge a candidate on, of which ")
    assert early["reason"].endswith(" brought something that counts: 1,000 and 100 are needed")
    audience(shop, clock, 100, seed=11)
    limits = GateLimits(min_rewarded_rows=1_000)
    with monkeypatch.context() as patched:
        patched.setattr(retraining, "too_few", partial(too_few, limits=limits))
        poor = retrain(shop, WORKSPACE)[0]
    assert poor["decision"] == "skipped"
    assert poor["reason"].startswith("1,020 rows to judge")
    late = retrain(shop, WORKSPACE)[0]
    assert late["decision"] in ("publish", "reject"), late["reason"]
    with shop.store.read() as reader:
        stored = reader.policy(WORKSPACE, late["policy_id"])
    assert stored is not None
    assert stored.verdict["tries"] == 2, "the first policy's verdict was the only one before"


def test_one_batch_is_enough_to_judge_a_candidate_against_the_baseline(services: Services, clock: FakeClock) -> None:
    """All its decisions have one time: some teach, others judge."""
    baseline = Baseline("mens", "email", "10:00")
    channels = (Channel("email"),)
    setup.put_campaign(services, campaign(channels=channels, cold_start="around_baseline", baseline=baseline))
    audience(services, clock, 3_400, seed=1)
    (told,) = retrain(services, WORKSPACE)
    assert told["decision"] in ("publish", "reject"), told["reason"]
    with services.store.read() as reader:
        stored = reader.policy(WORKSPACE, told["policy_id"])
    assert stored is not None
    assert stored.verdict["tries"] == 1
    assert stored.verdict["period"][0] == stored.verdict["period"][1]


def test_a_campaign_that_is_not_active_is_told_to_be_so(shop: Services, clock: FakeClock) -> None:
    setup.archive_campaign(shop, WORKSPACE, "spring")
    (told,) = retrain(shop, WORKSPACE, "spring")
    assert (told["decision"], told["reason"]) == ("skipped", "the campaign is archived")
    assert retrain(shop, WORKSPACE) == []


def test_rollback_returns_to_what_served_before(shop: Services, clock: FakeClock) -> None:
    audience(shop, clock, 800, seed=11)
    retrain(shop, WORKSPACE)
    assert learning.rollback(shop, WORKSPACE, "spring") is None
    shop.policies.refresh_now()
    assert shop.policies.current(WORKSPACE, "spring").policy_id == COLD_POLICY
    with shop.store.read() as reader:
        first, back = reader.changes(WORKSPACE, after=0, limit=10)
    assert (first.kind, back.kind) == ("promoted", "rolled_back")
    assert (first.replaced_id, back.policy_id, back.replaced_id) == (COLD_POLICY, COLD_POLICY, first.policy_id)


def test_the_change_feed_names_what_it_named_before_as_replaced_whatever_revisions_served(
    shop: Services, clock: FakeClock
) -> None:
    """Put into service are a policy, another one, by a rollback the first one's revision, and the other one again."""
    audience(shop, clock, 800, seed=11)
    first = retrain(shop, WORKSPACE)[0]["policy_id"]
    revision = _revised(shop)
    with shop.store.read() as reader:
        served = reader.policy(WORKSPACE, revision)
    assert served is not None
    other = replace(served, policy_id="pol_other", parent_id=revision, revision=False, gated_id=None)
    with shop.store.read() as reader:
        publish(shop, [], other, reader.pointer(WORKSPACE, "spring"), clock())
    _revised(shop)
    learning.rollback(shop, WORKSPACE, "spring", expected="pol_other")
    _revised(shop)
    learning.promote(shop, WORKSPACE, "pol_other")
    with shop.store.read() as reader:
        feed = reader.changes(WORKSPACE, after=0, limit=10)
        of_revision = reader.policy_changes(WORKSPACE, limit=10, policy_id=revision)
    named = [COLD_POLICY, first, "pol_other", revision, "pol_other"]
    assert [(c.replaced_id, c.policy_id) for c in feed] == list(pairwise(named))
    assert [c.policy_id for c in of_revision] == ["pol_other", revision], "out of service, and before that into it"


def _revised(shop: Services) -> str:
    """Lets new prices make a revision of what serves."""
    with shop.store.read() as reader:
        pointer = reader.pointer(WORKSPACE, "spring")
        policy = None if pointer is None else reader.policy(WORKSPACE, pointer.policy_id)
    assert pointer is not None
    assert policy is not None
    return str(publish_prices(shop, pointer, policy, ())["policy_id"])


def test_a_policy_is_taken_back_by_the_name_of_any_of_its_line(shop: Services, clock: FakeClock) -> None:
    """Prices and refreshes publish revisions while somebody reads which one serves."""
    audience(shop, clock, 800, seed=11)
    shown = retrain(shop, WORKSPACE)[0]["policy_id"]
    revision = _revised(shop)
    assert learning.rollback(shop, WORKSPACE, "spring", expected=shown) is None
    for name in (shown, revision):
        with pytest.raises(Conflict, match="doesn't serve"):
            learning.rollback(shop, WORKSPACE, "spring", expected=name)


def test_a_stored_policy_is_evaluated_by_every_estimator(shop: Services, clock: FakeClock) -> None:
    audience(shop, clock, 800, seed=12)
    policy_id = retrain(shop, WORKSPACE)[0]["policy_id"]
    shop.policies.refresh_now()
    audience(shop, clock, 400, seed=13)
    report = evaluate(shop, WORKSPACE, policy_id)
    assert report["unseen"]
    assert set(report["policy"]) == {"ips", "snips", "dm", "dr", "switch_dr"}
    assert report["policy"]["dr"]["low"] > report["cold_start"]["dr"]["value"]


def test_messages_called_off_do_not_make_an_honest_log_look_crooked(shop: Services, clock: FakeClock) -> None:
    decided = audience(shop, clock, 1500, seed=14)
    for decision in [d for d in decided if d.status == "reserved"][::2]:
        settle.release(shop, WORKSPACE, decision.decision_id, "no address")
    verdict = retrain(shop, WORKSPACE)[0]
    balance = next(c for c in verdict["conditions"] if c["name"] == "integrity.balance")
    assert balance["passed"], balance
    assert verdict["decision"] == "publish", verdict["reason"]


def test_once_a_policy_serves_it_is_compared_on_what_it_drew_itself(shop: Services, clock: FakeClock) -> None:
    shares = GroupShares(random=0.3)
    setup.put_campaign(shop, campaign(channels=(Channel("email"),), groups=shares))
    before = audience(shop, clock, 800, seed=15)
    retrain(shop, WORKSPACE)
    shop.policies.refresh_now()
    drawn = audience(shop, clock, 300, seed=16)
    with shop.store.read() as reader:
        rows = load(reader, WORKSPACE, clock.now).of("spring")
    own = {d.decision_id for d in drawn if d.group == "treated"}
    assert {r.decision.decision_id for r in comparable(rows, cold=False)} == own
    colds = {d.decision_id for d in before if d.group == "treated"}
    assert {r.decision.decision_id for r in comparable(rows, cold=True)} == colds


AROUND = campaign(
    channels=(Channel("email"),), cold_start="around_baseline", baseline=Baseline("mens", "email", "10:00")
)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (None, replace(AROUND, groups=GroupShares(random=0.5))),
        (replace(AROUND, cold_start="uniform"), AROUND),
        (replace(AROUND, baseline=Baseline("womens", "email", "10:00")), AROUND),
    ],
    ids=["a random group", "begun by chance", "another baseline"],
)
def test_what_others_drew_keeps_no_candidate_from_a_campaign_around_a_baseline(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, before: Campaign | None, now: Campaign
) -> None:
    """Of 49 actions the baseline has nearly all of the mass: where chance drew it, it weighs nearly 49."""
    decided: list[Decision] = []
    for made, people in ((before, 2_500), (now, 2_000)):
        if made is not None:
            setup.put_campaign(services, made)
            rows = [DecisionRequest("spring", f"{people}-{i}") for i in range(people)]
            told = services.decider.decide_batch(WORKSPACE, rows, f"of {people}")
            decided += [d for d in told if isinstance(d, Decision)]
    mine = [d for d in decided if d.variant_id == "mens" and d.send_at is not None and d.send_at.hour == 10]
    assert any(d.propensity is not None and d.propensity < 0.03 for d in mine), "others drew the baseline, too"
    clock.forward(hours=200)
    sent = [(d.decision_id, d.send_at) for d in decided if d.send_at is not None]
    clicked = [EventInput("clicked", at + timedelta(minutes=1), decision_id=name) for name, at in sent[::2]]
    ingest(services, WORKSPACE, clicked)
    few = GateLimits(min_effective_rows=0, min_rewarded_rows=0)
    monkeypatch.setattr(retraining, "too_few", partial(too_few, limits=few))
    (verdict,) = retrain(services, WORKSPACE)
    weight = next(c for c in verdict["conditions"] if c["name"] == "support.weight")
    # A candidate's own weight, where it would do what is hardly ever done, is another matter.
    assert weight["passed"] or weight["detail"].endswith("itself 1.0 at most"), weight


def test_where_little_is_earned_more_rows_are_judged(
    shop: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    audience(shop, clock, 1_000, seed=18)
    clock.forward(hours=200)
    with shop.store.read() as reader:
        log = load(reader, WORKSPACE, clock.now)
    newest = log.of("spring")[700:]
    clicked = sum(row.outcomes["clicked"].happened for row in newest)

    def judged(most: int, rewarded: float, longest: int) -> int:
        for name, value in (("MOST_JUDGED", most), ("_REWARDED", rewarded), ("LONGEST_JUDGED", longest)):
            monkeypatch.setattr(heldout, name, value)
        now = log.campaigns["spring"]
        held = heldout.held_out(log.of("spring"), now, cold=True, changed=None, made_under=lambda _: now)
        assert held == newest[-len(held) :]
        return len(held)

    assert judged(50, 10.0, 250) == 50, "enough bring something"
    assert judged(50, 60.0, 250) == math.ceil(60 * 300 / clicked)
    assert judged(50, 60.0, 80) == 80
    assert judged(50, 1e6, 10_000) == 300, "never what it was trained on"


def test_who_leaves_before_the_confirm_stays_in_the_log_of_harms(shop: Services, clock: FakeClock) -> None:
    """An unsubscribe calls off what is reserved, but not the message that it answers: that one has gone out."""
    decided = audience(shop, clock, 40, seed=17)
    message = next(d for d in decided if d.variant_id is not None)
    other = next(d for d in decided if d.variant_id is not None and d is not message)
    settle.release(shop, WORKSPACE, other.decision_id, "no address")
    left = EventInput(type="unsubscribed", occurred_at=clock.now, decision_id=message.decision_id)
    ingest(shop, WORKSPACE, [left])
    with shop.store.read() as reader:
        rows = {r.decision.decision_id: r for r in load(reader, WORKSPACE, clock.now).of("spring")}
    assert rows[message.decision_id].decision.status == "reserved"
    assert rows[message.decision_id].trainable
    assert not rows[other.decision_id].trainable


def test_rows_are_evaluated_once_no_action_could_still_earn(services: Services, clock: FakeClock) -> None:
    """Early sends mature first: taking what has matured would choose rows by the action drawn."""
    setup.put_campaign(services, campaign(channels=(Channel("email"),), allow_no_send=False))
    rows = [DecisionRequest("spring", f"w{i}") for i in range(60)]
    services.decider.decide_batch(WORKSPACE, rows, "windowed")
    clock.forward(hours=12)
    with services.store.read() as reader:
        half = load(reader, WORKSPACE, clock.now).of("spring")
    assert 0 < sum(r.matured for r in half) < 60
    assert not any(r.evaluable for r in half)
    clock.forward(hours=13.5)
    with services.store.read() as reader:
        assert all(r.evaluable for r in load(reader, WORKSPACE, clock.now).of("spring"))


def test_who_was_asked_in_a_zone_that_this_host_lacks_keeps_no_campaign_from_learning(
    shop: Services, clock: FakeClock
) -> None:
    """Of them nothing is learned: on another clock the log would look crooked."""

    def moved(decided: list[Decision], count: int) -> None:
        afar = [
            replace(d, decision_id=f"{i} of {d.decision_id}", request_id=f"{i} of {d.request_id}", snapshot=snapshot)
            for i, d in enumerate(decided[:count])
            for snapshot in [replace(d.snapshot, timezone="America/Nowhere")]
        ]
        shop.store.write(lambda writer: writer.add_decisions([(one, None) for one in afar]))

    moved(audience(shop, clock, 800, seed=7), 20)
    gated = retrain(shop, WORKSPACE)[0]
    assert gated["decision"] == "publish", gated["reason"]
    shop.policies.refresh_now()
    moved(audience(shop, clock, 200, seed=8), 20)
    refreshed = refresh(shop, WORKSPACE)[0]
    assert refreshed["decision"] == "publish", refreshed
    assert evaluate(shop, WORKSPACE, gated["policy_id"])["policy_id"] == gated["policy_id"]
    with shop.store.read() as reader:
        assert len(load(reader, WORKSPACE, clock()).rows) == 1_000
