"""What serves is taken back where its messages drive people away, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import cast

import numpy as np
import pytest

from optimizer.bandit.rewards import Outcome
from optimizer.service import setup
from optimizer.service.canary import watch
from optimizer.service.feedback import Logged
from optimizer.service.guarding import ALLOWED_HARMS, Guard, guard
from optimizer.service.ids import COLD_POLICY
from optimizer.service.learning import promote
from optimizer.service.learningalerts import learning_alerts
from optimizer.service.publish import rolled_back
from optimizer.service.requests import DecisionRequest
from optimizer.service.retrain import retrain
from optimizer.service.runs import start_now
from optimizer.service.settle import confirm
from optimizer.service.training import carry_out
from optimizer.service.upkeep import expire
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.records import Channel, Guardrail, OutcomeWeight
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.test_canary import Shares, forget, leave, lift, plant, pointer_of
from tests.service.test_canary import look as kept_look

CAREFUL = campaign(
    channels=(Channel("email"),),
    allow_no_send=False,
    exploration_rate=0.2,
    objective={"clicked": OutcomeWeight(1.0), "unsubscribed": OutcomeWeight(0.0)},
    attribution_hours={"clicked": 1.0, "unsubscribed": 1.0},
    guardrails={"unsubscribed": Guardrail(max_rate=0.15)},
)

#: How often people leave while the policy learns, which goes by clicks and leaves nothing out.
ALIKE: Shares = (0.05, 0.05)
#: They click on half of what they like.
send = partial(leave, clicks=(0.5, 0.05))
look = partial(kept_look, of=guard)


@pytest.fixture
def learned(services: Services, clock: FakeClock) -> Services:
    """A campaign whose first policy serves."""
    setup.put_campaign(services, CAREFUL)
    send(services, clock, 800, ALIKE, seed=31)
    assert retrain(services, WORKSPACE)[0]["decision"] == "publish"
    services.policies.refresh_now()
    return services


class TestTakenBack:
    def test_a_policy_that_drives_people_away_is_taken_back_with_its_numbers(
        self, learned: Services, clock: FakeClock
    ) -> None:
        """What it prefers has become what makes them leave."""
        before = pointer_of(learned)
        send(learned, clock, 1000, (0.3, 0.0), seed=40)
        told = look(learned, "run_1")
        assert told["decision"] == "rolled_back", told["reason"]
        assert (told["policy_id"], told["rows"]) == (before.policy_id, 667), "what decides it is a whole wager"
        after = pointer_of(learned)
        assert (after.policy_id, after.generation) == (COLD_POLICY, before.generation + 1)
        (condition,) = told["conditions"]
        assert (condition["name"], condition["passed"]) == ("guardrails.unsubscribed.rate", False)
        assert condition["figure"] < condition["limit"] < 0.05
        with learned.store.read() as reader:
            change = reader.changes(WORKSPACE, after=0, limit=9)[-1]
        assert (change.kind, change.replaced_id) == ("rolled_back", before.policy_id)
        assert "of 667 messages, 15.00% are allowed (p " in change.detail
        assert guard(learned, WORKSPACE) == []

    def test_what_served_before_is_held_to_the_same(self, learned: Services, clock: FakeClock) -> None:
        """The world has changed: whatever serves, too many leave. A canary goes first, then what it stood beside."""
        first = pointer_of(learned)
        plant(learned, clock, bad=False)
        send(learned, clock, 600, (0.4, 0.4), seed=40)
        assert look(learned, "run_1")["decision"] == "rolled_back"
        assert pointer_of(learned).policy_id == first.policy_id
        learned.policies.refresh_now()
        clock.forward(hours=1)
        assert look(learned, "run_2")["rows"] == 0, "it is judged on what comes since"
        send(learned, clock, 600, (0.4, 0.4), seed=41)
        assert look(learned, "run_3")["decision"] == "rolled_back"
        assert pointer_of(learned).policy_id == COLD_POLICY
        with learned.store.read() as reader:
            (alerts,) = learning_alerts(reader, WORKSPACE).campaigns
        assert alerts.rolled_back == clock.now, "of a cold start, too"

    def test_a_retrain_that_was_asked_for_before_is_no_answer_to_it(self, learned: Services, clock: FakeClock) -> None:
        send(learned, clock, 1000, (0.3, 0.0), seed=40)
        run = start_now(learned, WORKSPACE, None, "test", "api")
        clock.forward(minutes=1)
        told = carry_out(learned, run).verdicts
        assert [one["decision"] for one in told] == ["rolled_back", "waits"]
        assert pointer_of(learned).policy_id == COLD_POLICY

    def test_one_that_has_climbed_is_taken_back_to_what_served_before_it(
        self, learned: Services, clock: FakeClock
    ) -> None:
        first = pointer_of(learned)
        plant(learned, clock, bad=False)
        lift(learned, clock, 0.6)
        lift(learned, clock, 1.0)
        assert watch(learned, WORKSPACE) == []
        send(learned, clock, 1000, (0.4, 0.4), seed=40)
        told = look(learned, "run_1")
        assert told["decision"] == "rolled_back", told["reason"]
        assert pointer_of(learned).policy_id == first.policy_id

    def test_one_that_somebody_puts_back_is_judged_on_what_comes_since(
        self, learned: Services, clock: FakeClock
    ) -> None:
        policy_id = pointer_of(learned).policy_id
        send(learned, clock, 1000, (0.3, 0.0), seed=40)
        assert look(learned, "run_1")["decision"] == "rolled_back"
        clock.forward(days=3)
        promote(learned, WORKSPACE, policy_id, by="anna")
        learned.policies.refresh_now()
        clock.forward(minutes=1)
        send(learned, clock, 30, ALIKE, seed=41)
        told = look(learned, "run_2")
        assert (told["decision"], told["rows"]) == ("guarded", 30)

    def test_one_that_is_moved_meanwhile_is_left_alone(self, learned: Services, clock: FakeClock) -> None:
        before = pointer_of(learned)
        plant(learned, clock, bad=False)
        decision, reason = rolled_back(learned, before, COLD_POLICY, clock.now, "too many leave")
        assert (decision, reason) == ("superseded", "the campaign's policy was moved during the look")
        assert pointer_of(learned).generation == before.generation + 1


class TestLooks:
    def test_a_policy_within_its_limit_stays_and_each_message_counts_once(
        self, learned: Services, clock: FakeClock
    ) -> None:
        send(learned, clock, 400, ALIKE, seed=50)
        assert (look(learned, "run_1")["decision"], look(learned, "run_2")["rows"]) == ("guarded", 400)
        send(learned, clock, 100, ALIKE, seed=51)
        assert look(learned, "run_3")["rows"] == 500

    def test_many_looks_know_what_one_knows(self, learned: Services, clock: FakeClock) -> None:
        for step in range(3):
            send(learned, clock, 60, ALIKE, seed=70 + step)
            look(learned, f"run_{step}")
        (by_parts,) = guard(learned, WORKSPACE)
        for step in range(3):
            learned.store.write(partial(forget, run_id=f"run_{step}"))
        (at_once,) = guard(learned, WORKSPACE)
        one, other = Guard.from_json(by_parts["guard"]), Guard.from_json(at_once["guard"])
        assert one.wagers["unsubscribed"].rows == other.wagers["unsubscribed"].rows == 180
        assert one.wagers["unsubscribed"].capital == pytest.approx(other.wagers["unsubscribed"].capital)

    def test_rows_are_read_once_an_hour(self, learned: Services, clock: FakeClock) -> None:
        send(learned, clock, 60, ALIKE, seed=70)
        assert look(learned, "run_1")["rows"] == 60
        send(learned, clock, 60, ALIKE, seed=71)
        clock.forward(hours=-1.5)
        assert look(learned, "run_2")["rows"] == 60
        clock.forward(hours=1.5)
        assert look(learned, "run_3")["rows"] == 120

    def test_a_message_whose_harms_may_still_come_waits(self, learned: Services, clock: FakeClock) -> None:
        send(learned, clock, 60, ALIKE, seed=70)
        clock.forward(hours=-1.5)  # half an hour after the sends; people may leave for an hour
        assert look(learned, "run_1")["rows"] == 0
        clock.forward(hours=1.5)
        assert look(learned, "run_2")["rows"] == 60

    @pytest.mark.parametrize("without", ["guardrail", "max_rate", "gate", "policy"])
    def test_nothing_is_watched_without(self, learned: Services, clock: FakeClock, without: str) -> None:
        if without == "policy":
            rolled_back(learned, pointer_of(learned), COLD_POLICY, clock.now, "by hand")
        elif without == "gate":
            learned = replace(learned, settings=replace(learned.settings, gate=False))
        else:
            rails = {"unsubscribed": Guardrail(max_increase=0.1)} if without == "max_rate" else {}
            setup.put_campaign(learned, replace(CAREFUL, guardrails=rails))
        assert guard(learned, WORKSPACE) == []

    def test_what_was_sent_under_another_limit_breaks_none(self, learned: Services, clock: FakeClock) -> None:
        send(learned, clock, 600, (0.1, 0.2), seed=40)
        assert look(learned, "run_1")["decision"] == "guarded"
        setup.put_campaign(learned, replace(CAREFUL, guardrails={"unsubscribed": Guardrail(max_rate=0.01)}))
        clock.forward(hours=2)
        assert look(learned, "run_2")["rows"] == 0
        send(learned, clock, 600, (0.1, 0.2), seed=41)
        assert look(learned, "run_3")["decision"] == "rolled_back"

    def test_a_change_of_what_outcomes_are_worth_changes_nothing(self, learned: Services, clock: FakeClock) -> None:
        send(learned, clock, 100, ALIKE, seed=40)
        assert look(learned, "run_1")["rows"] == 100
        worth = {"clicked": OutcomeWeight(2.0), "unsubscribed": OutcomeWeight(-1.0)}
        setup.put_campaign(learned, replace(CAREFUL, objective=worth))
        send(learned, clock, 100, ALIKE, seed=41)
        assert look(learned, "run_2")["rows"] == 200

    def test_who_remembers_nothing_reads_no_more_than_a_week(self, learned: Services, clock: FakeClock) -> None:
        send(learned, clock, 100, ALIKE, seed=40)
        clock.forward(days=8)
        send(learned, clock, 50, ALIKE, seed=41)
        assert look(learned, "run_1")["rows"] == 50

    def test_messages_that_expired_unconfirmed_count_whether_or_not_somebody_left(
        self, learned: Services, clock: FakeClock
    ) -> None:
        """Where senders confirm late, only those who answer would be known to have got theirs."""
        setup.put_campaign(learned, replace(CAREFUL, unconfirmed="release"))
        sent = send(learned, clock, 100, ALIKE, seed=40)
        clock.forward(days=2)
        while expire(learned, WORKSPACE):
            pass
        with learned.store.read() as reader:
            known = reader.decisions_by_id(WORKSPACE, [one.decision_id for one in sent])
        assert sum(one.status == "expired" for one in known.values()) > 20
        assert look(learned, "run_1")["rows"] == 100

    def test_a_message_that_is_confirmed_late_counts_once(self, learned: Services, clock: FakeClock) -> None:
        setup.put_campaign(learned, replace(CAREFUL, unconfirmed="release"))
        asked = [DecisionRequest("spring", f"later{i}") for i in range(20)]
        planned = [d.send_at for d in learned.decider.decide_batch(WORKSPACE, asked, "q") if isinstance(d, Decision)]
        assert max(at for at in planned if at is not None) > clock.now + timedelta(hours=6), "one of them waits"
        clock.forward(minutes=1)
        sent, _ = learned.decider.decide(WORKSPACE, DecisionRequest("spring", "now", immediate=True))
        clock.forward(hours=2.5)
        while expire(learned, WORKSPACE):
            pass
        before = look(learned, "run_1")["rows"]
        confirm(learned, WORKSPACE, sent.decision_id, clock.now, None, None)
        clock.forward(hours=1.2)
        known = sum(at is not None and at + timedelta(hours=1) <= clock.now for at in planned)
        assert before < look(learned, "run_2")["rows"] == known + 1


def message(*, left: bool) -> Logged:
    """As much of a row as a wager reads."""
    return Logged(cast(Decision, None), {"unsubscribed": Outcome(left, None, None, matured=True)}, 0.0, matured=True)


def messages(rate: float) -> Callable[[int, int], list[Logged]]:
    return lambda count, seed: [message(left=x < rate) for x in np.random.default_rng(seed).random(count)]


class TestGuard:
    BEGUN = Guard.begun("pol_1", "", {"unsubscribed": 0.01})

    def looks(self, rate: float, rows: int, seed: int, state: Guard = BEGUN, step: int = 250) -> Guard:
        """What is known after looks at every so many messages, up to the first that convicts."""
        of = messages(rate)
        for start in range(0, rows, step):
            state = state.after({"unsubscribed": 0.01}, of(step, 1000 * seed + start))
            if state.convicted:
                break
        return state

    @pytest.mark.parametrize("rate", [0.005, 0.01])
    def test_a_policy_within_its_limit_is_hardly_ever_convicted(self, rate: float) -> None:
        convicted = sum(bool(self.looks(rate, 30_000, seed, step=1000).convicted) for seed in range(100))
        assert convicted <= 5

    @pytest.mark.parametrize(("rate", "most"), [(0.015, 50), (0.02, 15), (0.05, 4)])
    def test_one_beyond_it_is_found_out(self, rate: float, most: int) -> None:
        """Within as many messages as are allowed so many harms, in the middle of 41 runs."""
        rows = sorted(self.looks(rate, 10_000, seed).wagers["unsubscribed"].rows for seed in range(41))
        assert rows[20] <= most / 0.01

    def test_one_that_harms_late_is_found_out_however_good_it_was(self) -> None:
        good = self.looks(0.001, 50_000, 1, step=1000)
        assert not good.convicted
        assert good.blocks["unsubscribed"] == 50_000 * 0.01 / ALLOWED_HARMS
        late = self.looks(0.03, 20_000, 2, good)
        assert late.convicted
        assert late.wagers["unsubscribed"].rows <= 1000

    def test_harms_at_the_end_of_a_long_backlog_are_found(self) -> None:
        rows = [*messages(0.001)(20_000, 1), *messages(0.05)(1_000, 2)]
        assert self.BEGUN.after({"unsubscribed": 0.01}, rows).convicted

    def test_where_nothing_is_allowed_one_harm_is_too_much(self) -> None:
        state = Guard.begun("pol_1", "", {"unsubscribed": 0.0})
        state = state.after({"unsubscribed": 0.0}, [message(left=False)] * 500)
        assert not state.convicted
        assert state.after({"unsubscribed": 0.0}, [message(left=True)]).convicted
