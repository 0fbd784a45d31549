"""What an outcome is worth when it happens: E[min(value, max)] by campaign, shrunk to the workspace's.

Values are kept as a *sketch*: at most 32 means of equally many sorted values. So the mean is exact, a clip that is set
later (the objective may change without a retrain) is applied to the sketch, and no single purchase is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.model.examples import Examples
from storage.records import Campaign, JsonObject

SKETCH = 32
#: A campaign's own mean weighs as much as the pooled one when it has seen this many values.
PRIOR_COUNT = 20.0


def fit_values(examples: Examples) -> dict[str, Any]:
    """Sketches as JSON: outcome → ``{"campaign": {id: sketch}, "currency": {code: sketch}}``.

    A sketch is ``{"count": number of values, "means": […]}``. Only values of outcomes that happened count; amounts of
    different currencies are never pooled.
    """
    out: dict[str, Any] = {}
    currencies = np.array([campaign.currency for campaign in examples.campaigns])[examples.campaign]
    for name in sorted(examples.value):
        happened = examples.outcome.get(name)
        known = np.isfinite(examples.value[name]) & (happened == 1.0 if happened is not None else False)
        if not known.any():
            continue
        value = examples.value[name]
        own = {
            campaign.campaign_id: _sketch(value[known & (examples.campaign == i)])
            for i, campaign in enumerate(examples.campaigns)
            if (known & (examples.campaign == i)).any()
        }
        pooled = {str(code): _sketch(value[known & (currencies == code)]) for code in np.unique(currencies[known])}
        out[name] = {"campaign": own, "currency": pooled}
    return out


def joined(one: JsonObject, other: JsonObject) -> dict[str, Any]:
    """The sketches of two lots of rows as those of all of them; groups stand side by side."""
    out: dict[str, Any] = {}
    for name in sorted({*one, *other}):
        parts = [part[name] for part in (one, other) if name in part]
        out[name] = {kind: _joined([part[kind] for part in parts]) for kind in ("campaign", "currency")}
    return out


def _joined(parts: Sequence[JsonObject]) -> dict[str, Any]:
    keys = sorted({key for part in parts for key in part})
    found = {key: [part[key] for part in parts if key in part] for key in keys}
    return {
        key: {"count": sum(s["count"] for s in sketches), "means": [group for s in sketches for group in s["means"]]}
        for key, sketches in found.items()
    }


def expected_value(sketches: JsonObject, outcome: str, campaign: Campaign, max_value: float | None) -> float:
    """E[min(value, max_value)] given that the outcome happened; 0 where no value was ever seen.

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


def _sketch(values: NDArray[np.float64]) -> dict[str, Any]:
    """Mean and size of at most ``SKETCH`` nearly equal groups of the sorted values."""
    parts = np.array_split(np.sort(values), min(SKETCH, len(values)))
    return {"count": len(values), "means": [[float(part.mean()), len(part)] for part in parts]}


def _clipped_mean(means: Sequence[Sequence[float]], max_value: float | None) -> float:
    table = np.asarray(means, dtype=np.float64)
    clipped = table[:, 0] if max_value is None else np.minimum(table[:, 0], max_value)
    return float(clipped @ table[:, 1] / table[:, 1].sum())
