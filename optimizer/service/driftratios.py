"""What rows say to the detectors of drift: likelihood ratios of outcomes, and bets on draws. See ``drifting``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.drift import CALIBRATION, balance_ratios, calibration_ratios
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

    A row's centre is the mean predicted logit of earlier rows.
    """
    names = outcome_names(campaign)
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
        ratios.append(calibration_ratios(chance[:, j], outcome[:, j], np.where(counts > 0, centre, logit)))
        after[name] = (count + int(known.sum()), total + float(logit.sum()))
    return np.concatenate(ratios, axis=1), after


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
