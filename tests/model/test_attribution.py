"""Contributions add up to the difference of two scores, by names that say what they are of."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.rewards import LOOKED
from optimizer.model.attribution import between_messages, over_no_send
from optimizer.model.copywords import Token, token_coordinates, token_vectors
from optimizer.model.examples import Examples
from optimizer.model.features import fit_spec
from optimizer.model.history import HISTORY, History, Past
from optimizer.model.inference import RewardModel
from optimizer.model.learnedparts import learned_parts
from optimizer.model.terms import LEVEL, Name, Seen, message_terms, no_send_terms
from optimizer.model.training import train as training
from optimizer.model.training.encoders import ENCODERS
from optimizer.model.training.gate import EncoderVerdict, Judged, NetworkVerdict
from optimizer.model.training.network import Network
from optimizer.model.variantfeatures import variant_features
from storage.records import Campaign, Variant
from tests.model.conftest import MONDAY, campaign, contexts, dearer, made_up

SHOP = campaign()
LOCAL = MONDAY + np.arange(0, 7 * 86_400, 6 * 3_600, dtype=np.int64) + 600
SPACE = ActionSpace(("a", "b", "new"), ("email", "sms"), LOCAL, LOCAL, True)
VARIANTS = {variant.id: variant for variant in SHOP.variants}


def story(rng: np.random.Generator) -> dict[str, Any]:
    """What a recipient did lately."""
    ages = np.sort(rng.integers(1, 20_000, int(rng.integers(0, 9))))[::-1].tolist()
    kinds = rng.choice(["viewed", "sent", "clicked"], len(ages)).tolist()
    events = tuple(Past(age, kind, "shoes" if kind == "viewed" else "") for age, kind in zip(ages, kinds, strict=True))
    return {HISTORY: History(events).to_json()} if events else {}


def people(seed: int, n: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [{**one, **story(rng)} for one in contexts(rng, n)]


def rows(n: int = 1_500) -> Examples:
    examples = dearer(made_up(n, 4))
    rng = np.random.default_rng(5)
    return dataclasses.replace(examples, contexts=[{**one, **story(rng)} for one in examples.contexts])


@pytest.fixture(scope="module")
def linear() -> RewardModel:
    return RewardModel.load(training.train(rows(), attributes=(), seed=4, network=False, calibrated=False).blob)


@pytest.fixture(scope="module")
def looking() -> RewardModel:
    """A model whose clicks come after looks."""
    examples = rows()
    clicked = examples.outcome["clicked"]
    looked = np.where(np.random.default_rng(6).random(len(examples)) < 0.4, 1.0, clicked)
    outcome = {**examples.outcome, LOOKED: np.where(np.isnan(clicked), np.nan, looked)}
    told = dataclasses.replace(examples, outcome=outcome)
    model = RewardModel.load(training.train(told, attributes=(), seed=4, network=False, calibrated=False).blob)
    assert LOOKED in model.message.outcomes
    return model


@pytest.fixture(scope="module")
def networked() -> RewardModel:
    """A model whose network and encoder have random weights, let in without a test of their worth."""
    examples = rows()
    spec = fit_spec(examples.contexts, ())
    assert spec.history is not None
    generator = torch.Generator().manual_seed(3)
    network, reader = Network(spec.width, generator), ENCODERS["gru"](spec.history.size, generator)
    with torch.no_grad():
        network.first.bias.normal_(std=0.5, generator=generator)
        reader.out.weight.normal_(std=0.5, generator=generator)
    reader.train(mode=False)
    encoder = EncoderVerdict(reader, "gru", 1.0, 9.0, 9, "", {})
    found = Judged(spec, (), NetworkVerdict(network, 1.0, 9.0, 9, ""), encoder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "judge_columns", lambda *_, **__: found)
        model = RewardModel.load(training.train(examples, attributes=(), seed=4, calibrated=False).blob)
    # Training sets random columns to rest; here they matter, each for each unit of its own.
    mean = model.message.mean.copy()
    for block in model.message.layout.blocks:
        if block.segment == "network":
            part = slice(block.start, block.start + block.size)
            mean[:, part] = np.random.default_rng(block.start).normal(scale=0.2, size=mean[:, part].shape)
    model._message = dataclasses.replace(model.message, mean=mean)
    return model


@dataclasses.dataclass
class Case:
    """A context before a model."""

    model: RewardModel
    context: dict[str, Any]
    effects: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        x = self.model.embed([self.context])[0]
        parts = learned_parts(self.model.embedder, self.context, x)
        self.seen = Seen(x.astype(np.float64), parts, self.effects)
        self.reward = self.model.score(x, SPACE, SHOP, self.effects).reward

    def shares(self, one: int, other: int) -> dict[Name, float]:
        """What each name adds to the expected outcomes of one action over another's; ``one`` is a message."""
        terms = [terms_of(self.model, self.seen, action) for action in (one, other)]
        if other == SPACE.no_send_index:
            return over_no_send(self.model, SHOP, said(one), *terms)
        return between_messages(self.model, SHOP, (said(one), said(other)), *terms)

    def outcomes_only(self, action: int) -> float:
        """The score of an action without its cost."""
        at = SPACE.factors(action)
        cost = 0.0 if at is None else VARIANTS[SPACE.variants[at[0]]].cost + SHOP.channels[at[2]].cost
        return float(self.reward[action]) + cost


def shares(model: RewardModel, context: dict[str, Any], one: int, other: int) -> dict[Name, float]:
    return Case(model, context).shares(one, other)


def said(action: int) -> str:
    """The variant of a message."""
    at = SPACE.factors(action)
    assert at is not None
    return SPACE.variants[at[0]]


def terms_of(model: RewardModel, seen: Seen, action: int, shop: Campaign = SHOP) -> dict[Name, np.ndarray[Any, Any]]:
    at = SPACE.factors(action)
    if at is None:
        return no_send_terms(model, seen, shop.campaign_id)
    variant = VARIANTS[SPACE.variants[at[0]]]
    return message_terms(model, seen, shop.campaign_id, variant, SPACE.channels[at[2]], int(LOCAL[at[1]]))


@pytest.mark.parametrize("kind", ["linear", "looking", "networked"])
def test_contributions_add_up_on_a_thousand_random_decisions(kind: str, request: pytest.FixtureRequest) -> None:
    rng = np.random.default_rng(8)
    worst, path = 0.0, 0.0
    for context in people(7, 40):
        case = Case(request.getfixturevalue(kind), context)
        for rival in (*rng.integers(SPACE.messages, size=20).tolist(), *[SPACE.messages] * 5):
            one = int(rng.integers(SPACE.messages))
            found = case.shares(one, rival)
            expected = case.outcomes_only(one) - case.outcomes_only(rival)
            worst = max(worst, abs(sum(found.values()) - expected))
            size = sum((abs(share) for share in found.values()), 1e-12)
            path = max(path, sum(abs(share) for name, share in found.items() if name.kind == "residual") / size)
    assert worst < 1e-6
    assert path <= (5e-3 if kind == "networked" else 0.0), "what is left of the network's path, as a share of it all"


def test_an_outcome_that_is_worth_more_after_a_variant_says_so(linear: RewardModel) -> None:
    """Planted: orders are three times as dear after the second."""
    first, second = (SPACE.index(variant, 0, 0) for variant in (0, 1))
    dearer = shares(linear, people(9, 1)[0], second, first)[Name("value", "converted")]
    assert dearer > 0.0
    assert shares(linear, people(9, 1)[0], first, second)[Name("value", "converted")] == -dearer
    assert Name("value", "clicked") not in shares(linear, people(9, 1)[0], second, first)


def test_the_terms_of_a_logit_are_the_logit(linear: RewardModel) -> None:
    context = people(1, 1)[0]
    x = linear.embed([context])[0]
    seen = Seen(x.astype(np.float64), None, {})
    scores = linear.score(x, SPACE, SHOP, {})
    for action in (0, 17, SPACE.messages):
        found = terms_of(linear, seen, action)
        heads = linear.no_send if action == SPACE.messages else linear.message
        chance = 1.0 / (1.0 + np.exp(-sum(found.values())))
        for k, outcome in enumerate(heads.outcomes):
            assert chance[k] == pytest.approx(scores.outcome[outcome][action], abs=1e-9)


def test_names_say_which_feature_acts_through_what(linear: RewardModel) -> None:
    context = {**people(1, 1)[0], "age": 71.0}
    between_variants = shares(linear, context, SPACE.index(0, 3, 0), SPACE.index(1, 3, 0))
    kinds = {name.kind for name in between_variants}
    assert {"variant", "copy", "attribute", "hour"} <= kinds
    assert Name("attribute", "age", "variant") in between_variants
    assert Name("copy", "tone=warm") in between_variants
    assert Name("copy", "“spring”") in between_variants
    assert between_variants[Name("attribute", "age")] == 0.0, "what is alike for both messages says nothing"
    between_times = shares(linear, context, SPACE.index(0, 3, 0), SPACE.index(0, 4, 0))
    moved = {name for name, share in between_times.items() if share != 0.0}
    assert {name.kind for name in moved} <= {"hour", "weekday", "attribute"}
    assert all(name.through == "time" for name in moved if name.kind == "attribute")


def test_a_planted_effect_has_the_largest_share(linear: RewardModel) -> None:
    """In ``made_up`` age moves the clicks of variant b up and of variant a down."""
    found = shares(linear, {"age": 75.0, "plan": "pro"}, SPACE.index(1, 3, 0), SPACE.index(0, 3, 0))
    of_context = {name: share for name, share in found.items() if name.kind == "attribute"}
    assert max(of_context, key=lambda name: of_context[name]) == Name("attribute", "age", "variant")


def test_sending_at_all_stands_beside_what_moves_it(linear: RewardModel) -> None:
    found = shares(linear, people(1, 1)[0], SPACE.index(0, 3, 0), SPACE.messages)
    assert found[LEVEL] != 0.0
    assert any(name.kind == "channel" for name in found)


def test_a_recipients_own_hours_are_told(linear: RewardModel) -> None:
    x = linear.embed([{}])[0]

    class Nightly:
        """A rhythm that adds 2 at midnight and nothing else."""

        def shift(self, outcomes: tuple[str, ...], effects: Any, local: Any) -> Any:
            del effects
            return np.full((len(outcomes), 1), 2.0 * (local[0] % 86_400 < 3_600))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "_rhythm", Nightly())
        seen = Seen(x.astype(np.float64), None, {})
        night, noon = (terms_of(linear, seen, SPACE.index(0, slot, 0)) for slot in (0, 2))
    assert night[Name("rhythm", "the recipient's own hours")].tolist() == [2.0] * len(linear.outcomes)
    assert noon[Name("rhythm", "the recipient's own hours")].tolist() == [0.0] * len(linear.outcomes)


def test_learned_columns_are_told_apart_by_feature_and_history(networked: RewardModel) -> None:
    context = next(one for one in people(3, 50) if HISTORY in one)
    x = networked.embed([context])[0]
    parts = learned_parts(networked.embedder, context, x)
    assert parts is not None
    whole = parts.average[0] + parts.by_owner.sum(axis=0) + parts.history[0] + parts.residual
    assert whole == pytest.approx(x[networked.spec.width :].astype(np.float64), abs=1e-6)
    assert np.abs(parts.residual).max() < 0.02 * np.abs(x[networked.spec.width :]).max()
    assert np.abs(parts.history[0, :16]).max() < 1e-5, "the network doesn't read the order"
    assert np.abs(parts.history[0, 16:]).max() > 0.01, "the encoder does"
    assert learned_parts(networked.embedder, {}, networked.embed([{}])[0]) is not None


def test_a_model_without_learned_columns_has_no_parts_to_tell_apart(linear: RewardModel) -> None:
    assert learned_parts(linear.embedder, {}, linear.embed([{}])[0]) is None


@pytest.mark.parametrize(
    "variant",
    [
        SHOP.variants[0],
        Variant("x", features={"n": -3, "flag": True, "list": [1]}, text="Sale sale SALE: ünïcode"),
        Variant("empty"),
    ],
)
def test_tokens_add_up_to_the_variant(variant: Variant, linear: RewardModel) -> None:
    vectors = token_vectors(variant)
    assert sum(vectors.values(), np.zeros(32)) == pytest.approx(variant_features(variant).astype(np.float64), abs=1e-6)
    parts, rest = token_coordinates(variant, linear.basis)
    whole = sum(parts.values(), np.zeros(linear.basis.width)) + rest
    assert whole == pytest.approx(np.array(linear.basis.coordinates(variant)))
    if variant.id == "x":
        assert Token("word", "sale sale") in vectors
        assert Token("feature", "flag=true") in vectors
