"""What rows say to the detectors of drift: likelihood ratios of outcomes, and bets on draws. See ``drifting``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.drift import CALIBRATION, balance_ratios, calibration_ratios
from optimizer.bandit.rewards import needs_message, planned_end
from optimizer.bandit.spoken import outcome_names
from optimizer.service.evidence import factor_names, known_outcome, predicted_outcomes, subset_masses
from optimizer.service.feedback import Logged
from optimizer.service.replay import Past, space_logged, vectors
from storage.records import Campaign

Floats = NDArray[np.float64]
#: Outcome -> (count, sum) of predicted logits so far.
Centres = Mapping[str, tuple[int, float]]


def calibration(
    past: Past, campaign: Campaign, centres: Centres, rows: Sequence[Logged]
) -> tuple[Floats, dict[str, tuple[int, float]]]:
    """Ratios (n, 3 an outcome) of matured rows, by outcome in the campaign's order, and the centres after them.

    A row's centre is the mean predicted logit of earlier rows. What needs no message is told of a person once, and
    counts in every row of theirs that is open: each has but its ``shares`` of it.
    """
    names = outcome_names(campaign)
    share = None if all(map(needs_message, names)) else shares(past, campaign, rows)
    chance, outcome = np.full((len(rows), len(names)), 0.5), np.full((len(rows), len(names)), np.nan)
    told = predicted_outcomes(past, [row.decision for row in rows])
    for i, row in enumerate(rows):
        for j, name in enumerate(names):
            if name in told[i]:
                chance[i, j], outcome[i, j] = told[i][name], known_outcome(row, name)
    ratios, after = [np.zeros((len(rows), 0))], {}
    for j, name in enumerate(names):
        known = np.isfinite(outcome[:, j])
        p = np.clip(chance[:, j], 1e-9, 1.0 - 1e-9)
        logit = np.where(known, np.log(p) - np.log1p(-p), 0.0)
        count, total = centres.get(name, (0, 0.0))
        counts = count + np.cumsum(known) - known
        centre = (total + np.cumsum(logit) - logit) / np.maximum(1, counts)
        ratio = calibration_ratios(chance[:, j], outcome[:, j], np.where(counts > 0, centre, logit))
        ratios.append(ratio if share is None or needs_message(name) else ratio * share[:, None])
        after[name] = (count + int(known.sum()), total + float(logit.sum()))
    return np.concatenate(ratios, axis=1), after


def shares(past: Past, campaign: Campaign, rows: Sequence[Logged]) -> Floats:
    """(n,) one by the number of the campaign's decisions about the same person that were open when a row was made.

    Rows that wait for the same purchase aren't independent: of twenty that a person has open, one purchase would bet
    twenty times. Powers of likelihood ratios that sum to 1 have a mean of at most 1 together, however they depend on
    each other (Hölder's inequality); of a steady stream of rows these do, of n at once they come to 1 + … + 1/n. They
    are known before the row is, so what comes of it doesn't choose them.
    """
    of: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        of.setdefault(row.decision.recipient_id, []).append(i)
    reach = max((planned_end(campaign, r.decision) - r.decision.decided_at for r in rows), default=timedelta(0))
    share = np.ones(len(rows))
    for recipient_id, places in of.items():
        made = [rows[i].decision.decided_at for i in places]
        spans = _spans(past, campaign, recipient_id, min(made) - reach)
        for i, at in zip(places, made, strict=True):
            share[i] = 1.0 / max(1, sum(start <= at < end for start, end in spans))
    return share


def _spans(past: Past, campaign: Campaign, recipient_id: str, since: datetime) -> list[tuple[datetime, datetime]]:
    """From when until when the decisions about a person are open that were made from a time on."""
    newer = takewhile(lambda one: one.decided_at >= since, past.asked(campaign, recipient_id))
    return [(one.decided_at, planned_end(campaign, one)) for one in newer if one.action is not None]


def balance(past: Past, subsets: Sequence[str], rows: Sequence[Logged]) -> tuple[Floats, list[float]]:
    """Bets (n, 2 a subset of actions) on the draws of rows, and how far each recomputed propensity is off."""
    inside, expected = np.zeros((len(rows), len(subsets)), np.bool_), np.zeros((len(rows), len(subsets)))
    place = {name: i for i, name in enumerate(subsets)}
    errors: list[float] = []
    for i, (row, vector) in enumerate(zip(rows, vectors(past, [row.decision for row in rows]), strict=True)):
        decision, action = row.decision, row.decision.action or 0
        errors.append(abs(float(vector[action]) - (decision.propensity or 0.0)))
        for name, mass, hit in subset_masses(space_logged(decision, past.campaign(decision)), vector, action):
            if name in place:
                inside[i, place[name]], expected[i, place[name]] = hit, min(mass, 1.0)
    return balance_ratios(inside, expected), errors


def detector_names(campaign: Campaign) -> tuple[str, ...]:
    """Every detector of a campaign, in the order of their ratios."""
    heads = [f"calibration.{name}.{side}" for name in outcome_names(campaign) for side in CALIBRATION]
    names = subsets(campaign)
    return (*heads, *(f"propensities.{s}.more" for s in names), *(f"propensities.{s}.less" for s in names))


def subsets(campaign: Campaign) -> list[str]:
    """The subsets of actions whose draws are watched."""
    return factor_names([v.id for v in campaign.variants], [c.id for c in campaign.channels])


def times(rows: Sequence[Logged]) -> Floats:
    """(n,) when they were decided, in epoch seconds."""
    return np.array([row.decision.decided_at.timestamp() for row in rows])
