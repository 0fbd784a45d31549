"""Made-up workspaces: small enough to enumerate, with planted effects where a test needs one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from optimizer.model.examples import Examples
from storage.records import Campaign, Channel, OutcomeWeight, Variant

MONDAY = 4 * 86_400
NOW = datetime(2026, 1, 5, tzinfo=UTC)


def campaign(campaign_id: str = "spring", **changes: Any) -> Campaign:
    """Three variants (one without training rows in ``made_up``), two channels with costs."""
    fields: dict[str, Any] = {
        "variants": (
            Variant("a", features={"tone": "warm", "discount": 0.1}, text="Spring is here", cost=0.01),
            Variant("b", features={"tone": "cold", "discount": 0.3}, text="Last chance to save"),
            Variant("new", features={"tone": "warm", "discount": 0.2}, text="Spring is here again"),
        ),
        "channels": (Channel("email", 0.001), Channel("sms", 0.03)),
        "objective": {
            "clicked": OutcomeWeight(1.0),
            "converted": OutcomeWeight(0.5, per_value=0.1, max_value=50.0),
            "unsubscribed": OutcomeWeight(-5.0),
            "unheard_of": OutcomeWeight(3.0),
        },
    }
    return Campaign("w", campaign_id, created_at=NOW, updated_at=NOW, **(fields | changes))


def contexts(rng: np.random.Generator, n: int) -> list[dict[str, Any]]:
    """Numbers, a category, a boolean, with gaps."""
    age, plan = rng.normal(40.0, 12.0, n), rng.choice(["free", "pro", "team"], n)
    member, gap = rng.random(n) < 0.4, rng.random(n) < 0.1
    return [
        {"age": float(age[i]), "plan": str(plan[i]), "member": bool(member[i]), "visits": int(i % 7)}
        | ({} if gap[i] else {"spend": float(np.exp(rng.normal()))})
        for i in range(n)
    ]


def made_up(n: int, seed: int, *, owner: Campaign | None = None, no_send: float = 0.2) -> Examples:
    """n rows over two campaigns with weak effects in every outcome; some outcomes unknown."""
    rng = np.random.default_rng(seed)
    owners = (owner or campaign(), campaign("autumn"))
    sent = rng.random(n) >= no_send
    which = (rng.random(n) < 0.3).astype(np.int64)
    variant = np.where(sent, rng.integers(0, 2, n), -1)
    channel = np.where(sent, rng.integers(0, 2, n), -1)
    people = contexts(rng, n)
    age = np.array([person["age"] for person in people])
    local = MONDAY + rng.integers(0, 7 * 24, n) * 3600 + rng.integers(0, 3600, n)
    eta = -1.0 + 0.03 * (age - 40.0) * np.where(variant == 1, 1.0, -0.5) + 0.5 * np.cos(local / 86_400 * 2 * np.pi)
    happened = {
        "clicked": np.where(sent, (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float), np.nan),
        "converted": np.where(rng.random(n) < 0.1, np.nan, (rng.random(n) < 0.15 + 0.1 * sent).astype(float)),
        "unsubscribed": np.where(sent, (rng.random(n) < 0.02).astype(float), np.nan),
    }
    value = np.where(happened["converted"] == 1.0, np.exp(rng.normal(3.0, 1.0, n)), np.nan)
    return Examples(
        people, owners, which, variant, channel, local, happened, {"converted": value}, rng.integers(0, n, n)
    )


def dearer(examples: Examples) -> Examples:
    """The same rows, whose orders are three times as dear after the second variant."""
    times = np.where(examples.variant == 1, 3.0, 1.0)
    return replace(examples, value={name: value * times for name, value in examples.value.items()})


Maker = Callable[..., Examples]


@pytest.fixture(scope="session")
def make_examples() -> Maker:
    """``made_up``."""
    return made_up
