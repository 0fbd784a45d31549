"""Tuning the numbers of training on a workspace's own log, by Optuna, within a time budget.

The log is cut by time into three parts. Candidates learn on the first and are ranked by the likelihood of the second;
the best one and the numbers in use (those adopted before, else the defaults) then learn on both and are compared once
on the third, which the search never saw, so that the figure that is told is not the best of many tries. Among the
candidates are the numbers in use and the defaults. Likelihood decides; a doubly robust comparison of the policies
that the two models would be has a veto. Values alone could not decide: on most logs they are far too noisy.

The search is kept in a journal file (``searches``) and goes on where it was left, whether it was interrupted or its
time was up, until its winner is adopted or the trials that were asked for are made. Every call ends with a comparison,
unless the best numbers are those in use, and each further candidate that is compared on the same third part must be
clearer than the one before: calling often is no way to be lucky.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit import ope
from optimizer.errors import Invalid
from optimizer.model.inference import RewardModel
from optimizer.model.policy import LivePolicy
from optimizer.model.training.evaluate import clustered_z
from optimizer.model.training.options import DEFAULTS, RANGES, TrainOptions
from optimizer.service.annealing import exploration_numbers
from optimizer.service.evidence import clusters, pair
from optimizer.service.feedback import Logged, examples, judgeable, people
from optimizer.service.fitting import Job, cross_fitted, tuned
from optimizer.service.replay import Replayer
from optimizer.service.runs import LEAST_RECIPIENTS, LEAST_ROWS
from optimizer.service.searches import Parts, await_judgement, compared, over, under_way
from optimizer.service.trials import Across, Exam, here, row_likelihood
from optimizer.service.wiring import Services
from storage.policies import Component
from storage.port import Reader, Writer

if TYPE_CHECKING:
    import optuna

#: What is adopted is clearly likelier on the third part (one-sided error .023), and not visibly worth less.
CLEAR, VETO = 2.0, -1.0
_COMPARED = "compared"
#: Numbers that are searched on a logarithmic scale.
_LOGARITHMIC = frozenset({"shape", "rate", "decay"})

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Budget:
    """When a search ends: after so many minutes, or so many trials in all (None = minutes alone).

    ``together``: how many trials are drawn before any of them is judged; the same number gives the same ones, wherever
    they are made.
    """

    minutes: float
    trials: int | None = None
    together: int = 1


def tune(
    services: Services,
    workspace_id: str,
    journal: Path,
    budget: Budget,
    on_trial: Progress | None = None,
    across: Across = here,
) -> dict[str, Any]:
    """Searches, compares the best candidate with the numbers in use, and stores it where it is clearly better.

    Args:
        services: the wired service.
        workspace_id: whose log, and whose later retrains.
        journal: the file that the search is kept in.
        budget: of the search; the last trial and the comparison (two fits, one replay) come on top.
        on_trial: told the number of finished trials after each.
        across: makes the trials that were drawn together.

    Returns:
        ``decision`` (adopted or kept), ``reason, trials, made, next, rows, options, best, current, defaults,
        likelihood, value``: trials in all, and those of this call; what the next call does (``goes_on``, or
        ``begins_anew`` where the winner was adopted or the trials asked for are made); the numbers that hold from now
        on, the best candidate, and those that held until now; the last two are gains over these on the third part, in
        nats and in reward a row, with standard errors; ``value`` is None where no campaign has enough rows to evaluate,
        and both are where the best numbers are those in use, so that there is nothing to compare.

    Raises:
        ConfigError: Optuna is not installed.
        Invalid: too few matured rows.
    """
    with services.store.read() as reader:
        current = tuned(reader, workspace_id)
        study, job, parts = under_way(services, reader, workspace_id, journal, budget.trials)
        await_judgement(study, (current, DEFAULTS))
        before = _finished(study)
        _search(study, Exam.of(job, parts[0], parts[1]), budget, on_trial, across)
        best = TrainOptions.from_json(study.best_params)
        same: dict[str, Any] = {"likelihood": None, "value": None}
        found = same if best == current else _compared(job, reader, parts, current, best)
    decision, reason = _decided(study, current, best, found)
    chosen = best if decision == "adopted" else current
    if chosen != current:
        _store(services, workspace_id, chosen)
    trials = _finished(study)
    compared(study, trials, adopted=decision == "adopted")
    return {
        "decision": decision,
        "reason": reason,
        "trials": trials,
        "made": trials - before,
        "next": "begins_anew" if over(study, budget.trials) else "goes_on",
        "rows": [len(part) for part in parts],
        "options": chosen.to_json(),
        "best": best.to_json(),
        "current": current.to_json(),
        "defaults": DEFAULTS.to_json(),
        **found,
    }


def reset(services: Services, workspace_id: str) -> None:
    """Later retrains use the defaults again."""
    _store(services, workspace_id, DEFAULTS)


def _search(study: optuna.Study, exam: Exam, budget: Budget, on_trial: Progress | None, across: Across) -> None:
    left = math.inf if budget.trials is None else budget.trials - _finished(study)
    until = time.monotonic() + 60.0 * budget.minutes
    while left > 0 and time.monotonic() < until:
        trials = [study.ask() for _ in range(int(min(budget.together, left)))]
        left -= len(trials)
        for trial, value in zip(trials, across(exam, [_drawn(trial) for trial in trials]), strict=True):
            study.tell(trial, value)
            if on_trial is not None:
                on_trial(_finished(study))


def _drawn(trial: optuna.Trial) -> TrainOptions:
    """The options of a trial."""
    return TrainOptions(
        **{name: trial.suggest_float(name, low, high, log=name in _LOGARITHMIC) for name, (low, high) in RANGES.items()}
    )


def _finished(study: optuna.Study) -> int:
    """How many trials have a value: one that was interrupted has none, and one that waits neither."""
    return sum(trial.value is not None for trial in study.trials)


def _model(job: Job, learn: Sequence[Logged], options: TrainOptions) -> RewardModel:
    return RewardModel.load(replace(job, options=options).fit(learn, calibrated=False).blob)


def _compared(
    job: Job,
    reader: Reader,
    parts: Parts,
    current: TrainOptions,
    best: TrainOptions,
) -> dict[str, Any]:
    """The best candidate against the numbers in use on the third part: likelihood and off-policy value."""
    learn, judge = [*parts[0], *parts[1]], parts[2]
    models = [_model(job, learn, options) for options in (current, best)]
    held = examples(judge, job.log.campaigns)
    before, after = (row_likelihood(model, held) for model in models)
    gain, z = clustered_z(after - before, held.cluster)
    error = gain / z if z else 0.0
    likelihood = {"gain": gain, "standard_error": error, "z": z, "rows": len(judge)}
    return {"likelihood": likelihood, "value": _value(job, reader, learn, judge, models)}


def _value(
    job: Job, reader: Reader, learn: Sequence[Logged], judge: Sequence[Logged], models: Sequence[RewardModel]
) -> dict[str, Any] | None:
    """The doubly robust difference between the policies of two models, over all campaigns with enough rows."""
    replayer = Replayer(reader, job.services.salt)
    kept: list[Logged] = []
    columns: list[tuple[NDArray[np.float64], ...]] = []
    for name, campaign in job.log.campaigns.items():
        rows = judgeable((r for r in judge if r.evaluable and r.decision.campaign_id == name), campaign)
        if len(rows) < LEAST_ROWS or people(rows) < LEAST_RECIPIENTS:
            continue
        numbers = exploration_numbers([r for r in learn if r.decision.campaign_id == name])
        current, best = (LivePolicy("tuning", (Component(1.0, "tuning"),), (m,), numbers) for m in models)
        found = pair(replayer, rows, campaign, current, best, cross_fitted(job, learn, rows))
        weights = (ope.importance_weight(p, found.propensity) for p in (found.p_candidate, found.p_incumbent))
        columns.append((found.reward, *weights, found.q_logged, found.value_candidate, found.value_incumbent))
        kept += rows
    if not columns:
        return None
    reward, above, below, q, v_best, v_current = (np.concatenate(part) for part in zip(*columns, strict=True))
    return asdict(ope.paired_difference(reward, above, below, q, v_best, v_current, clusters(kept)))


def _needed(study: optuna.Study, current: TrainOptions, best: TrainOptions) -> float:
    """How far a candidate must be from 0, in standard errors: the k-th of a search at a k²-th of the first one's error,
    so that all together err at most 1.65 times as often as one. A candidate that was compared before keeps its place.
    """
    known, one = list(study.user_attrs.get(_COMPARED, [])), [current.to_json(), best.to_json()]
    if one not in known:
        known.append(one)
        study.set_user_attr(_COMPARED, known)
    normal = NormalDist()
    return round(-normal.inv_cdf(normal.cdf(-CLEAR) / (known.index(one) + 1) ** 2), 6)


def _decided(study: optuna.Study, current: TrainOptions, best: TrainOptions, found: dict[str, Any]) -> tuple[str, str]:
    against = "the defaults" if current == DEFAULTS else "the numbers that were adopted before"
    if best == current:
        tried = [TrainOptions.from_json(trial.params) for trial in study.trials if trial.value is not None]
        if any(one not in (current, DEFAULTS) for one in tried):
            return "kept", f"no candidate was likelier than {against}"
        more = " and the defaults" if current != DEFAULTS and DEFAULTS in tried else ""
        return "kept", f"nothing but {against}{more} was tried"
    z, value, needed = found["likelihood"]["z"], found["value"], _needed(study, current, best)
    if z <= needed:
        return "kept", f"not clearly likelier than {against}: z = {z:.2f}, needed > {needed:.3g}"
    if value is not None and value["value"] < VETO * value["standard_error"]:
        return "kept", f"likelier (z = {z:.2f}), but its policy looks worse: {value['value']:.4g} a decision"
    return "adopted", f"clearly likelier than {against}: z = {z:.2f}"


def _store(services: Services, workspace_id: str, options: TrainOptions) -> None:
    told = {} if options == DEFAULTS else options.to_json()

    def work(writer: Writer) -> None:
        workspace = writer.workspace(workspace_id)
        if workspace is None:
            raise Invalid.field("workspace", f"no workspace {workspace_id!r}", code="unknown_workspace")
        if dict(workspace.training) != told:
            writer.put_workspace(replace(workspace, training=told))

    services.store.write(work)
