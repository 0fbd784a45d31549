"""Training: planted effects come back, precisions stay in bounds, tiny and one-sided data work, refreshes agree."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.bandit.actions import ActionSpace
from optimizer.errors import BadArtifact, Invalid
from optimizer.model import artifact
from optimizer.model.examples import NO_SEND, Examples
from optimizer.model.history import HISTORY, History, Past
from optimizer.model.inference import RewardModel
from optimizer.model.layingout import MAX_RESTLESS, MAX_WEIGHTS, build_layout
from optimizer.model.layout import CONTEXTUAL, MESSAGE_BLOCKS, Action, Layout, variant_key
from optimizer.model.training import posterior
from optimizer.model.training.options import DEFAULTS, TrainOptions, learned_from, outgrown
from optimizer.model.training.posterior import FIXED, IDLE, LOWEST, NEARLY, fit_posterior
from optimizer.model.training.rows import Design, RowSet, message_layout
from optimizer.model.training.threads import asked_for
from optimizer.model.training.train import Trained, refresh, train, width_factor
from optimizer.model.variantbasis import fit_basis
from storage.records import Campaign, Channel, OutcomeWeight, Variant
from tests.model.conftest import MONDAY, NOW, Maker, campaign, made_up

NOON = np.array([MONDAY + 43_200], dtype=np.int64)


def planted(n: int, seed: int) -> tuple[Campaign, Examples]:
    """Variant a clicks .35 for members and .10 for others, b the other way round; evenings .08 above mornings."""
    rng = np.random.default_rng(seed)
    owner = Campaign(
        "w", "c", (Variant("a"), Variant("b")), (Channel("email"),), NOW, NOW, objective={"clicked": OutcomeWeight(1.0)}
    )
    member, variant = rng.random(n) < 0.5, rng.integers(0, 2, n)
    evening = rng.random(n) < 0.5
    chance = np.where(member == (variant == 0), 0.35, 0.10) + 0.08 * evening
    return owner, Examples(
        [{"member": bool(m)} for m in member],
        (owner,),
        np.zeros(n, dtype=np.int64),
        variant,
        np.zeros(n, dtype=np.int64),
        MONDAY + rng.integers(0, 7, n) * 86_400 + np.where(evening, 20, 8) * 3_600,
        {"clicked": (rng.random(n) < chance).astype(np.float64)},
        {},
        np.arange(n),
    )


def test_planted_effects_come_back() -> None:
    """Over 200 other seeds the largest error of the eight cells never passed .0620, so .07 fails by chance in at most
    1.5 of 100 worlds (95 % bound for none in 200); the seed is fixed."""
    owner, examples = planted(12_000, 11)
    model = RewardModel.load(train(examples, attributes=(), seed=0, network=False).blob)
    local = MONDAY + np.array([8 * 3_600, 20 * 3_600], dtype=np.int64)
    space = ActionSpace(("a", "b"), ("email",), local, local, False)
    for member in (True, False):
        clicked = model.score(model.embed([{"member": member}])[0], space, owner, {}).outcome["clicked"]
        a = 0.35 if member else 0.10
        assert np.abs(clicked - np.array([a, a + 0.08, 0.45 - a, 0.53 - a])).max() < 0.07


def test_what_was_bought_speaks_for_a_new_variant_with_the_same_feature() -> None:
    """Who bought shoes likes the two variants about them; a third one that nobody has got is for the same people."""
    rng = np.random.default_rng(3)
    topics = ("coats", "hats", "shoes", "bags")
    known = tuple(Variant(f"v{i}", features={"topic": topics[i % 4]}) for i in range(6))
    bought, variant = rng.integers(0, 4, 3_000), rng.integers(0, 6, 3_000)
    contexts = [{HISTORY: History((Past(600, "bought", topic),)).to_json()} for topic in topics]
    owner = dataclasses.replace(campaign(), variants=known)
    examples = Examples(
        [contexts[i] for i in bought],
        (owner,),
        np.zeros(3_000, dtype=np.int64),
        variant,
        np.zeros(3_000, dtype=np.int64),
        MONDAY + rng.integers(0, 168, 3_000) * 3_600,
        {"clicked": (rng.random(3_000) < np.where(bought == variant % 4, 0.4, 0.1)).astype(np.float64)},
        {},
        np.arange(3_000),
    )
    model = RewardModel.load(train(examples, attributes=(), seed=1).blob)
    new = dataclasses.replace(owner, variants=(*known, Variant("new", features={"topic": "shoes"})))
    space = ActionSpace(("new",), (owner.channels[0].id,), NOON, NOON, no_send=False)
    chances = []
    for context in contexts:
        told = model.score(model.embed([context])[0], space, new, {}).chances.of("clicked")
        assert told is not None
        chances.append(float(told[0, 0]))
    assert chances[2] > 0.3
    assert max(chances[0], chances[1], chances[3]) < 0.2


def test_a_long_log_is_fitted_from_where_the_judges_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    owner, examples = planted(6_000, 12)
    local = MONDAY + np.array([8 * 3_600, 20 * 3_600], dtype=np.int64)
    space = ActionSpace(("a", "b"), ("email",), local, local, False)

    def clicks() -> NDArray[np.float64]:
        model = RewardModel.load(train(examples, attributes=(), seed=0).blob)
        people = [model.embed([{"member": member}])[0] for member in (True, False)]
        return np.array([model.score(person, space, owner, {}).outcome["clicked"] for person in people])

    short = clicks()
    monkeypatch.setattr("optimizer.model.training.train.PILOT_FROM", 2_000)
    long = clicks()
    assert np.abs(long - short).max() < 0.005
    assert not np.array_equal(long, short), "the judges' fits were not begun from"


def test_draws_cover_the_truth_about_as_often_as_they_say() -> None:
    """Undone for the width factor, draws are posterior draws: over 40 seeds the truth lies within two of their standard
    deviations in ≥ 85 % (nominally 95 %; binomial chance of fewer under 95 % coverage: 3 in 1,000)."""
    inside = 0
    for seed in range(40):
        owner, examples = planted(800, 100 + seed)
        model = RewardModel.load(train(examples, attributes=(), seed=seed, network=False).blob)
        local = MONDAY + np.array([8 * 3_600], dtype=np.int64)
        space = ActionSpace(("a",), ("email",), local, local, False)
        scores = model.score(model.embed([{"member": True}])[0], space, owner, {})
        spread = float(scores.draws[:, 0].std()) / width_factor(800)
        inside += abs(float(scores.reward[0]) - 0.35) < 2.0 * spread
    assert inside >= 34


def test_whom_it_happens_to_is_shared_with_few_rows_that_were_not_sent() -> None:
    """Members convert at .40, others at .10, sent or not; 8 rows without a message can't show that alone."""
    rng = np.random.default_rng(17)
    owner, examples = planted(3_000, 17)
    member = np.array([row["member"] for row in examples.contexts])
    sent = np.arange(3_000) >= 8
    stayed = dataclasses.replace(
        examples,
        variant=np.where(sent, examples.variant, NO_SEND),
        channel=np.where(sent, 0, NO_SEND),
        outcome={"converted": (rng.random(3_000) < np.where(member, 0.40, 0.10)).astype(np.float64)},
    )
    model = RewardModel.load(train(stayed, attributes=(), seed=0, network=False).blob)
    space = ActionSpace(("a",), ("email",), NOON, NOON, True)
    member_chance, other_chance = (
        model.score(model.embed([{"member": truth}])[0], space, owner, {}).outcome["converted"][-1]
        for truth in (True, False)
    )
    assert member_chance > other_chance + 0.15


def test_the_width_factor_shrinks_to_a_floor() -> None:
    assert width_factor(0) == 0.5
    assert width_factor(7_500) == pytest.approx(0.25)
    assert width_factor(10**7) == 0.05


def test_learned_precisions_stay_in_bounds_and_noise_is_shrunk_harder(make_examples: Maker) -> None:
    report = train(make_examples(2_000, 5), attributes=(), seed=1, network=False).report
    assert {head["outcome"] for head in report["heads"] if head["follows"]} == {"converted", "unsubscribed"}
    for head in report["heads"]:
        options, may_rest = (DEFAULTS.of_differences(), "") if head["follows"] else (DEFAULTS, ":")
        for name, value in head["precision"].items():
            assert name in FIXED or value >= LOWEST
            if may_rest in name and name not in FIXED:
                assert value <= NEARLY * options.shape / options.rate  # else it would be idle
        assert head["in_use"] <= head["weights"]
    _, examples = planted(4_000, 3)
    rng = np.random.default_rng(0)
    noise = dataclasses.replace(examples, outcome={"clicked": rng.permutation(examples.outcome["clicked"])})
    true_head, null_head = (
        train(rows, attributes=(), seed=0, network=False).report["heads"][0] for rows in (examples, noise)
    )
    assert null_head["weights"] == true_head["weights"]
    assert "variant*plain:member" in true_head["precision"]
    assert not any(":" in name for name in null_head["precision"])


def _rows(examples: Examples) -> tuple[Design, NDArray[np.float64]]:
    n = len(examples)
    context = np.random.default_rng(1).standard_normal((n, 3)).astype(np.float32)
    actions = tuple(Action("c", variant, "email") for variant in ("a", "b"))
    rows = RowSet(np.arange(n), actions, examples.variant, context, examples.local)
    return Design(message_layout(rows, fit_basis([]), (0, 1), (0, 1, 1)), rows), examples.outcome["clicked"]


def test_derivatives_equal_those_of_dense_rows() -> None:
    _, examples = planted(200, 2)
    design, outcome = _rows(examples)
    outcome = outcome.copy()
    outcome[::7] = np.nan
    size = design.layout.size
    weights = 0.1 * np.random.default_rng(5).standard_normal(size)
    dense = np.stack([design.logits(np.eye(size)[i]) for i in range(size)], axis=1)
    known = np.isfinite(outcome)
    eta = dense @ weights - 1.0
    p = 1.0 / (1.0 + np.exp(-eta))
    value, gradient, hessian = design.derivatives(weights, outcome, np.full(200, -1.0))
    y = outcome[known]
    assert value == pytest.approx(float((y * eta[known] - np.log1p(np.exp(eta[known]))).sum()), rel=1e-5)
    assert np.allclose(gradient, dense[known].T @ (y - p[known]), atol=1e-3)
    assert np.allclose(hessian, (dense[known].T * (p * (1 - p))[known]) @ dense[known], atol=1e-3)
    slope, information = design.slopes(weights, outcome, np.full(200, -1.0))
    assert np.allclose(slope, gradient, atol=1e-3)
    assert np.allclose(information, hessian.diagonal(), atol=1e-3)


@pytest.mark.parametrize("days", [7, 1])
def test_some_columns_of_base_rows_are_those_of_all(days: int) -> None:
    _, examples = planted(60, 2)
    local = MONDAY + np.random.default_rng(4).integers(0, days * 24, 60) * 3_600
    rng = np.random.default_rng(6)
    context = rng.standard_normal((60, 5)).astype(np.float32)
    actions = tuple(Action("c", variant, "email") for variant in ("a", "b"))
    rows = RowSet(np.arange(60), actions, examples.variant, context, local)
    layout = message_layout(rows, fit_basis([]), (0, 2), (0, 1, 1))
    whole = layout.base_rows(context, local)
    assert whole.shape == (60, layout.base)
    assert not np.any(np.all(whole == 0.0, axis=0)), "each column says something"
    for count in (0, 1, layout.base // 3, layout.base):
        columns = np.sort(rng.choice(layout.base, count, replace=False))
        assert np.array_equal(layout.base_rows(context, local, columns), whole[:, columns])


def test_a_pass_over_some_weights_is_the_same_where_rows_do_not_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    _, examples = planted(300, 2)
    fits, held = [], []
    for most in (60_000_000, 300 * 20, 0):  # all base rows are kept; those columns that are looked at; none
        monkeypatch.setattr("optimizer.model.training.rows.KEEP", most)
        design, outcome = _rows(examples)
        live = np.arange(0, design.layout.size, max(2, design.layout.size // 7))
        weights = np.zeros(design.layout.size)
        weights[live] = 0.1
        fits.append(design.derivatives(weights, outcome, np.full(300, -1.0), live=live))
        held.append((design._whole.kept is not None, design._part.kept is not None))
    assert held == [(True, True), (False, True), (False, False)]
    for value, gradient, hessian in fits[1:]:
        assert value == pytest.approx(fits[0][0])
        assert np.allclose(gradient, fits[0][1])
        assert np.allclose(hessian, fits[0][2])


def test_base_rows_that_are_built_some_at_a_time_are_those_built_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, examples = planted(300, 2)
    whole = _rows(examples)[0]._built(10, 290)
    monkeypatch.setattr("optimizer.model.training.rows.CHUNK", 64)
    design = _rows(examples)[0]
    assert np.array_equal(design._built(10, 290), whole)
    columns = np.array([0, 2, 5])
    assert np.array_equal(design._built(10, 290, columns), whole[:, columns])


def test_heads_that_are_fitted_side_by_side_are_those_fitted_one_after_another(
    make_examples: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = make_examples(900, 8)
    assert len(examples.outcomes) > 1
    blobs, used = [], set()
    fit = posterior.fit_posterior

    def noted(*given: Any, **named: Any) -> Any:
        used.add(threading.get_ident())
        return fit(*given, **named)

    monkeypatch.setattr("optimizer.model.training.lastlayer.fit_posterior", noted)
    monkeypatch.setattr("optimizer.model.training.threads.MOST", 2)
    for small in (len(examples) + 1, 1):
        monkeypatch.setattr("optimizer.model.training.threads.SMALL", small)
        blobs.append(train(examples, attributes=(), seed=1).blob)
        assert (used == {threading.get_ident()}) is (small > len(examples))
    assert unpacked(blobs[0]) == unpacked(blobs[1])


def unpacked(blob: bytes) -> tuple[bytes, dict[str, bytes], dict[str, Any]]:
    graph, arrays, meta = artifact.unpack(blob)
    return graph, {name: array.tobytes() for name, array in arrays.items()}, dict(meta)


def test_the_fit_is_the_mode_and_the_factor_its_curvature() -> None:
    _, examples = planted(500, 2)
    design, outcome = _rows(examples)
    precision = np.array([start for _, start in design.layout.groups])
    fit = fit_posterior(design, outcome, -1.0, precision=precision, empirical=False, steps=20)
    prior = precision[design.layout.group]
    assert len(fit.live) == design.layout.size
    _, gradient, hessian = design.derivatives(fit.mean, outcome, np.full(500, -1.0))
    assert np.abs(gradient - prior * fit.mean).max() < 0.05
    assert np.allclose(fit.factor @ fit.factor.T, hessian + np.diag(prior), rtol=1e-2, atol=0.05)
    draws = fit.draws(4_000, seed=1)
    exact = np.linalg.inv(fit.factor @ fit.factor.T).diagonal()
    assert np.abs(draws.var(axis=0) / exact - 1.0).max() < 0.15  # sd of a variance ratio is .022: 6 sd


@pytest.mark.parametrize("n", [1, 2, 50])
def test_tiny_data(make_examples: Maker, n: int) -> None:
    assert_serves(train(make_examples(n, 8), attributes=(), seed=1), make_examples(n, 8))


@pytest.mark.parametrize("constant", [0.0, 1.0, np.nan])
def test_outcomes_of_one_class_or_unknown(make_examples: Maker, constant: float) -> None:
    examples = make_examples(80, 9)
    one_sided = dataclasses.replace(examples, outcome={"clicked": np.full(80, constant)}, value={})
    model = assert_serves(train(one_sided, attributes=(), seed=1), one_sided)
    chance = model.score(model.embed([{}])[0], _space(), campaign(), {}).outcome["clicked"][0]
    assert chance < 0.05 if constant == 0.0 else chance > 0.95 if constant == 1.0 else chance == pytest.approx(0.5)


def test_only_messages_or_only_no_send_take_the_other_base_rate(make_examples: Maker) -> None:
    examples = make_examples(600, 10)
    rate = float(np.nanmean(examples.outcome["converted"][examples.sent]))
    model = assert_serves(train(examples.take(examples.sent), attributes=(), seed=1), examples)
    scores = model.score(model.embed([{}])[0], _space(), campaign(), {})
    assert scores.outcome["converted"][-1] == pytest.approx(rate, abs=0.01)
    assert_serves(train(examples.take(~examples.sent), attributes=(), seed=1), examples)


def test_no_features_one_variant_one_channel() -> None:
    owner, examples = planted(100, 1)
    first = examples.take(examples.variant == 0)
    bare = dataclasses.replace(first, contexts=[{}] * len(first), local=np.full(len(first), NOON[0]))
    model = RewardModel.load(train(bare, attributes=(), seed=1).blob)
    scores = model.score(model.embed([{}])[0], ActionSpace(("a", "b"), ("email",), NOON, NOON, True), owner, {})
    assert np.isfinite(scores.draws).all()


def test_no_rows_and_no_outcomes_are_refused(make_examples: Maker) -> None:
    with pytest.raises(Invalid, match="0 rows"):
        train(make_examples(5, 1).take(np.zeros(0, dtype=np.int64)), attributes=(), seed=1)
    with pytest.raises(Invalid, match="outcome"):
        train(dataclasses.replace(make_examples(5, 1), outcome={}, value={}), attributes=(), seed=1)


def test_rows_that_do_not_fit_together_are_refused(make_examples: Maker) -> None:
    examples = make_examples(5, 1)
    bad = np.full(5, 9)
    for name, column in (("variant", bad), ("channel", bad), ("campaign", bad), ("cluster", bad[:2])):
        changes: dict[str, Any] = {name: column}
        with pytest.raises(Invalid, match=name):
            dataclasses.replace(examples, **changes)
    with pytest.raises(Invalid, match="channel"):
        dataclasses.replace(examples, variant=np.full(5, NO_SEND), channel=np.zeros(5, dtype=np.int64))


def test_the_same_seed_gives_the_same_blob_and_another_another_bank(make_examples: Maker) -> None:
    examples = make_examples(500, 12)
    blob = train(examples, attributes=(), seed=3).blob
    assert train(examples, attributes=(), seed=3).blob == blob
    one, other = RewardModel.load(blob), RewardModel.load(train(examples, attributes=(), seed=4).blob)
    assert np.array_equal(one.message.mean, other.message.mean)
    assert not np.array_equal(one.message.bank, other.message.bank)


def test_a_refresh_on_the_same_rows_changes_next_to_nothing(make_examples: Maker) -> None:
    examples = make_examples(1_500, 13)
    trained = train(examples, attributes=(), seed=3, network=False)
    again = refresh(trained.blob, examples)
    assert again.feature_hash == trained.feature_hash
    before, after = RewardModel.load(trained.blob), RewardModel.load(again.blob)
    assert after.graph == before.graph
    assert np.array_equal(after.message.precision, before.message.precision)
    for row in before.embed(list(examples.contexts[:20])):
        old, new = (model.score(row, _space(), campaign(), {}) for model in (before, after))
        assert np.abs(old.reward - new.reward).max() < 2e-3
        assert np.abs(old.draws - new.draws).max() < 2e-2


def test_a_refresh_learns_from_new_rows_and_new_variants() -> None:
    owner, examples = planted(1_000, 1)
    blob = train(examples.take(examples.variant == 0), attributes=(), seed=3, network=False).blob
    _, more = planted(4_000, 2)
    model = RewardModel.load(refresh(blob, more).blob)
    space = ActionSpace(("a", "b"), ("email",), NOON, NOON, False)
    clicked = model.score(model.embed([{"member": False}])[0], space, owner, {}).outcome["clicked"]
    assert clicked[1] > clicked[0] + 0.1
    with pytest.raises(BadArtifact):
        refresh(blob[:-1], more)


def test_a_second_variant_differs_as_variants_do_before_anything_is_known() -> None:
    """One alone tells nothing of how far variants differ; its precision is at the bound of what is alike."""
    rng, count, alone = np.random.default_rng(4), 3_100, 3_000
    owner = Campaign("w", "c", (Variant("a"), Variant("b")), (Channel("email"),), NOW, NOW)
    variant, none = (np.arange(count) >= alone).astype(np.int64), np.zeros(count, np.int64)
    clicked = (rng.random(count) < np.where(variant == 1, 0.4, 0.1)).astype(float)
    people = [{"member": bool(one)} for one in rng.random(count) < 0.5]
    local = MONDAY + rng.integers(0, 604_800, count)
    rows = Examples(people, (owner,), none, variant, none, local, {"clicked": clicked}, {}, np.arange(count))
    blob = train(rows.take(variant == 0), attributes=(), seed=1, network=False, calibrated=False).blob
    model = RewardModel.load(refresh(blob, rows).blob)
    space = ActionSpace(("a", "b"), ("email",), NOON, NOON, False)
    found = model.score(model.embed([{"member": False}])[0], space, owner, {}).outcome["clicked"][1]
    told = float(clicked[alone:].mean())
    assert found > 0.1 + 0.5 * (told - 0.1), (found, told)


def test_a_refresh_keeps_the_precisions_and_says_from_how_many_rows_they_were_learned(make_examples: Maker) -> None:
    def told(blob: bytes) -> tuple[int, dict[str, float]]:
        model = RewardModel.load(blob)
        heads = model.message
        clicked = heads.precision[heads.outcomes.index("clicked")]
        return learned_from(model.artifact_meta), dict(
            zip((name for name, _ in heads.layout.groups), clicked, strict=True)
        )

    examples = make_examples(6_000, 5).take(np.arange(4_000))
    young = train(examples.take(np.arange(300)), attributes=(), seed=3, network=False).blob
    learned, before = told(young)
    assert learned == 300
    learned, after = told(refresh(young, examples).blob)
    assert learned == 300
    assert before.items() <= after.items(), "new hours and pairs have what a new group begins with"
    assert outgrown(450, 300)
    assert not outgrown(449, 300)


def test_where_there_is_no_room_for_all_weights_a_fit_takes_those_that_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    _, examples = planted(2_000, 4)
    noise = np.random.default_rng(3).standard_normal((2_000, 40)).round(3)
    noisy = [
        {**context, **{f"noise{i:02d}": value for i, value in enumerate(row)}}
        for context, row in zip(examples.contexts, noise.tolist(), strict=True)
    ]
    examples = dataclasses.replace(examples, contexts=noisy)
    whole = train(examples, attributes=(), seed=1, network=False)
    layout = RewardModel.load(whole.blob).message.layout
    restless = _restless(layout)
    monkeypatch.setattr(posterior, "AT_ONCE", restless + 60)
    spare = RewardModel.load(train(examples, attributes=(), seed=1, network=False).blob)
    head = spare.message
    live = {name for (name, _), own in zip(layout.groups, head.precision[0], strict=True) if own < IDLE}
    sizes = np.bincount(layout.group)
    held = sum(int(sizes[i]) for i, (name, _) in enumerate(layout.groups) if name in live)
    member = f"variant*plain:{spare.spec.owners.index('member')}"
    assert member in live
    assert restless <= held <= restless + 60 < layout.size / 2
    full = RewardModel.load(whole.blob).message
    told = np.flatnonzero(layout.group == [name for name, _ in layout.groups].index(member))
    assert np.abs(head.mean[0][told] - full.mean[0][told]).max() < 0.1 * np.abs(full.mean[0][told]).max()


def _restless(layout: Layout) -> int:
    """The weights that can't rest."""
    return sum(block.size for block in layout.blocks if block.segment not in CONTEXTUAL)


def test_every_variant_of_a_campaign_has_weights_for_all_of_a_wide_context() -> None:
    variants = [variant_key("c", f"v{i}") for i in range(6)]
    channels = ("email", "sms", "push")
    pairs = [f"{variant}\x1f{channel}" for variant in variants for channel in channels]
    keys = {"one": ("",), "campaign": ("c",), "channel": channels, "variant": variants, "pair": pairs}
    columns = {"plain": range(64), "detail": range(64, 300), "time": range(17)}
    layout = build_layout(MESSAGE_BLOCKS, keys, **columns)  # type: ignore[arg-type]  # a literal dict of str keys
    assert next(b for b in layout.blocks if b.name == "variant*detail").keys == tuple(variants)


def test_the_number_of_weights_is_bounded_and_the_busiest_keys_keep_theirs() -> None:
    variants = [variant_key("c", f"v{i}") for i in range(300)]
    pairs = [f"{variant}\x1f{channel}" for variant in variants for channel in ("email", "sms")]
    keys = {"one": ("",), "campaign": ("c",), "channel": ("email", "sms"), "variant": variants, "pair": pairs}
    layout = build_layout(MESSAGE_BLOCKS, keys, plain=range(20), detail=range(20, 60), time=range(13))  # type: ignore[arg-type]  # a literal dict of str keys
    assert layout.size <= MAX_WEIGHTS
    assert _restless(layout) <= MAX_RESTLESS
    kept = {block.name: block.keys for block in layout.blocks}
    assert len(kept["variant*one"]) == len(kept["variant*plain"]) == 300
    assert set(kept["variant*time"]) == set(variants[: len(kept["variant*time"])])
    assert set(kept["variant*detail"]) == set(variants[: len(kept["variant*detail"])])
    assert 0 < len(kept["variant*time"]) < 300
    assert 0 < len(kept["variant*detail"]) < 300


def test_which_variant_has_more_rows_moves_no_weight() -> None:
    """The noise of draws goes by the weights' places: variants that changed places would swap theirs."""
    keys = {"one": ("",), "campaign": ("c",), "channel": ("email", "sms"), "feature": [str(i) for i in range(12)]}
    ways = [
        build_layout(MESSAGE_BLOCKS, {**keys, "variant": order, "pair": ()}, plain=range(3), time=range(2))  # type: ignore[dict-item]  # a literal dict of str keys
        for order in (("a", "b"), ("b", "a"))
    ]
    assert ways[0] == ways[1]
    assert next(b.keys for b in ways[0].blocks if b.unit == "feature") == tuple(keys["feature"])


def test_hundreds_of_campaigns_keep_to_the_bound() -> None:
    campaigns = [f"c{i}" for i in range(1_500)]
    variants = [variant_key(campaign, f"v{i}") for campaign in campaigns for i in range(4)]
    pairs = [f"{variant}\x1f{channel}" for variant in variants for channel in ("email", "sms", "push")]
    keys = {"one": ("",), "campaign": campaigns, "channel": ("email", "sms", "push"), "variant": variants}
    layout = build_layout(MESSAGE_BLOCKS, {**keys, "pair": pairs}, plain=range(20), time=range(13))  # type: ignore[dict-item]
    assert layout.size <= MAX_WEIGHTS
    assert _restless(layout) <= MAX_RESTLESS
    kept = {block.name: block.keys for block in layout.blocks}
    assert set(kept["campaign*one"]) == set(campaigns)
    assert set(kept["variant*one"]) == set(variants[: len(kept["variant*one"])])
    assert layout.rows_of(next(b for b in layout.blocks if b.name == "variant*one"), Action("c1499", "v3", "sms")) == []


def test_what_is_liked_every_other_weekday_is_told_apart(make_examples: Maker) -> None:
    """Waves of a week don't reach from one day to the next: they were off by 1 here."""
    examples = make_examples(6_000, 8)
    odd = (examples.local - MONDAY) // 86_400 % 2
    eta = -1.0 + np.where((examples.variant == 1) & (odd == 0), 1.0, -1.0)
    drawn = np.random.default_rng([8, 1]).random(len(examples)) < 1.0 / (1.0 + np.exp(-eta))
    clicked = np.where(examples.variant >= 0, drawn.astype(float), np.nan)
    blob = train(dataclasses.replace(examples, outcome={"clicked": clicked}), attributes=(), seed=1, network=False).blob
    model, days = RewardModel.load(blob), MONDAY + 86_400 * np.arange(6) + 43_200
    row = model.embed([examples.contexts[0]])[0]
    chance = model.score(row, ActionSpace(("a", "b"), ("email",), days, days, False), campaign(), {}).outcome["clicked"]
    told = np.log(chance / (1.0 - chance)).reshape(2, 6)
    assert np.abs(told[0] + 2.0).max() < 0.5, told
    assert np.abs(told[1] - [0.0, -2.0, 0.0, -2.0, 0.0, -2.0]).max() < 0.5, told


def test_a_log_of_one_hour_leaves_all_other_hours_open() -> None:
    examples = made_up(1_500, 3)
    one = dataclasses.replace(examples, local=np.full(len(examples), MONDAY + 10 * 3_600))
    owner = one.campaigns[0]
    model = RewardModel.load(train(one, attributes=(), seed=1, network=False, calibrated=False).blob)
    times = MONDAY + np.arange(0, 7 * 24, 6, dtype=np.int64) * 3_600
    space = ActionSpace(("a", "b"), tuple(c.id for c in owner.channels), times, times, False)
    best = []
    for context in one.contexts[:20]:
        draws = model.score(model.embed([context])[0], space, owner, {}).draws
        best += draws.argmax(axis=1).tolist()
    slot = np.array(best) // len(owner.channels) % len(times)
    shares = np.bincount(slot, minlength=len(times)) / len(slot)
    assert shares.max() < 0.4, shares


def _space() -> ActionSpace:
    return ActionSpace(("a", "new"), ("email", "sms"), NOON, NOON, True)


def assert_serves(trained: Trained, examples: Examples) -> RewardModel:
    """The blob loads, scores finitely, and can be refreshed."""
    model = RewardModel.load(trained.blob)
    for blob in (trained.blob, refresh(trained.blob, examples).blob):
        served = RewardModel.load(blob)
        scores = served.score(served.embed([{"age": 30}])[0], _space(), campaign(), {})
        assert np.isfinite(scores.reward).all()
        assert np.isfinite(scores.draws).all()
        assert scores.draws.shape == (32, 5)
    return model


def test_the_prior_on_precisions_is_wide_with_few_rows_and_the_options_own_from_3_000_on() -> None:
    options = TrainOptions(shape=5.0, rate=0.02)
    assert (options.at(0).shape, options.at(0).rate) == (1.0, 0.006)
    half = options.at(1_500)
    assert half.shape == pytest.approx(3.0)
    assert half.rate == pytest.approx(0.013)
    assert options.at(3_000) == options.at(10**6) == options


def test_options_move_the_prior_precisions_and_nothing_else_of_the_defaults() -> None:
    data = made_up(600, 3)
    plain, same, strict = (
        RewardModel.load(train(data, attributes=(), seed=1, network=False, calibrated=False, options=options).blob)
        for options in (TrainOptions(), TrainOptions(margin=3.0, decay=0.5), TrainOptions(shape=12.0, rate=0.001))
    )
    assert (plain.message.mean == same.message.mean).all()
    # A larger shape and a smaller rate shrink more.
    assert np.log(strict.message.precision).mean() > np.log(plain.message.precision).mean()
    assert (plain.message.mean != strict.message.mean).any()


@pytest.mark.parametrize(
    ("told", "most"), [("", 2), ("3", 3), ("4,2", 4), (" 1 ", 1), ("0", 2), ("-1", 2), ("many", 2)]
)
def test_threads_are_those_of_the_usual_variable_where_it_names_any(told: str, most: int) -> None:
    assert asked_for(told) == most
