"""Products of two features: found where they tell something, not where they don't, and encoded alike everywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from optimizer.model.examples import Examples
from optimizer.model.features import FeatureSpec, Product, fit_spec
from optimizer.model.inference import RewardModel
from optimizer.model.terms import Name, owner_name
from optimizer.model.training import products
from optimizer.model.training.actionparts import THROUGH
from optimizer.model.training.evaluate import log_likelihood, training_basis
from optimizer.model.training.lastlayer import fit_last_layer
from optimizer.model.training.options import DEFAULTS
from optimizer.model.training.posterior import IDLE
from optimizer.model.training.products import MOST, Found, find_products
from optimizer.model.training.table import tabulate
from optimizer.model.training.train import refresh, train
from tests.model.conftest import made_up

ROWS = 3_000


def people(rng: np.random.Generator, n: int) -> list[dict[str, Any]]:
    """Three numbers, a category and a boolean."""
    numbers, plan = rng.normal(size=(n, 3)), rng.choice(["free", "pro", "team"], n)
    member = rng.random(n) < 0.4
    return [
        {"age": float(a), "visits": float(b), "spend": float(c), "plan": str(p), "member": bool(m)}
        for (a, b, c), p, m in zip(numbers, plan, member, strict=True)
    ]


def clicks(examples: Examples, eta: NDArray[np.float64], rng: np.random.Generator) -> Examples:
    """The examples with clicks of these log odds alone."""
    happened = (rng.random(len(examples)) < 1.0 / (1.0 + np.exp(-eta))).astype(np.float64)
    return replace(examples, outcome={"clicked": np.where(examples.sent, happened, np.nan)}, value={})


def turned(n: int, seed: int) -> Examples:
    """Age and visits of the same sign make one variant liked, of different ones the other."""
    rng = np.random.default_rng(seed)
    told = people(rng, n)
    examples = replace(made_up(n, seed), contexts=told)
    together = np.sign([one["age"] * one["visits"] for one in told])
    return clicks(examples, np.where(examples.variant == 1, 0.9, -0.9) * together, rng)


def alone(n: int, recipients: int, seed: int) -> tuple[Examples, NDArray[np.float64]]:
    """Recipients with features that don't act together, and inclinations of their own that no feature tells; and the
    log odds by the features."""
    rng = np.random.default_rng(seed)
    who, told = rng.integers(0, recipients, n), people(rng, recipients)
    contexts = [told[i] for i in who.tolist()]
    examples = replace(made_up(n, seed), contexts=contexts, cluster=who)
    eta = np.array([0.5 * one["age"] + (one["plan"] == "pro") for one in contexts]) - 0.5
    return clicks(examples, eta + rng.normal(size=recipients)[who], rng), eta * 0.85


def found_in(
    examples: Examples, eta: NDArray[np.float64], working: products.Working | None = None
) -> tuple[Found, ...]:
    spec = fit_spec(examples.contexts, ())
    return find_products(examples, spec, spec.encode(examples.contexts), {"clicked": eta}, working or {})


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return RewardModel.load(train(turned(ROWS, 1), attributes=(), seed=1).blob)


def test_what_acts_together_is_found_and_nothing_else() -> None:
    examples = turned(ROWS, 2)
    (pair,) = found_in(examples, np.zeros(ROWS))
    assert (pair.left, pair.right, pair.outcome, pair.through) == ("age", "visits", "clicked", "variant")
    assert pair.chance < 1e-6
    spec = fit_spec(examples.contexts, ())
    (product,) = pair.products
    assert [spec.labels[place] for place in (product.left, product.right)] == ["age.rank", "visits.rank"]


def test_levels_are_multiplied_each() -> None:
    rng = np.random.default_rng(3)
    examples = replace(made_up(ROWS, 3), contexts=people(rng, ROWS))
    bent = np.array([one["age"] * {"free": -0.8, "pro": 0.8, "team": 0.0}[one["plan"]] for one in examples.contexts])
    (pair,) = found_in(clicks(examples, bent, rng), np.zeros(ROWS))
    assert (pair.left, pair.right, pair.through) == ("age", "plan", "level")
    spec = fit_spec(examples.contexts, ())
    assert {spec.labels[one.right] for one in pair.products} == {"plan.=free", "plan.=pro", "plan.=team"}


def test_by_time_too() -> None:
    rng = np.random.default_rng(4)
    examples = replace(made_up(ROWS, 4), contexts=people(rng, ROWS))
    morning = np.cos(examples.local / 86_400 * 2 * np.pi)
    late = np.array([one["spend"] * (1.0 if one["member"] else -1.0) for one in examples.contexts])
    (pair,) = found_in(clicks(examples, late * morning, rng), np.zeros(ROWS))
    assert (pair.left, pair.right, pair.through) == ("member", "spend", "time")


def faint(seed: int) -> Examples:
    """Age moves people through the day, a little, and one way for members and the other for the rest."""
    rng = np.random.default_rng(seed)
    examples = replace(made_up(ROWS, seed), contexts=people(rng, ROWS))
    morning = np.cos(examples.local / 86_400 * 2 * np.pi)
    bent = np.array([one["age"] * (0.17 if one["member"] else -0.17) for one in examples.contexts])
    return clicks(examples, bent * morning, rng)


def test_of_a_feature_at_work_a_fainter_pair_is_enough() -> None:
    alone, at_work, elsewhere = 0, 0, 0
    for seed in range(12):
        examples, none = faint(seed), np.zeros(ROWS)
        alone += any(one.through == "time" for one in found_in(examples, none))
        at_work += any(
            (one.left, one.right, one.through) == ("age", "member", "time")
            for one in found_in(examples, none, {("clicked", "time"): frozenset({"age"})})
        )
        elsewhere += any(
            one.through == "time" for one in found_in(examples, none, {("clicked", "level"): frozenset({"age"})})
        )
    assert at_work >= alone + 2
    assert elsewhere == alone


def test_a_feature_at_work_lets_in_by_chance_no_more_than_is_said() -> None:
    working = {("clicked", through): frozenset({"age", "plan"}) for through in THROUGH}
    repeated = [found_in(*alone(1_500, 300, seed), working) for seed in range(60)]
    assert sum(map(bool, repeated)) <= 26, "at 25 and 5 % in less than one of a hundred tests"


def test_what_was_found_does_not_rest() -> None:
    """Many small weights tell much together, while each is as small as what noise has."""
    examples = turned(ROWS, 2)
    groups = {}
    for through in ("variant", "channel"):
        spec = fit_spec(examples.contexts, ())
        (pair,) = found_in(examples, np.zeros(ROWS))
        asked = tuple(replace(one, through=through) for one in pair.products)
        spec = replace(spec, products=asked)
        table = tabulate(examples, spec.encode(examples.contexts), spec, training_basis(examples))
        fits, _ = fit_last_layer(table)
        owner = spec.owners.index("age × visits")
        at = {name.partition(":")[0]: i for i, (name, _) in enumerate(fits.layout.groups) if name.endswith(f":{owner}")}
        precision = fits.posteriors["clicked"].precision
        groups[through] = {block: float(precision[i]) for block, i in at.items()}
    assert groups["variant"]["channel*plain"] == IDLE, "nothing is there"
    assert groups["channel"]["channel*plain"] <= DEFAULTS.shape / DEFAULTS.rate, (
        "nothing is there, but it was asked for"
    )


def test_what_does_not_act_together_is_seldom_found_though_recipients_differ() -> None:
    repeated = [found_in(*alone(1_500, 300, seed)) for seed in range(60)]
    assert sum(map(bool, repeated)) <= 8, "at 5 % in less than one of a hundred tests"


@pytest.mark.parametrize(("n", "rate", "worlds", "most"), [(20_000, 0.01, 4, 1), (6_000, 0.02, 12, 3)])
def test_what_seldom_happens_is_no_finding_where_it_does_not(n: int, rate: float, worlds: int, most: int) -> None:
    found = 0
    for seed in range(worlds):
        rng = np.random.default_rng(seed)
        levels = [rng.choice(list("abcde"), n, p=[0.45, 0.25, 0.15, 0.1, 0.05]) for _ in range(2)]
        told = [{"plan": str(a), "country": str(b)} for a, b in zip(*levels, strict=True)]
        eta = np.full(n, np.log(rate / (1.0 - rate)))
        examples = clicks(replace(made_up(n, seed), contexts=told, cluster=np.arange(n)), eta, rng)
        found += bool(found_in(examples, eta))
    assert found <= most, "at 5 % in less than two of a hundred tests"


def test_chances_hold_where_recipients_are_few() -> None:
    rng = np.random.default_rng(5)
    first = np.arange(0, 120, 3)
    told = []
    for _ in range(1_000):
        shared = np.repeat(rng.normal(size=(40, 4)), 3, axis=0)
        told.append(products._chance(shared + rng.normal(size=(120, 4)), first))
    assert np.mean(told) == pytest.approx(0.5, abs=0.04)
    assert np.mean(np.array(told) < 0.05) == pytest.approx(0.05, abs=0.025)


def test_too_little_is_not_asked() -> None:
    examples = turned(400, 6)
    assert found_in(examples, np.zeros(400)) == ()
    rare = turned(ROWS, 6)
    clicked = np.where(np.cumsum(rare.outcome["clicked"] == 1.0) <= 40, rare.outcome["clicked"], 0.0)
    assert found_in(replace(rare, outcome={"clicked": clicked}), np.full(ROWS, -4.0)) == ()
    single = replace(rare, contexts=[{"age": one["age"]} for one in rare.contexts])
    assert found_in(single, np.zeros(ROWS)) == ()


def test_no_more_than_so_many_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "ERROR", 1e9)
    found = found_in(turned(ROWS, 7), np.zeros(ROWS))
    assert len(found) == MOST
    assert found[0].left == "age"
    assert [one.chance for one in found] == sorted(one.chance for one in found)


def test_what_comes_with_pairs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    told = people(np.random.default_rng(10), 2_000)
    for i, one in enumerate(told):
        one |= {f"level{k}": str((i * (k + 3)) % 7) for k in range(20)}
    spec = fit_spec(told, ())
    features = len(spec.columns)
    every = products._pairs(spec)
    assert len(every) == features * (features - 1) // 2
    assert max(len(pair.places) for pair in every) == products.LEVELS**2
    monkeypatch.setattr(products, "MOST_PRODUCTS", 1_000)
    fewer = products._pairs(spec)
    assert len(fewer) == len(every)
    assert 500 < sum(len(pair.places) for pair in fewer) <= 1_000
    found = [Found("a", "b", "clicked", "level", 0.0, (Product(0, 1, 0.0, 1.0),) * size) for size in (25, 20, 15, 1)]
    assert [len(one.products) for one in products._as_fit(found)] == [25, 15]
    examples = turned(ROWS, 11)
    monkeypatch.setattr(products, "WORK", 1.0)
    (pair,) = found_in(examples, np.zeros(ROWS))
    assert pair.left == "age", "from fewer rows"


def test_levels_that_seldom_meet_are_not_blown_up() -> None:
    seldom = np.zeros((5_000, 2))
    seldom[:3] = 1.0
    (product,) = products._Pair("a", "b", ((0, 1),)).as_products(seldom, "level")
    assert product.scale == 0.25


def test_a_spec_with_products_encodes_a_row_as_many_and_lasts() -> None:
    told = people(np.random.default_rng(8), 300)
    single = fit_spec(told, ())
    spec = replace(single, products=(Product(1, 0, 0.25, 2.0), Product(0, single.width - 1, -0.5, 0.5, "time")))
    many = spec.encode(told)
    assert np.array_equal(many, np.stack([spec.encode_row(one) for one in told]))
    assert np.array_equal(many[:, : single.width], single.encode(told))
    parts = np.stack([single.encode(told)[:, i].astype(np.float64) for i in (0, 1, single.width - 1)])
    assert many[:, -2] == pytest.approx((parts[1] * parts[0] - 0.25) / 2.0, abs=1e-5)
    assert many[:, -1] == pytest.approx((parts[0] * parts[2] + 0.5) / 0.5, abs=1e-5)
    assert spec.encode([{}]).shape == (1, spec.width) == (1, single.width + 2)
    again = FeatureSpec.from_json(orjson.loads(orjson.dumps(spec.to_json())))
    assert again == spec
    assert again.hash == spec.hash != single.hash
    stored = [[1, 0, 0.25, 2.0], [0, single.width - 1, -0.5, 0.5, "time"]]
    assert spec.to_json()["products"] == stored, "the hash of a stored spec must not change"
    assert "products" not in single.to_json(), "the hash of a stored spec must not change"
    assert len(spec.owner) == len(spec.labels) == spec.width
    assert spec.owners[spec.owner[-1]] == f"{single.columns[0].name} × {single.columns[-1].name}"
    assert spec.plain[-2:] == (single.width, single.width + 1)


def test_a_model_that_has_found_a_pair_predicts_by_it_and_says_so(model: RewardModel) -> None:
    told = model.artifact_meta["products"]
    assert [(one["features"], one["through"]) for one in told] == [(["age", "visits"], "variant")]
    entry = model.spec.describe()[-1]
    assert entry == {"name": "age × visits", "type": "product", "numbers": ["age.rank × visits.rank"]}
    last = model.spec.width - 1
    assert owner_name(model.spec, last) == Name("product", "age × visits")
    assert owner_name(model.spec, 0) == Name("attribute", "age")
    fresh = turned(1_000, 9)
    additive = RewardModel.load(train(turned(ROWS, 1), attributes=(), seed=1, network=False).blob)
    assert not additive.spec.products
    gain = log_likelihood(model, fresh)["clicked"] - log_likelihood(additive, fresh)["clicked"]
    assert float(np.nanmean(gain)) > 0.05
    newer = RewardModel.load(refresh(train(turned(ROWS, 1), attributes=(), seed=1).blob, turned(ROWS, 1)).blob)
    assert newer.spec == model.spec
    assert newer.artifact_meta["products"] == told
