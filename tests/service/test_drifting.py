"""The drift alarm on the real path: quiet while nothing changes, loud soon after a swap, and what it sets in motion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import orjson
import pytest

from optimizer.bandit.drift import Crossing
from optimizer.bandit.evidence import GateLimits, Verdict
from optimizer.model.artifact import unpack
from optimizer.service import learning, refreshing, setup
from optimizer.service.annealing import exploration_numbers
from optimizer.service.departure import LEAST_ALLOWED, allowed
from optimizer.service.drifting import _alarmed, look
from optimizer.service.driftratios import detector_names
from optimizer.service.driftstate import QUIET_ROWS, Alarm, Drift
from optimizer.service.evidence import Paired, pair
from optimizer.service.featureblocks import BLOCK_ROWS
from optimizer.service.feedback import Logged, load
from optimizer.service.fitting import Job, settled
from optimizer.service.heldout import since_change
from optimizer.service.ingest import ingest
from optimizer.service.judging import first_rows, first_verdict, too_few
from optimizer.service.publish import mixture, new_policy, publish
from optimizer.service.refreshing import refresh
from optimizer.service.replay import Replayer
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.retrain import retrain
from optimizer.service.runs import Ended
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.policies import Policy, TrainingRun
from storage.port import Writer
from storage.records import Campaign, Channel
from tests.service.conftest import WORKSPACE, FakeClock, campaign

SHOP = campaign(channels=(Channel("email"),), allow_no_send=False)


def audience(
    services: Services,
    clock: FakeClock,
    people: int,
    *,
    seed: int,
    swapped: bool = False,
    pro: float = 0.5,
    campaign_id: str = "spring",
    cart: float | None = None,
    heard: float = 0.5,
    before: Callable[[], None] = lambda: None,
) -> list[Decision]:
    """One decision each; "pro" people click on mens, the others on womens, with .7 against .2; swapped: the reverse.
    ``cart``: what carts are worth on average that the requests tell of; ``heard``: hours until clicks are reported;
    ``before``: what is done just before."""
    rng = np.random.default_rng(seed)
    plans = rng.choice(["pro", "free"], people, p=[pro, 1 - pro])
    contexts: list[dict[str, Any]] = [{"plan": str(plan)} for plan in plans]
    if cart is not None:
        contexts = [{**one, "cart": cart + i % 10} for i, one in enumerate(contexts)]
    rows = [
        DecisionRequest(campaign_id, f"p{seed}-{i}", context=context, immediate=True)
        for i, context in enumerate(contexts)
    ]
    decided = [d for d in services.decider.decide_batch(WORKSPACE, rows, f"run{seed}") if isinstance(d, Decision)]
    at = clock.now + timedelta(minutes=1)
    events = []
    for decision, plan in zip(decided, plans, strict=True):
        liked = ((decision.variant_id == "mens") == (plan == "pro")) != swapped
        if rng.random() < 0.2 + 0.5 * liked:
            events.append(EventInput(type="clicked", occurred_at=at, decision_id=decision.decision_id))
    clock.forward(hours=heard)
    before()
    ingest(services, WORKSPACE, events)
    clock.forward(days=7, hours=-heard)  # the same hour of the week: nothing has to be extrapolated to hours never seen
    return decided


def keep(writer: Writer, run: TrainingRun) -> None:
    writer.put_training_run(run)


def looked(services: Services, name: str, *alarms: Alarm) -> Drift:
    """A look whose state is kept with a training run, as the scheduler does; ``alarms``: that it raises, too."""
    with services.store.read() as reader:
        found = look(services, reader, WORKSPACE, None, load(reader, WORKSPACE, services.clock()))["spring"]
    found = replace(found, alarms=(*found.alarms, *alarms))
    told = [{"campaign_id": "spring", "drift": orjson.loads(orjson.dumps(found.to_json()))}]
    run = TrainingRun(WORKSPACE, name, "refresh", "rejected", services.clock(), verdict=Ended("rejected", told).verdict)
    services.store.write(partial(keep, run=run))
    return found


def two_of_which_one_changed(services: Services, clock: FakeClock) -> Services:
    """A second campaign, served by a model of one retrain, without a gate; then the first one's tastes are swapped."""
    free = replace(services, settings=replace(services.settings, gate=False))
    setup.put_campaign(free, replace(SHOP, campaign_id="autumn"))
    audience(free, clock, 1200, seed=73)
    audience(free, clock, 1200, seed=74, campaign_id="autumn")
    retrain(free, WORKSPACE)
    free.policies.refresh_now()
    audience(free, clock, 600, seed=75, swapped=True)
    return free


def look_early(services: Services, found: list[Drift]) -> None:
    found.append(looked(services, f"early_{len(found)}"))


def meta_of(services: Services, artifact_id: str | None) -> dict[str, Any]:
    """What a stored model says of itself."""
    assert artifact_id is not None
    with services.store.read() as reader:
        artifact = reader.artifact(WORKSPACE, artifact_id)
    assert artifact is not None
    return dict(unpack(artifact.blob)[2])


@pytest.fixture
def learned(services: Services, clock: FakeClock) -> Services:
    """A shop whose first policy serves."""
    setup.put_campaign(services, SHOP)
    audience(services, clock, 800, seed=1)
    assert retrain(services, WORKSPACE)[0]["decision"] == "publish"
    services.policies.refresh_now()
    return services


def little_allowed(judged: int | None, rows: int, *, free: bool) -> float:
    """As if what was judged were nearly all that is known, and refreshes had brought nothing."""
    del judged, rows, free
    return LEAST_ALLOWED


@pytest.mark.parametrize(
    ("judged", "rows", "most"),
    [(None, 900, 0.25), (900, 1_000, 0.25), (900, 1_800, 0.5), (450, 4_500, 0.9), (5, 0, 0.25)],
)
def test_a_revision_may_go_as_far_as_the_log_has_grown(judged: int | None, rows: int, most: float) -> None:
    assert allowed(judged, rows, free=False) == pytest.approx(most)
    assert allowed(judged, rows, free=True) == 1.0


def served(services: Services, campaign_id: str = "spring") -> Policy:
    """The policy that the pointer names."""
    with services.store.read() as reader:
        pointer = reader.pointer(WORKSPACE, campaign_id)
        policy = None if pointer is None else reader.policy(WORKSPACE, pointer.policy_id)
    assert policy is not None
    return policy


class TestCalibration:
    def test_nothing_is_said_while_nothing_changes(self, learned: Services, clock: FakeClock) -> None:
        for step in range(3):
            audience(learned, clock, 600, seed=10 + step)
            state = looked(learned, f"run_{step}")
        assert state.rows == 1800
        assert state.alarms == ()
        assert state.changed is None
        assert not state.raised

    def test_what_is_reported_after_its_window_is_awaited(self, services: Services, clock: FakeClock) -> None:
        """Clicks of an hour's window come from a file five hours later, as they always did; looks come before, too."""
        setup.put_campaign(services, SHOP)
        audience(services, clock, 800, seed=1, heard=5.0)
        told = retrain(services, WORKSPACE)[0]
        assert told["decision"] == "publish"
        (finding,) = [f for f in told["data"]["findings"] if f["problem"] == "late"]
        assert finding["feature"] == "clicked"
        assert finding["figure"] < finding["limit"] == 0.9
        assert not finding["left_out"]
        assert "spring" in finding["detail"]
        services.policies.refresh_now()
        early: list[Drift] = []
        for step in range(3):
            audience(services, clock, 400, seed=10 + step, heard=5.0, before=partial(look_early, services, early))
            assert (early[-1].rows, early[-1].alarms) == (400 * step, ())
            state = looked(services, f"late_{step}")
            assert (state.rows, state.alarms) == (400 * (step + 1), ())

    def test_looks_go_on_after_the_clock_was_ahead(self, learned: Services, clock: FakeClock) -> None:
        audience(learned, clock, 400, seed=10)
        now = clock.now
        clock.forward(days=1200)
        audience(learned, clock, 100, seed=11)
        assert looked(learned, "run_0").rows == 500
        clock.now = now
        for step in (1, 2):
            audience(learned, clock, 300, seed=11 + step)
            assert looked(learned, f"run_{step}").rows == 400 + 300 * step, "those dated ahead wait for their time"

    def test_swapped_tastes_are_noticed_soon_and_dated_well(self, learned: Services, clock: FakeClock) -> None:
        audience(learned, clock, 400, seed=20)
        looked(learned, "run_0")
        swap = clock.now.timestamp()
        audience(learned, clock, 300, seed=21, swapped=True)
        state = looked(learned, "run_1")
        (alarm,) = [a for a in state.alarms if a.what == "calibration.clicked.lower"]
        assert alarm.row <= 400 + 200
        assert alarm.row <= alarm.latest <= 700
        assert state.raised
        assert state.changed is not None
        # It had risen by chance for a few rows before, at most those of the batch before it.
        assert abs(state.changed - swap) <= 7 * 86_400

    def test_an_alarm_ends_when_it_stays_quiet(self, learned: Services, clock: FakeClock) -> None:
        audience(learned, clock, 300, seed=30, swapped=True)
        assert looked(learned, "run_0").raised
        audience(learned, clock, QUIET_ROWS - 200, seed=31)
        assert looked(learned, "run_1").raised
        audience(learned, clock, 500, seed=32)
        state = looked(learned, "run_2")
        assert state.alarms == ()
        assert state.changed is not None  # what came before stays suspicious until a retrain has looked

    def test_looks_read_each_row_once(self, learned: Services, clock: FakeClock) -> None:
        audience(learned, clock, 300, seed=40, swapped=True)
        first = looked(learned, "run_0")
        assert looked(learned, "run_1").detectors == first.detectors
        audience(learned, clock, 200, seed=41)
        by_parts = looked(learned, "run_2")
        for name in ("run_0", "run_1", "run_2"):
            run = TrainingRun(WORKSPACE, name, "refresh", "rejected", clock.now)
            learned.store.write(partial(keep, run=run))
        at_once = looked(learned, "run_3")
        assert (by_parts.rows, at_once.rows) == (500, 500)
        assert by_parts.detectors.value == pytest.approx(at_once.detectors.value)
        assert by_parts.block == at_once.block

    def test_rows_that_a_log_does_not_hold_are_read(self, learned: Services, clock: FakeClock) -> None:
        audience(learned, clock, 300, seed=45)
        with learned.store.read() as reader:
            whole = load(reader, WORKSPACE, clock.now)
            newest = load(reader, WORKSPACE, clock.now, since=clock.now - timedelta(days=1))
            assert newest.rows == ()
            one, other = (look(learned, reader, WORKSPACE, None, log)["spring"] for log in (whole, newest))
        assert one == other
        assert one.rows == 300


def lie(services: Services, decision_id: str, name: str) -> None:
    """Adds the decision once more under another name, with half its propensity."""
    with services.store.read() as reader:
        stored = reader.decision(WORKSPACE, decision_id)
    assert stored is not None
    assert stored.propensity is not None
    wrong = replace(stored, decision_id=name, request_id=name, propensity=stored.propensity / 2)
    services.store.write(lambda writer: writer.add_decision(wrong, None))


class TestPropensities:
    def test_a_log_that_does_not_replay_is_an_alarm_at_once(self, learned: Services, clock: FakeClock) -> None:
        decided = audience(learned, clock, 50, seed=50)
        lie(learned, decided[0].decision_id, "dec_x")
        assert looked(learned, "run_0").alarms == ()  # one row: another machine may have rounded otherwise
        decided = audience(learned, clock, 50, seed=51)
        lie(learned, decided[0].decision_id, "dec_y")
        lie(learned, decided[1].decision_id, "dec_z")
        state = looked(learned, "run_1")
        assert [a.what for a in state.alarms] == ["propensities.replay"]
        assert not state.raised
        assert state.changed is None

    def test_draws_are_looked_at_at_once_so_sends_over_a_day_are_no_alarm(
        self, learned: Services, clock: FakeClock
    ) -> None:
        """Were rows taken as their outcomes become known, the first look would find early hours drawn too often."""
        day = (clock.now + timedelta(hours=1), clock.now + timedelta(hours=23))
        rows = [DecisionRequest("spring", f"day-{i}", context={"plan": "pro"}, window=day) for i in range(2_400)]
        learned.decider.decide_batch(WORKSPACE, rows, "day")
        for hours in (4, 6, 8):
            clock.forward(hours=hours)
            state = looked(learned, f"run_{hours}")
            assert [a.what for a in state.alarms if a.what.startswith("propensities")] == []
        assert 0 < state.rows < state.drawn == 2_400


class TestFeatures:
    def test_a_changed_audience_is_named_until_it_is_as_before(self, learned: Services, clock: FakeClock) -> None:
        audience(learned, clock, BLOCK_ROWS, seed=60, pro=0.95)
        state = looked(learned, "run_0")
        (alarm,) = state.alarms
        assert alarm.what == "features.plan"
        assert alarm.figure > alarm.limit
        assert state.raised
        assert state.changed is None  # the outcomes are what they were: nothing to forget
        audience(learned, clock, BLOCK_ROWS, seed=61)
        assert looked(learned, "run_1").alarms == ()

    def test_a_block_goes_on_when_a_model_with_other_features_takes_over(
        self, learned: Services, clock: FakeClock
    ) -> None:
        """A model is trained several times a day, and a block covers one at least."""
        learned = replace(learned, settings=replace(learned.settings, gate=False))
        audience(learned, clock, 600, seed=60, pro=0.9)
        before = looked(learned, "run_0").block
        assert retrain(learned, WORKSPACE)[0]["decision"] == "publish"
        learned.policies.refresh_now()
        after = looked(learned, "run_1").block
        assert after.spec != before.spec
        assert (after.rows, after.since, sum(after.counts["plan"])) == (600, before.since, 600)
        audience(learned, clock, 600, seed=61, pro=0.9)
        state = looked(learned, "run_2")
        assert (state.block.rows, set(state.features)) == (0, {"plan"})


class TestConsequences:
    def test_exploration_is_not_annealed_while_an_alarm_stands(self) -> None:
        rows: list[Any] = []
        quiet = exploration_numbers(rows)
        alarm = Alarm("calibration.clicked.lower", 100.0, 50.0, 7, 7, 14.0, 14.0)
        drift = replace(Drift.from_json(state_json()), alarms=(alarm,), changed=50.0)
        raised = exploration_numbers(rows, drift)
        assert "drift" not in quiet
        assert raised["anneal"] == 1.0
        assert raised["drift"]["alarms"][0]["what"] == "calibration.clicked.lower"
        assert raised["drift"]["changed"] == "1970-01-01T00:00:50+00:00"
        assert exploration_numbers(rows, replace(drift, alarms=())) == quiet

    def test_after_a_swap_training_follows_the_new_tastes(self, learned: Services, clock: FakeClock) -> None:
        """3,000 old rows, 600 new ones: with all of them the old tastes would win; forgetting lets the new ones."""
        learned = replace(learned, settings=replace(learned.settings, gate=False))
        audience(learned, clock, 3000, seed=70)
        looked(learned, "run_0")
        audience(learned, clock, 600, seed=71, swapped=True)
        (verdict,) = retrain(learned, WORKSPACE)
        assert verdict["decision"] == "publish"
        state = Drift.from_json(verdict["drift"])
        assert state.raised
        with learned.store.read() as reader:
            policy = reader.policy(WORKSPACE, verdict["policy_id"])
        assert policy is not None
        assert policy.exploration["anneal"] == 1.0
        assert policy.exploration["drift"]["alarms"]
        learned.policies.refresh_now()
        decided = audience(learned, clock, 300, seed=72, swapped=True)
        right = np.mean([(d.variant_id == "mens") != (d.snapshot.context["plan"] == "pro") for d in decided])
        forgetful = float(right)
        assert forgetful > 0.35, forgetful

    def test_a_refresh_is_anchored_at_the_change_and_reads_what_came_after_it(
        self, learned: Services, clock: FakeClock
    ) -> None:
        learned = replace(learned, settings=replace(learned.settings, gate=False))
        audience(learned, clock, 3000, seed=70)
        looked(learned, "run_0")
        refresh(learned, WORKSPACE)
        learned.policies.refresh_now()
        audience(learned, clock, 600, seed=71, swapped=True)
        (answer,) = refresh(learned, WORKSPACE)
        changed = Drift.from_json(answer["drift"]).changed
        (part,) = served(learned).mixture
        meta = meta_of(learned, part.artifact_id)
        assert (meta["anchored"]["since"], meta["changed"]) == (changed, {"spring": changed})
        since = meta["rows"] - meta["anchored"]["rows"]
        assert 550 < since < 700, "what came before the change is in the weights that it is anchored at"
        learned.policies.refresh_now()
        decided = audience(learned, clock, 300, seed=72, swapped=True)
        right = np.mean([(d.variant_id == "mens") != (d.snapshot.context["plan"] == "pro") for d in decided])
        assert right > 0.6, right
        (answer,) = refresh(learned, WORKSPACE)
        assert Drift.from_json(answer["drift"]).changed == changed, "it knows the new tastes: that is no other change"
        meta = meta_of(learned, served(learned).mixture[0].artifact_id)
        assert (meta["anchored"]["since"], meta["changed"]) == (changed, {"spring": changed})
        assert retrain(learned, WORKSPACE)[0]["decision"] == "publish"
        meta = meta_of(learned, served(learned).mixture[0].artifact_id)
        assert meta["anchored"] is None, "a retrain begins anew"
        assert 900 + 200 < meta["rows"] < 900 + 500, (
            "and reads what is remembered: some 360 rows from before the change"
        )
        refresh(learned, WORKSPACE)

    def test_a_change_of_one_campaign_leaves_the_others_models_alone(self, learned: Services, clock: FakeClock) -> None:
        """Two campaigns are served by models of one retrain; only the one whose outcomes changed is anchored."""
        learned = two_of_which_one_changed(learned, clock)
        audience(learned, clock, 200, seed=76, campaign_id="autumn")
        changed = {a["campaign_id"]: Drift.from_json(a["drift"]).changed for a in refresh(learned, WORKSPACE)}
        assert changed["spring"] is not None
        assert changed["autumn"] is None
        spring, autumn = (
            meta_of(learned, served(learned, name).mixture[0].artifact_id) for name in ("spring", "autumn")
        )
        assert spring["anchored"]["since"] == changed["spring"]
        assert autumn["anchored"] is None
        assert autumn["rows"] > 1_400, "its rows from before are read as ever"

    def test_a_refit_that_goes_far_has_a_share_of_the_traffic(
        self, learned: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gated = served(learned)
        monkeypatch.setattr(refreshing, "allowed", little_allowed)
        audience(learned, clock, 400, seed=78)
        setup.put_campaign(learned, replace(SHOP, exploration_method="uniform"))  # so that the log shows both sides
        audience(learned, clock, 800, seed=79, swapped=True)
        setup.put_campaign(learned, SHOP)
        (answer,) = refresh(learned, WORKSPACE)
        assert (answer["decision"], answer["divergence"]) == ("publish", pytest.approx(0.25))
        first = served(learned)
        held, newer = first.mixture
        assert held.artifact_id == gated.mixture[0].artifact_id
        assert newer.weight == pytest.approx(0.25 / first.verdict["refitted"])
        assert held.weight + newer.weight == pytest.approx(1.0)
        learned.policies.refresh_now()
        decided = audience(learned, clock, 500, seed=80, swapped=True)
        right = np.mean([(d.variant_id == "mens") != (d.snapshot.context["plan"] == "pro") for d in decided])
        assert right > 0.5 * newer.weight, "what serves follows the new tastes before any gate"
        with learned.store.read() as reader:
            replayer = Replayer(reader, learned.salt)
            for decision in decided[:50]:
                assert replayer.vector(decision)[decision.action or 0] == pytest.approx(decision.propensity, abs=1e-9)
        refresh(learned, WORKSPACE)
        second = served(learned)
        assert second.mixture[0].artifact_id == gated.mixture[0].artifact_id, "the gated model stays as it was judged"
        assert second.mixture[1].artifact_id not in {newer.artifact_id, held.artifact_id}
        # A share that a refresh gave is no step of the ladder: what the gate lets in is a canary.
        few = GateLimits(min_effective_rows=0, min_rewarded_rows=0)
        monkeypatch.setattr("optimizer.service.retrain.too_few", partial(too_few, limits=few))
        (verdict,) = retrain(learned, WORKSPACE)
        assert next(c["limit"] for c in verdict["conditions"] if c["name"] == "canary") == 0.1

    def test_the_more_of_the_log_is_new_the_farther_a_refit_may_go(self, learned: Services, clock: FakeClock) -> None:
        """800 rows were judged: of 2,000 that are known three fifths are new."""
        audience(learned, clock, 400, seed=78)
        setup.put_campaign(learned, replace(SHOP, exploration_method="uniform"))
        audience(learned, clock, 800, seed=79, swapped=True)
        setup.put_campaign(learned, SHOP)
        refresh(learned, WORKSPACE)
        told = served(learned).verdict
        assert told["limit"] == pytest.approx(0.6)
        assert told["divergence"] == pytest.approx(min(0.6, told["refitted"]))
        assert sum(part.weight for part in served(learned).mixture[1:]) == pytest.approx(
            0.6 / told["refitted"] if told["refitted"] > 0.6 else 0.0
        )

    def test_what_is_put_back_is_what_revisions_stay_near_from_then_on(
        self, learned: Services, clock: FakeClock
    ) -> None:
        old = served(learned)
        audience(learned, clock, 800, seed=78)
        refresh(learned, WORKSPACE)
        assert served(learned).verdict["limit"] == pytest.approx(0.5)
        clock.forward(hours=1)
        learning.promote(learned, WORKSPACE, old.policy_id)
        for seed in (79, 81):
            learned.policies.refresh_now()
            audience(learned, clock, 100, seed=seed)
            refresh(learned, WORKSPACE)
            told = served(learned).verdict
            assert (told["judged"], told["limit"]) == (1_700, 0.25)

    def test_of_a_canary_s_mixture_the_canary_follows(
        self, learned: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(refreshing, "allowed", little_allowed)
        audience(learned, clock, 400, seed=78)
        setup.put_campaign(learned, replace(SHOP, exploration_method="uniform"))
        audience(learned, clock, 800, seed=79, swapped=True)
        setup.put_campaign(learned, SHOP)
        refresh(learned, WORKSPACE)
        before = served(learned)
        with learned.store.read() as reader:
            pointer = reader.pointer(WORKSPACE, "spring")
        assert before.mixture[1].artifact_id is not None
        parts = mixture(before.mixture[:1], before.mixture[1].artifact_id, 0.1)
        gated = new_policy(
            WORKSPACE,
            "spring",
            clock.now,
            parts,
            parent=pointer,
            exploration=before.exploration,
            verdict={},
            run_id=None,
        )
        publish(learned, [], gated, pointer, clock.now)
        learned.policies.refresh_now()
        audience(learned, clock, 1_000, seed=82, swapped=True)
        (answer,) = refresh(learned, WORKSPACE)
        assert answer["decision"] == "publish"
        assert answer["divergence"] <= 0.1, "the canary's share at most"
        revision = served(learned)
        assert revision.verdict["refitted"] > 0.25
        assert revision.mixture[0] == gated.mixture[0]
        assert revision.mixture[1].weight == pytest.approx(0.1)
        assert revision.mixture[1].artifact_id != gated.mixture[1].artifact_id

    def test_a_later_candidate_is_judged_on_rows_from_after_the_change(
        self, learned: Services, clock: FakeClock
    ) -> None:
        audience(learned, clock, 900, seed=80)
        with learned.store.read() as reader:
            rows = load(reader, WORKSPACE, clock.now).of("spring")
        late = rows[-700].decision.decided_at.timestamp()
        assert len(since_change(rows, late)) >= 700
        assert all(r.decision.decided_at.timestamp() >= late for r in since_change(rows, late))
        later = rows[-1].decision.decided_at.timestamp() + 1
        assert since_change(rows, later) == rows  # too few to be split
        assert since_change(rows, None) == rows


def test_a_second_change_within_one_look_is_dated_too() -> None:
    """A look reads up to 5,000 rows; an alarm ends after 1,000 without another."""
    state = replace(Drift.from_json(state_json()), rows=5_000, alarms=(), changed=None)

    def changed(*rows: int) -> float | None:
        crossed = [Crossing("calibration.clicked.lower", row, float(row)) for row in rows]
        return _alarmed(state, 0, crossed, datetime.fromtimestamp(9_999.0, UTC)).changed

    assert changed(300, 300 + QUIET_ROWS) == 300.0, "the same alarm, heard again"
    assert changed(300, 301 + QUIET_ROWS) == 301.0 + QUIET_ROWS


class TestRetrains:
    def test_a_candidate_and_what_serves_are_compared_as_they_would_explore_now(
        self, learned: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An alarm raises the rate, that of what serves with its next revision. Judged at different rates, the same
        model would be better or worse than itself."""
        audience(learned, clock, 2_800, seed=81)
        audience(learned, clock, 1_200, seed=82)
        at = clock.now.timestamp()
        raised = Alarm("features.plan", at, at, 7, 7, 14.0, 14.0)
        looked(learned, "run_1", raised)
        assert served(learned).exploration["anneal"] < 1.0
        pairs = []

        def told(replayer: Replayer, held: list[Logged], of: Campaign, *parts: Any) -> Paired:
            incumbent, candidate, model = parts
            pairs.append((incumbent.exploration, candidate.exploration))
            itself = pair(replayer, held[:300], of, incumbent, replace(incumbent, exploration=pairs[0][1]), model)
            assert np.array_equal(itself.p_incumbent, itself.p_candidate)
            return pair(replayer, held, of, *parts)

        monkeypatch.setattr("optimizer.service.retrain.pair", told)
        (answer,) = retrain(learned, WORKSPACE)
        assert pairs, answer["reason"]
        ((incumbent, candidate),) = pairs
        with learned.store.read() as reader:
            rows = load(reader, WORKSPACE, clock.now).of("spring")
        assert incumbent == candidate == exploration_numbers(rows, Drift.from_json(answer["drift"]))
        assert candidate["anneal"] == 1.0

    def test_a_change_is_remembered_when_what_serves_is_taken_back(
        self, learned: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The cold start that serves then has no detectors, and the next model would learn the old tastes again."""
        audience(learned, clock, 3000, seed=70)
        looked(learned, "run_0")
        audience(learned, clock, 600, seed=71, swapped=True)
        changed = looked(learned, "run_1").changed
        assert changed is not None
        learning.rollback(learned, WORKSPACE, "spring")
        rates = []

        def verdict(replayer: Replayer, rows: list[Logged], *more: Any) -> Verdict:
            policy_for = more[-1]
            rates.append(policy_for(first_rows(rows, SHOP))(rows[0]).exploration["anneal"])
            return first_verdict(replayer, rows, *more)

        monkeypatch.setattr("optimizer.service.retrain.first_verdict", verdict)
        (told,) = retrain(learned, WORKSPACE)
        assert Drift.from_json(told["drift"]).changed == changed
        assert rates == [1.0], "as it would explore once it serves"
        (told,) = retrain(replace(learned, settings=replace(learned.settings, gate=False)), WORKSPACE)
        assert told["decision"] == "publish"
        meta = meta_of(learned, served(learned).mixture[-1].artifact_id)
        assert meta["changed"] == {"spring": changed}
        assert meta["rows"] < 1_500, "of 4,400"

    def test_a_run_for_one_campaign_knows_what_has_changed_in_the_others(
        self, learned: Services, clock: FakeClock
    ) -> None:
        """One model learns from the rows of all of them."""
        free = two_of_which_one_changed(learned, clock)
        changed = looked(free, "run_1").changed
        assert changed is not None
        metas = []
        for campaign_id in ("autumn", None):
            retrain(free, WORKSPACE, campaign_id)
            meta = meta_of(free, served(free, "autumn").mixture[-1].artifact_id)
            metas.append((meta["changed"], meta["rows"]))
        assert metas == [({"spring": changed}, metas[0][1])] * 2

    def test_a_scheduled_retrain_without_a_gate_waits_for_rows_from_after_the_change(
        self, learned: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With a gate a candidate has to prove itself; without one, few rows would replace a model that knows more."""
        monkeypatch.setattr("optimizer.service.pacing.SINCE_CHANGE", 1_000)
        free = replace(learned, settings=replace(learned.settings, gate=False))
        audience(learned, clock, 3000, seed=70)
        looked(learned, "run_0")
        refresh(free, WORKSPACE)
        learned.policies.refresh_now()
        audience(learned, clock, 400, seed=72, swapped=True)
        run = TrainingRun(WORKSPACE, "run_7", "retrain", "running", clock.now, trigger="schedule")
        (told,) = retrain(free, WORKSPACE, run=run)
        assert told["decision"] == "waits"
        assert "of 1,000 rows since are known; refreshes go on" in told["reason"]
        assert told["drift"]["changed"] is not None
        assert retrain(free, WORKSPACE)[0]["decision"] == "publish", "who asks gets one"
        audience(learned, clock, 1_000, seed=71, swapped=True)
        (told,) = retrain(free, WORKSPACE, run=run)
        assert told["decision"] == "publish"

    def test_a_young_model_has_nothing_to_wait_for(self, learned: Services, clock: FakeClock) -> None:
        """It isn't anchored: 800 rows have hardly told which features matter."""
        free = replace(learned, settings=replace(learned.settings, gate=False))
        audience(learned, clock, 400, seed=70, swapped=True)
        run = TrainingRun(WORKSPACE, "run_7", "retrain", "running", clock.now, trigger="schedule")
        (told,) = retrain(free, WORKSPACE, run=run)
        assert told["drift"]["changed"] is not None
        assert told["decision"] == "publish"


class TestRecall:
    @pytest.mark.parametrize(("swapped", "old"), [(False, 2000), (True, 700)])
    def test_old_rows_come_back_unless_they_mislead(
        self, learned: Services, clock: FakeClock, swapped: bool, old: int
    ) -> None:
        """After a supposed change old rows fade; the newest rows decide whether they are missed.

        240 of them judge. With these numbers of rows they are right about 9 of 10 logs; of 700 old ones that don't
        mislead, about 6.
        """
        audience(learned, clock, old, seed=90)
        changed = clock.now.timestamp()
        audience(learned, clock, 1200, seed=91, swapped=swapped)
        with learned.store.read() as reader:
            log = load(reader, WORKSPACE, clock.now)
            drift = {"spring": replace(Drift.from_json(state_json()), changed=changed)}
            job = Job.of(learned, reader, WORKSPACE, log, drift=drift)
        assert (settled(job).drift["spring"].changed is None) is not swapped
        alarm = Alarm("calibration.clicked.lower", changed, changed, 7, 7, 14.0, 14.0)
        standing = replace(job, drift={"spring": replace(drift["spring"], alarms=(alarm,))})
        assert settled(standing) == standing
        # That people look otherwise says nothing of whether outcomes have settled.
        features = replace(job, drift={"spring": replace(drift["spring"], alarms=(replace(alarm, what="features.x"),))})
        assert (settled(features).drift["spring"].changed is None) is not swapped


class TestCampaigns:
    """One model serves all campaigns; what they send with their requests differs."""

    def found(self, services: Services) -> dict[str, set[str]]:
        with services.store.read() as reader:
            drifts = look(services, reader, WORKSPACE, None, load(reader, WORKSPACE, services.clock()))
        return {name: {alarm.what for alarm in drift.alarms} for name, drift in drifts.items()}

    def test_what_only_one_campaign_sends_is_no_alarm_and_what_changes_in_one_is(
        self, services: Services, clock: FakeClock
    ) -> None:
        for name in ("spring", "news"):
            setup.put_campaign(services, replace(SHOP, campaign_id=name))
        audience(services, clock, 800, seed=1, cart=80.0)
        audience(services, clock, 800, seed=2, campaign_id="news")
        assert {told["decision"] for told in retrain(services, WORKSPACE)} == {"publish"}
        services.policies.refresh_now()
        audience(services, clock, BLOCK_ROWS, seed=3, cart=80.0)
        audience(services, clock, BLOCK_ROWS, seed=4, campaign_id="news")
        assert self.found(services) == {"spring": set(), "news": set()}
        audience(services, clock, BLOCK_ROWS, seed=5, cart=20.0)
        audience(services, clock, BLOCK_ROWS, seed=6, campaign_id="news", pro=0.95)
        assert self.found(services) == {"spring": {"features.cart"}, "news": {"features.plan"}}


def state_json() -> dict[str, Any]:
    names = detector_names(SHOP)
    zeros = [0.0] * len(names)
    return {
        "detectors": {"names": list(names), "value": zeros, "since": zeros, "limit": 14.0},
        "block": {"spec": "", "rows": 0, "counts": {}},
        "centres": {"clicked": [3, -2.5]},
        "matured": [5.0, "dec_1"],
        "decided": [6.0, "dec_2"],
        "since": 4.0,
        "rows": 9,
        "alarms": [],
        "changed": None,
    }


def test_the_state_is_json_and_back() -> None:
    state = Drift.from_json(state_json())
    assert Drift.from_json(orjson.loads(orjson.dumps(state.to_json()))) == state
