"""Numbers of variants, such as prices: their unit moves nothing, and they drown nothing that stands beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from optimizer.bandit.actions import ActionSpace
from optimizer.model.artifact import pack
from optimizer.model.examples import Examples
from optimizer.model.inference import RewardModel
from optimizer.model.training.train import train
from optimizer.model.variantbasis import fit_basis
from optimizer.model.variantfeatures import fit_scales, variant_features
from storage.records import Campaign, Channel, OutcomeWeight, Variant
from tests.model.conftest import MONDAY, campaign

PRICES = (5.0, 20.0, 200.0, 800.0)


def described(*features: dict[str, Any]) -> tuple[Variant, ...]:
    return tuple(Variant(f"v{i}", features=one) for i, one in enumerate(features))


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    variants = described(one, other)
    scales = fit_scales(variants)
    return float(np.linalg.norm(np.subtract(*(variant_features(variant, scales) for variant in variants))))


def test_the_unit_of_a_price_moves_nothing() -> None:
    euros, cents = (described(*({"price": factor * one} for one in PRICES)) for factor in (1.0, 100.0))
    found = [np.abs([fit_basis(all_).coordinates(one) for one in all_]) for all_ in (euros, cents)]
    assert found[0] == pytest.approx(found[1], abs=0.05)
    assert found[0].max() > 0.5


def test_large_numbers_drown_no_category() -> None:
    beside = {"price": 1_999.0, "stock": 100_000, "weight": 1_500.0}
    alone = distance({"kind": "shoes"}, {"kind": "hats"})
    assert distance({**beside, "kind": "shoes"}, {**beside, "kind": "hats"}) == pytest.approx(alone)
    other = {"price": 19.0, "stock": 10, "weight": 15.0}
    assert distance({**beside, "kind": "shoes"}, {**other, "kind": "hats"}) > 0.9 * alone


def test_prices_are_told_apart_in_order_and_beyond_the_known_as_its_end() -> None:
    basis = fit_basis(described(*({"price": one} for one in PRICES)))
    placed = [basis.coordinates(Variant("new", features={"price": one}))[0] for one in (-3.0, 5.0, 60.0, 800.0, 1e9)]
    steps = np.diff(placed) * np.sign(placed[-1] - placed[0])
    assert steps == pytest.approx([0.0, steps[1], steps[2], 0.0])
    assert min(steps[1:3]) > 0.3


def test_small_numbers_stay_what_they_are() -> None:
    small = described(*({"saving": one, "discount": -one} for one in (0.0, 0.5, 1.0, 1.7)))
    assert fit_scales(small) == {}
    assert fit_scales(described({"saving": 0.5}, {"saving": True}, {"saving": "2000"})) == {}


def dear_and_cheap(variants: tuple[Variant, ...]) -> tuple[Campaign, RewardModel]:
    """A model of rows in which the rich click on what is dear, the others on what is cheap."""
    rng, n = np.random.default_rng(0), 900
    rich, variant = rng.integers(0, 2, n), rng.integers(0, len(variants), n)
    eta = -0.5 + 1.2 * np.array([-1.0, -0.5, 0.5, 1.0])[variant] * np.where(rich == 1, 1.0, -1.0)
    shop = campaign(variants=variants, channels=(Channel("email"),), objective={"clicked": OutcomeWeight(1.0)})
    zero, local = np.zeros(n, np.int64), MONDAY + rng.integers(0, 168, n) * 3_600
    clicked = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    contexts = [{"rich": bool(one)} for one in rich]
    rows = Examples(contexts, (shop,), zero, variant, zero, local, {"clicked": clicked}, {}, np.arange(n))
    trained = train(rows, attributes=(), seed=1, network=False, calibrated=False)
    return shop, RewardModel.load(trained.blob)


def test_a_new_variant_is_known_by_its_price_alone() -> None:
    new = (Variant("cheap", features={"price": 3.0}), Variant("dear", features={"price": 1_500.0}))
    known = described(*({"price": one} for one in PRICES))
    shop, model = dear_and_cheap(known)
    at = np.array([MONDAY + 10 * 3_600])
    space = ActionSpace(("cheap", "dear"), ("email",), at, at, False)
    wider = campaign(variants=(*known, *new), channels=shop.channels, objective=shop.objective)
    rich, other = (model.score(model.embed([{"rich": one}])[0], space, wider, {}).reward for one in (True, False))
    assert rich[1] - rich[0] > 0.3
    assert other[0] - other[1] > 0.3


def test_a_model_of_before_reads_numbers_as_it_was_taught() -> None:
    _, model = dear_and_cheap(described(*({"price": one} for one in PRICES)))
    arrays: dict[str, Any] = {"basis.mean": model.basis.mean, "basis.directions": model.basis.directions}
    for prefix, heads in (("message", model.message), ("no_send", model.no_send)):
        arrays |= heads.save(prefix)[0]
    meta = {name: value for name, value in model.artifact_meta.items() if name != "variant_numbers"}
    former = RewardModel.load(pack(model.graph, arrays, meta))
    middling = Variant("middling", features={"price": 20.0})
    assert former.basis.coordinates(middling) == pytest.approx(
        tuple((variant_features(middling).astype(float) - model.basis.mean) @ model.basis.directions)
    )
    assert former.basis.coordinates(middling) != model.basis.coordinates(middling)
