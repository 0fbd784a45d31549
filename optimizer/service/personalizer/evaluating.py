"""Carries out evaluations, a scheduler's job: every policy on the same logged rows, by the estimators of the gate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.clusters import Clusters, clusters, design_effect
from optimizer.bandit.cressieread import Bounds, cressie_read, cressie_read_interval
from optimizer.service.ids import fresh
from optimizer.service.personalizer import evaluations, replaying
from optimizer.service.personalizer import loop as loops
from optimizer.service.personalizer.arguments import DEFAULT_ARGUMENTS, read_arguments
from optimizer.service.personalizer.evaluations import Bucket, Evaluation, NamedPolicy, PolicyOutcome, Source
from optimizer.service.personalizer.loop import Loop
from optimizer.service.personalizer.replaying import Mask, Trial
from optimizer.service.personalizer.shelf import carry_out_oldest
from optimizer.service.wiring import Services
from optimizer.service.wrongclock import ahead

#: With fewer answers to judge it by, nothing is called better.
FEWEST: Final = 200
OPTIMAL: Final = "Optimized"
NOTHING_TOLD: Final = (
    "each answer of this range was certain (Apprentice or LoggingOnly mode, or no exploration), so they tell of no "
    "policy but Online and Baseline; allowed: a range with answers that were drawn, as Online mode does"
)
#: What an optimisation compares, beside the settings in service.
CANDIDATES: Final = (
    DEFAULT_ARGUMENTS,
    "--cb_explore_adf --epsilon 0.1 --cb_type mtr -q ::",
    "--cb_explore_adf --epsilon 0.05 --cb_type mtr -q ::",
    "--cb_explore_adf --epsilon 0.2 --cb_type mtr",
    "--cb_explore_adf --epsilon 0.05 --cb_type mtr",
    "--cb_explore_adf --squarecb --gamma_scale 10 --epsilon 0.2 -q ::",
)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Stretches:
    """How time is cut: by ``width`` since 1970, the first one at ``start``."""

    start: datetime
    width: timedelta


def run_waiting(services: Services, workspace_id: str) -> bool:
    """Carries out the oldest evaluation that waits; False where there is none to take up."""
    work = partial(_done, services, workspace_id)
    return carry_out_oldest(services, workspace_id, evaluations.SHELF, work)


def queue_due(services: Services, workspace_id: str) -> Evaluation | None:
    """Asks for the automatic evaluation of a loop that is due one."""
    now = services.clock()
    with services.store.read() as reader:
        loop = loops.load(reader, workspace_id)
        span = reader.rank_span(workspace_id)
        known = [e for e in evaluations.SHELF.listed(reader, workspace_id) if e.kind == "Auto"]
    if not loop.auto_optimization or span is None or (loop.auto_start is not None and now < loop.auto_start):
        return None
    if loop.auto_start is None and not known and span[0] > now - loop.auto_every:
        return None
    last = next((one for one in known if not ahead(f"evaluation {one.id!r}", one.created_at, now)), None)
    if last is not None and now < last.created_at + loop.auto_every:
        return None
    start = max(span[0], now - loop.auto_every)
    if span[1] < start or start >= now:
        return None
    asked = Evaluation(fresh("auto"), "Auto optimization", start, now, now, optimise=True, kind="Auto")
    return evaluations.create(services, workspace_id, asked)


def _done(services: Services, workspace_id: str, asked: Evaluation) -> Evaluation:
    with services.store.read() as reader:
        loop = loops.load(reader, workspace_id)
        found = replaying.trials(reader, workspace_id, loop, asked.start, asked.end, services.clock())
    if not found:
        return replace(asked, status="Failed", description="no answer of this range is settled yet")
    done = _judged(asked, found, loop)
    if done.kind == "Auto" and done.status == "Succeeded" and _wanted(services, workspace_id, done):
        return _applied(services, workspace_id, done)
    return done


def _wanted(services: Services, workspace_id: str, asked: Evaluation) -> bool:
    """Whether it is still there: what was deleted meanwhile must not change the loop."""
    with services.store.read() as reader:
        return evaluations.SHELF.has(reader, workspace_id, asked)


def _judged(asked: Evaluation, found: Sequence[Trial], loop: Loop) -> Evaluation:
    width = evaluations.bucket_width(asked)
    stretches = _Stretches(asked.start, width)
    outcomes: list[PolicyOutcome] = []
    for policy, source, weight, tells in _policies(asked, found, loop):
        if tells.any():
            outcomes.extend(_outcomes(policy, source, _where(found, tells), weight[tells], stretches))
    done = replace(asked, status="Succeeded", outcomes=tuple(outcomes))
    if not replaying.telling(found).any():
        return replace(done, status="Failed", description=NOTHING_TOLD)
    return _optimised(done, found, loop, stretches) if asked.optimise else done


def _policies(
    asked: Evaluation, found: Sequence[Trial], loop: Loop
) -> Iterator[tuple[NamedPolicy, Source, Floats, Mask]]:
    """Each policy with the weight that rows have for it, and which of them judge it."""
    tells = replaying.telling(found)
    yield NamedPolicy("Online", loop.arguments), "Online", replaying.online(found), np.ones(len(found), np.bool_)
    yield NamedPolicy("Baseline", ""), "Baseline", replaying.baseline(found), replaying.telling_of_baseline(found)
    if not tells.any():
        return
    yield NamedPolicy("Random", ""), "Random", replaying.uniform(found), tells
    for policy in asked.policies:
        yield policy, "Custom", _replayed(policy.arguments, found, loop), tells


def _where(found: Sequence[Trial], mask: Mask) -> list[Trial]:
    return [trial for trial, one in zip(found, mask, strict=True) if one]


def _replayed(arguments: str, found: Sequence[Trial], loop: Loop) -> Floats:
    settings = read_arguments(arguments)
    ceiling = loop.exploration if settings.epsilon is None else settings.epsilon
    return replaying.learned(found, settings, ceiling, loop.default_reward, linear=loop.explain)


def _optimised(done: Evaluation, found: Sequence[Trial], loop: Loop, stretches: _Stretches) -> Evaluation:
    """Adds the candidate that earns most on the first two thirds, judged on the rest: where the best of several was
    chosen, it looks good by luck. It is ``better`` if both its value and its lower bound there are above those of what
    was in service. What is told of it stands beside what others earned in the whole range, good days and bad: it is
    what it earned on top of what was in service, on top of what that earned in all."""
    tells = replaying.telling(found)
    judges = _where(found, tells)
    cut = len(judges) * 2 // 3
    early, late = judges[:cut], judges[cut:]
    candidates = dict.fromkeys((loop.arguments, *CANDIDATES))
    replayed = {arguments: _replayed(arguments, found, loop)[tells] for arguments in candidates}
    worth = {arguments: _value(early, replayed[arguments][:cut]) for arguments in replayed}
    best = max(replayed, key=lambda arguments: (worth[arguments].telling, worth[arguments].value))
    policy = NamedPolicy(OPTIMAL, best)
    outcomes = tuple(_outcomes(policy, "OfflineExperimentation", late, replayed[best][cut:], stretches))
    served = _served(late, stretches)
    clear = outcomes[0].value > served[""].value and outcomes[0].low > served[""].low
    better = best != loop.arguments and clear and len(late) >= FEWEST
    whole = {outcome.slot_id: outcome for outcome in done.outcomes if outcome.source == "Online"}
    told = (_on_top(outcome, served[outcome.slot_id], whole[outcome.slot_id]) for outcome in outcomes)
    return replace(done, outcomes=(*done.outcomes, *told), optimal=OPTIMAL, better=better)


def _served(late: Sequence[Trial], stretches: _Stretches) -> dict[str, PolicyOutcome]:
    """What was in service earned on these rows, by slot."""
    online = _outcomes(NamedPolicy("Online", ""), "Online", late, replaying.online(late), stretches)
    return {outcome.slot_id: outcome for outcome in online}


def _on_top(found: PolicyOutcome, served: PolicyOutcome, whole: PolicyOutcome) -> PolicyOutcome:
    """``found``, moved by what was ``served`` in its rows to what was in the ``whole`` range, within its rewards."""
    lowest, highest = whole.seen or (-math.inf, math.inf)

    def moved(value: float) -> float:
        return min(highest, max(lowest, value + whole.value - served.value))

    return replace(found, value=moved(found.value), low=moved(found.low), high=moved(found.high))


def _applied(services: Services, workspace_id: str, done: Evaluation) -> Evaluation:
    """An automatic evaluation puts what it found to work, if that is better."""
    if not done.better:
        return replace(done, status="OnlinePolicyRetained")
    found = next(o for o in done.outcomes if o.source == "OfflineExperimentation")
    loops.set_policy(services, workspace_id, found.name, found.arguments)
    return replace(done, status="OptimalPolicyApplied")


def _outcomes(
    policy: NamedPolicy, source: Source, found: Sequence[Trial], weight: Floats, stretches: _Stretches
) -> Iterator[PolicyOutcome]:
    """A policy's outcome over all slots, and for each slot of multi-slot answers."""
    named = sorted({trial.slot.slot_id for trial in found} - {""})
    for slot_id in ("", *named):
        at = [n for n, trial in enumerate(found) if not slot_id or trial.slot.slot_id == slot_id]
        rows = [found[n] for n in at]
        buckets = tuple(_buckets(rows, weight[at], stretches))
        told = _value(rows, weight[at])
        yield PolicyOutcome(
            policy.name, policy.arguments, source, told.value, told.low, told.high, buckets, slot_id, told.seen
        )


@dataclass(frozen=True, slots=True)
class _Value:
    """What rows tell of a policy: Cressie and Read's estimate and interval, within ``seen``, the least and the greatest
    reward; as much wider as slots of one event tell less than as many events. Where no row weighs, ``telling`` is
    False: it may earn whatever rewards can be, here at least −1 to 1, and ``value`` is the middle of that."""

    value: float
    low: float
    high: float
    seen: tuple[float, float]
    telling: bool = True


def _value(rows: Sequence[Trial], weight: Floats) -> _Value:
    reward = np.array([trial.reward for trial in rows])
    if not weight.any():
        low, high = min([-1.0, *reward.tolist()]), max([1.0, *reward.tolist()])
        return _Value((low + high) / 2, low, high, (low, high), telling=False)
    seen = float(reward.min()), float(reward.max())
    value = min(seen[1], max(seen[0], cressie_read(reward, weight, Bounds(seen))))
    low, high = cressie_read_interval(reward, weight, Bounds(seen))
    wider = math.sqrt(design_effect(weight * (reward - float(weight @ reward) / float(weight.sum())), _events(rows)))
    low, high = value - wider * max(0.0, value - low), value + wider * max(0.0, high - value)
    return _Value(value, max(seen[0], low), min(seen[1], high), seen)


def _events(rows: Sequence[Trial]) -> Clusters:
    """Which rows are slots of one event."""
    known: dict[str, int] = {}
    return clusters([known.setdefault(trial.rank.event_id, len(known)) for trial in rows], len(rows))


def _buckets(rows: Sequence[Trial], weight: Floats, stretches: _Stretches) -> Iterator[Bucket]:
    """Sums by stretches of time."""
    seconds = stretches.width.total_seconds()
    stretch = np.array([int(trial.rank.ranked_at.timestamp() // seconds) for trial in rows])
    reward = np.array([trial.reward for trial in rows])
    for one in np.unique(stretch).tolist():
        at = stretch == one
        w, r = weight[at], reward[at]
        yield Bucket(
            max(datetime.fromtimestamp(one * seconds, UTC), stretches.start),
            int(at.sum()),
            int((w > 0).sum()),
            float(w.sum()),
            float(w @ r),
            float(w @ w),
            float((w**2) @ r),
            float((w * r) @ (w * r)),
        )
