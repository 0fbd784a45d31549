"""What an outcome is worth when it happens: E[value] by campaign, shrunk to the workspace's, and by variant.

Values are kept as a *sketch*: at most 32 groups of equally many sorted values. So the mean is exact, a clip that is set
later (the objective may change without a retrain) is applied to the sketch, and no single purchase is stored.

Whether baskets differ from variant to variant is itself in doubt: each mean is shrunk to the campaign's by the spread
that the means show beyond chance and its standard deviation (after DerSimonian & Laird 1986): none where chance
explains it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.model.examples import Examples
from storage.records import Campaign, JsonObject

SKETCH = 32
#: Stands among the variants for not sending.
NOT_SENT = ""
#: A campaign's own mean weighs as much as the pooled one when it has seen this many values.
PRIOR_COUNT = 20.0


def fit_values(examples: Examples) -> dict[str, Any]:
    """Sketches as JSON: outcome → ``{"campaign": {id: sketch}, "currency": {code: sketch}, "variant": {id: {id:
    sketch}}}``, the last by campaign and variant, "" = not sent.

    A sketch is ``{"count": number of values, "means": [[mean, count, variance], …]}`` (before variants were told apart
    no variance). Only values of outcomes that happened count; amounts of different currencies are never pooled.
    """
    out: dict[str, Any] = {}
    currencies = np.array([campaign.currency for campaign in examples.campaigns])[examples.campaign]
    for name in sorted(examples.value):
        happened = examples.outcome.get(name)
        known = np.isfinite(examples.value[name]) & (happened == 1.0 if happened is not None else False)
        if not known.any():
            continue
        value = examples.value[name]
        theirs = {
            campaign.campaign_id: (campaign, known & (examples.campaign == i))
            for i, campaign in enumerate(examples.campaigns)
            if (known & (examples.campaign == i)).any()
        }
        own = {campaign_id: _sketch(value[rows]) for campaign_id, (_, rows) in theirs.items()}
        apart = {
            campaign_id: {
                campaign.variants[i].id if i >= 0 else NOT_SENT: _sketch(value[rows & (examples.variant == i)])
                for i in np.unique(examples.variant[rows]).tolist()
            }
            for campaign_id, (campaign, rows) in theirs.items()
        }
        pooled = {str(code): _sketch(value[known & (currencies == code)]) for code in np.unique(currencies[known])}
        out[name] = {"campaign": own, "currency": pooled, "variant": apart}
    return out


def joined(one: JsonObject, other: JsonObject) -> dict[str, Any]:
    """The sketches of two lots of rows as those of all of them; groups stand side by side."""
    out: dict[str, Any] = {}
    for name in sorted({*one, *other}):
        parts = [part[name] for part in (one, other) if name in part]
        out[name] = {kind: _joined([part[kind] for part in parts]) for kind in ("campaign", "currency")}
        apart = [part.get("variant", {}) for part in parts]
        campaigns = sorted({campaign_id for one in apart for campaign_id in one})
        out[name]["variant"] = {
            campaign_id: _joined([one[campaign_id] for one in apart if campaign_id in one]) for campaign_id in campaigns
        }
    return out


def _joined(parts: Sequence[JsonObject]) -> dict[str, Any]:
    keys = sorted({key for part in parts for key in part})
    found = {key: [part[key] for part in parts if key in part] for key in keys}
    return {
        key: {"count": sum(s["count"] for s in sketches), "means": [group for s in sketches for group in s["means"]]}
        for key, sketches in found.items()
    }


def expected_value(sketches: JsonObject, outcome: str, campaign: Campaign, max_value: float | None) -> float:
    """E[value], clipped to ± ``max_value``, given that the outcome happened; 0 where no value was ever seen.

    (n · own mean + 20 · pooled mean) / (n + 20), n = values the campaign has seen.
    """
    entry = sketches.get(outcome)
    if entry is None or campaign.currency not in entry["currency"]:
        return 0.0
    pooled = _clipped_mean(entry["currency"][campaign.currency]["means"], max_value)
    own = entry["campaign"].get(campaign.campaign_id)
    if own is None:
        return pooled
    count = float(own["count"])
    return (count * _clipped_mean(own["means"], max_value) + PRIOR_COUNT * pooled) / (count + PRIOR_COUNT)


def expected_values(
    sketches: JsonObject, outcome: str, campaign: Campaign, variants: Sequence[str | None], max_value: float | None
) -> NDArray[np.float64]:
    """``expected_value`` by variant (None = not sending), (V,): μ + τ²/(τ² + σ²/n) · (own mean − μ), n = values seen.

    μ is the campaign's; σ² the variance of values around their variant's mean; τ² by how much variants' means differ.
    """
    mean = expected_value(sketches, outcome, campaign, max_value)
    found = np.full(len(variants), mean)
    entry = sketches.get(outcome)
    if entry is None or campaign.currency not in entry["currency"]:
        return found
    theirs = entry.get("variant", {}).get(campaign.campaign_id, {})
    if len(theirs) < 2:
        return found
    count, own, inside = np.array([_moments(sketch["means"], max_value) for sketch in theirs.values()]).T
    spare = count.sum() - len(theirs)
    if spare <= 0:
        return found
    trust = np.ones(len(theirs))
    within = inside.sum() / spare
    if within > 0:
        precision = count / within
        total = precision.sum()
        by_chance = len(theirs) - 1  # what the sum is on average, with a variance of twice that
        spread = precision @ (own - precision @ own / total) ** 2 - by_chance - math.sqrt(2.0 * by_chance)
        between = max(0.0, spread / (total - precision @ precision / total))
        trust = between / (between + within / count)
    place = {name: i for i, name in enumerate(theirs)}
    for i, variant in enumerate(variants):
        at = place.get(NOT_SENT if variant is None else variant)
        if at is not None:
            found[i] += trust[at] * (own[at] - mean)
    return found


def _sketch(values: NDArray[np.float64]) -> dict[str, Any]:
    """Mean, size and variance of at most ``SKETCH`` nearly equal groups of the sorted values."""
    parts = np.array_split(np.sort(values), min(SKETCH, len(values)))
    return {"count": len(values), "means": [[float(part.mean()), len(part), float(part.var())] for part in parts]}


def _clipped_mean(means: Sequence[Sequence[float]], max_value: float | None) -> float:
    mean, count = np.array([group[:2] for group in means], dtype=np.float64).T
    return float(_clipped(mean, max_value) @ count / count.sum())


def _clipped(mean: NDArray[np.float64], max_value: float | None) -> NDArray[np.float64]:
    return mean if max_value is None else np.clip(mean, -max_value, max_value)


def _moments(means: Sequence[Sequence[float]], max_value: float | None) -> tuple[float, float, float]:
    """How many values, their clipped mean, and the sum of squares around it; groups beyond the clip don't vary."""
    mean, count, variance = np.array(means, dtype=np.float64).T
    inside = _clipped(mean, max_value)
    centre = float(inside @ count / count.sum())
    varying = np.where(inside == mean, variance, 0.0)
    return float(count.sum()), centre, float(count @ (varying + (inside - centre) ** 2))
