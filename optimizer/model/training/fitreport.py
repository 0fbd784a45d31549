"""What a person would ask about a fit."""

from __future__ import annotations

from typing import Any

from optimizer.model.features import FeatureSpec
from optimizer.model.funnel import TITLES
from optimizer.model.training.fits import Fits
from optimizer.model.training.posterior import IDLE
from storage.records import JsonObject


def _readable(group: str, spec: FeatureSpec) -> str:
    """The name of a group of weights with its feature's name in place of the number; network columns keep theirs."""
    block, colon, owner = group.partition(":")
    if not colon or int(owner) >= len(spec.owners):
        return group
    return f"{block}:{spec.owners[int(owner)]}"


def fit_report(spec: FeatureSpec, fits: tuple[Fits, Fits], meta: JsonObject) -> dict[str, Any]:
    """It as JSON; ``meta`` is the artifact's."""
    heads = [
        {
            "kind": kind,
            "outcome": TITLES.get(name, name),
            "rows": posterior.rows,
            "positives": posterior.positives,
            "weights": fitted.layout.size,
            "in_use": len(posterior.live),
            # What comes before it, and how much of what is known of that is expected of it.
            "follows": {TITLES.get(one, one): round(share, 3) for one, share in fitted.links.get(name, {}).items()},
            "precision": {
                _readable(name, spec): round(float(value), 3)
                for (name, _), value in zip(fitted.layout.groups, posterior.precision, strict=True)
                if value < IDLE
            },
        }
        for kind, fitted in zip(("message", "no_send"), fits, strict=True)
        for name, posterior in sorted(fitted.posteriors.items())
    ]
    return {
        "rows": meta["rows"],
        "features": spec.describe(),
        "encoded_width": spec.width,
        "width": meta["width"],
        "products": [{**one, "outcome": TITLES.get(one["outcome"], one["outcome"])} for one in meta["products"]],
        "network": dict(meta["network"]),
        "rhythm": dict(meta.get("rhythm", {})),
        "encoder": dict(meta["encoder"]),
        "heads": heads,
    }
