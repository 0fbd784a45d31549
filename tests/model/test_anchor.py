"""A model that is anchored at a change keeps what has not changed, and learns the rest from the rows since."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.model.artifact import unpack
from optimizer.model.examples import Examples
from optimizer.model.inference import RewardModel
from optimizer.model.training.evaluate import log_likelihood
from optimizer.model.training.train import anchor, follow, refresh, train
from tests.model.conftest import Maker
from tests.model.test_settled import told

CHANGED = 1_772_000_000.0


def chance(examples: Examples, *, swapped: bool) -> NDArray[np.float64]:
    """Of each row's click, if it was a message."""
    age = np.array([person["age"] for person in examples.contexts])
    liked = np.where((examples.variant == 1) != swapped, 0.12, -0.06)
    eta = -1.0 + liked * (age - 40.0) + 1.2 * np.cos(examples.local / 86_400 * 2 * np.pi)
    return np.asarray(1.0 / (1.0 + np.exp(-eta)))


def clicks(examples: Examples, seed: int, *, swapped: bool) -> Examples:
    """With clicks drawn anew: what age likes about the variants (swapped: the reverse), and an hour that all like."""
    drawn = np.random.default_rng([seed, 1]).random(len(examples)) < chance(examples, swapped=swapped)
    clicked = np.where(examples.variant >= 0, drawn.astype(float), np.nan)
    return replace(examples, outcome={"clicked": clicked})


def known(blob: bytes, held: Examples) -> float:
    """Mean log-likelihood of the clicks of rows that the model has not seen."""
    return float(np.nanmean(log_likelihood(RewardModel.load(blob), held)["clicked"]))


def truth(held: Examples, *, swapped: bool) -> float:
    """The same of who knows the chances."""
    true, clicked = chance(held, swapped=swapped), held.outcome["clicked"]
    return float(np.nanmean(np.where(np.isnan(clicked), np.nan, np.log(np.where(clicked == 1.0, true, 1.0 - true)))))


def apart(one: bytes, other: bytes, rows: Examples) -> float:
    """The largest difference between two models in the log-likelihood of a row's click."""
    found = [log_likelihood(RewardModel.load(blob), rows)["clicked"] for blob in (one, other)]
    return float(np.nanmax(np.abs(found[0] - found[1])))


@pytest.fixture(scope="module")
def before(make_examples: Maker) -> bytes:
    """A model of many rows from before the change."""
    return train(clicks(make_examples(6_000, 1), 1, swapped=False), attributes=(), seed=1, network=False).blob


@pytest.fixture(scope="module")
def since(make_examples: Maker) -> Examples:
    """Rows from after it."""
    return clicks(make_examples(8_000, 2), 2, swapped=True)


def test_what_has_changed_is_learned_and_the_rest_is_kept(make_examples: Maker) -> None:
    """Over ten audiences, none of them one by which ``of_differences`` was chosen: 500 rows teach more in one than in
    another."""
    lost: dict[str, float] = dict.fromkeys(("anchored", "refreshed", "anew", "as it was"), 0.0)
    for seed in range(300, 400, 10):
        old = clicks(make_examples(6_000, seed), seed, swapped=False)
        before = train(old, attributes=(), seed=1, network=False).blob
        few = clicks(make_examples(500, seed + 1), seed + 1, swapped=True)
        held = clicks(make_examples(4_000, seed + 2), seed + 2, swapped=True)
        best = truth(held, swapped=True)
        lost["anchored"] += best - known(anchor(before, few, "spring", CHANGED).blob, held)
        lost["refreshed"] += best - known(refresh(before, few).blob, held)
        lost["anew"] += best - known(train(few, attributes=(), seed=1, network=False).blob, held)
        lost["as it was"] += best - known(before, held)
    assert 0.0 < lost["anchored"] < 0.5 * min(lost["refreshed"], lost["anew"]), lost
    assert lost["refreshed"] < lost["as it was"], lost


def test_where_nothing_has_changed_a_false_alarm_costs_little(before: bytes, make_examples: Maker) -> None:
    few = clicks(make_examples(500, 5), 5, swapped=False)
    held = clicks(make_examples(4_000, 6), 6, swapped=False)
    lost = known(before, held) - known(anchor(before, few, "spring", CHANGED).blob, held)
    assert lost < 0.1 * (known(before, held) - known(refresh(before, few).blob, held)), lost


def test_what_is_not_shown_since_keeps_its_weights(before: bytes, since: Examples) -> None:
    shown = since.take(np.flatnonzero(since.variant == 0)[:500])
    anchored = refresh(anchor(before, shown, "spring", CHANGED).blob, shown)
    heads = RewardModel.load(anchored.blob).message
    old = RewardModel.load(before).message
    assert heads.layout == old.layout
    assert heads.centre is not None
    assert np.array_equal(heads.centre, old.mean)
    assert set(heads.layout.blocks[-1].position) == set(old.layout.blocks[-1].position)
    for block in heads.layout.blocks:
        for key in [key for key in block.position if block.unit == "variant" and "b" in key]:
            row = block.start + block.position[key] * block.width
            assert np.array_equal(heads.mean[0, row : row + block.width], old.mean[0, row : row + block.width])


def test_a_variant_that_is_new_since_gets_weights_of_its_own(make_examples: Maker) -> None:
    many = clicks(make_examples(6_000, 1), 1, swapped=False)
    one = many.take(np.flatnonzero((many.variant != 1) & (many.campaign == 0)))
    alone = train(one, attributes=(), seed=1, network=False).blob
    since = clicks(make_examples(8_000, 2), 2, swapped=False)
    mine = since.take(np.flatnonzero(since.campaign == 0))
    few, held = mine.take(np.arange(800)), mine.take(np.flatnonzero(mine.variant == 1)[400:])
    anchored = anchor(alone, few, "spring", CHANGED)
    blocks = {block.name: block.keys for block in RewardModel.load(anchored.blob).message.layout.blocks}
    assert len(blocks["variant*plain"]) == 2
    assert known(anchored.blob, held) > known(alone, held) + 0.1
    later = refresh(anchored.blob, mine.take(np.arange(1_500)))
    assert known(later.blob, held) > known(alone, held) + 0.1


def test_it_goes_on_from_its_anchor(before: bytes, since: Examples) -> None:
    """Refreshed with more rows it is what it would be had it been anchored with all of them."""
    early = anchor(before, since.take(np.arange(500)), "spring", CHANGED)
    more = since.take(np.arange(2_000))
    later, at_once = refresh(early.blob, more), anchor(before, more, "spring", CHANGED)
    meta = unpack(later.blob)[2]
    assert meta["changed"] == {"spring": CHANGED}
    assert meta["anchored"]["since"] == CHANGED
    assert meta["rows"] == 6_000 + 2_000
    assert apart(later.blob, at_once.blob, more) < 0.05
    again = anchor(later.blob, more, "spring", CHANGED + 1.0)
    centre = RewardModel.load(again.blob).message.centre
    assert centre is not None
    assert np.array_equal(centre, RewardModel.load(later.blob).message.mean), "a later change is another anchor"


def test_settled_rows_since_stand_for_themselves(before: bytes, since: Examples) -> None:
    first = anchor(before, since.take(np.arange(6_000)), "spring", CHANGED, 5_500)
    followed = follow(first.blob, told(first), since.take(np.arange(5_500, 8_000)))
    everything = refresh(first.blob, since)
    moved = apart(first.blob, everything.blob, since)
    assert apart(followed.blob, everything.blob, since) < 0.1 * moved, moved
    assert unpack(followed.blob)[2]["rows"] == 6_000 + 8_000
    none_yet = anchor(before, since.take(np.arange(500)), "spring", CHANGED, 0)
    again = follow(none_yet.blob, told(none_yet), since.take(np.arange(600)))
    assert unpack(again.blob)[2]["rows"] == 6_000 + 600, "nothing is settled, and that is told"


def test_what_outcomes_are_worth_is_remembered(make_examples: Maker) -> None:
    rows = make_examples(6_000, 1)
    old = train(rows, attributes=(), seed=1, network=False).blob
    few = make_examples(200, 2)
    few = replace(few, outcome={**few.outcome, "converted": np.zeros(200)}, value={})
    values = [unpack(blob)[2]["values"] for blob in (old, anchor(old, few, "spring", CHANGED).blob)]
    assert values[0] == values[1]


def test_where_nothing_is_known_since_nothing_is_more_in_doubt(before: bytes, since: Examples) -> None:
    """Rows without a message tell nothing of messages; whether to send at all is not to become a matter of luck."""
    sent = since.take(np.flatnonzero(since.variant >= 0)[:500])
    both = replace(sent, outcome={**sent.outcome, "converted": np.zeros(500)})
    old = train(
        replace(since, outcome={**since.outcome, "converted": 1.0 * (since.local % 7 == 0)}), attributes=(), seed=1
    )
    heads = [RewardModel.load(b).no_send for b in (old.blob, anchor(old.blob, both, "spring", CHANGED).blob)]
    spread = [float(one.bank[0, :, 0].std()) for one in heads]
    assert spread[1] < 0.2, spread


def test_an_outcome_that_is_new_since_gets_a_head(before: bytes, since: Examples) -> None:
    few = since.take(np.arange(1_000))
    more = replace(few, outcome={**few.outcome, "booked": few.outcome["clicked"]})
    anchored = refresh(anchor(before, more, "spring", CHANGED).blob, more)
    assert RewardModel.load(anchored.blob).message.outcomes == ("booked", "clicked")
