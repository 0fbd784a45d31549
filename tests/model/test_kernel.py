"""The compiled scores and winners of draws are those in NumPy, over made-up heads of many shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.bandit.actions import ActionSpace, Spaces
from optimizer.model.drawing import Bank, Drawing
from optimizer.model.prepared import Prepared, Tower
from optimizer.model.scoring import ScoredRows, score_rows
from optimizer.model.timefeatures import SHORT, TIME_COLUMNS
from tests.loops import in_numpy, require_compiled
from tests.model.conftest import MONDAY

#: Variants, slots, channels, features, heads, draws, rows.
SHAPES = [(1, 1, 1, 0, 1, 16, 1), (6, 24, 3, 44, 6, 32, 7), (2, 9, 1, 5, 2, 48, 3), (4, 168, 3, 12, 3, 32, 2)]


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    require_compiled()


def made_up_heads(
    rng: np.random.Generator, variants: int, channels: int, features: int, heads: int, draws: int
) -> Prepared:
    pairs = variants * channels
    weighted = np.arange(heads)[rng.permutation(heads) < max(1, heads - 1)]
    worth = np.where(np.isin(np.arange(heads), weighted)[:, None], rng.normal(0, 3, (heads, pairs)), 0.0)
    many = len(weighted)
    bank = Bank.laid_out(
        rng.normal(0, 0.05, (many, draws, pairs, features)),
        rng.normal(0, 0.2, (many, draws, pairs, TIME_COLUMNS)),
        rng.normal(0, 0.05, (many, draws, SHORT, features)),
        rng.normal(0, 0.1, (many, draws, 168)),
    )
    return Prepared(
        mean=Tower(
            rng.normal(0, 0.3, (heads * pairs, features)),
            rng.normal(-0.5, 0.5, (heads, pairs, TIME_COLUMNS)),
            rng.normal(0, 0.2, (heads * SHORT, features)),
            rng.normal(0, 0.3, (heads, 168)),
        ),
        draws=bank,
        weighted=weighted.astype(np.int64),
        worth=worth,
        steps=((1, 0),) if heads > 1 and 0 in weighted and 1 in weighted else (),
        cost=rng.random(pairs),
        no_send_mean=rng.normal(0, 0.3, (1, 1 + features)),
        no_send_draws=rng.normal(0, 0.1, (1, draws, 1 + features)).astype(np.float32),
        no_send_weighted=np.zeros(1, np.int64),
        no_send_worth=rng.normal(0, 3, 1),
        no_send_context=np.arange(features, dtype=np.int64),
        no_send_places=np.zeros(1, np.int64),
    )


def scored(
    ready: Prepared, x: NDArray[np.float32], spaces: Spaces, own: Sequence[NDArray[np.float64] | None]
) -> ScoredRows:
    return score_rows(ready, tuple(f"o{i}" for i in range(len(ready.worth))), x, spaces, own)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("no_send", [True, False])
@pytest.mark.parametrize("charged", [True, False])
def test_scores_and_winners_are_the_same(shape: tuple[int, ...], no_send: bool, charged: bool) -> None:
    variants, slots, channels, features, heads, draws, n = shape
    rng = np.random.default_rng(slots + charged)
    ready = made_up_heads(rng, variants, channels, features, heads, draws)
    local = MONDAY + 3_600 * rng.integers(0, 400, (n, 1)) + 3_600 * np.arange(slots)
    names = tuple(f"v{i}" for i in range(variants)), tuple(f"c{i}" for i in range(channels))
    spaces = Spaces.stacked([ActionSpace(*names, row, row, no_send) for row in local])
    x = (rng.normal(0, 1, (n, features)) * (rng.random((n, features)) < 0.6)).astype(np.float32)
    own = [None if i % 2 else rng.normal(0, 0.3, (heads, slots)) for i in range(n)]
    ours, theirs = scored(ready, x, spaces, own), in_numpy(lambda: scored(ready, x, spaces, own))
    assert np.allclose(ours.reward, theirs.reward, rtol=1e-12, atol=1e-12)
    assert np.allclose(ours.chances.message, theirs.chances.message, rtol=1e-12, atol=1e-14)
    assert np.allclose(ours.drawing.slope, theirs.drawing.slope, rtol=1e-6, atol=1e-7)

    mask = rng.random((n, spaces.size)) < 0.5
    mask[np.arange(n), rng.integers(0, spaces.size, n)] = True
    toll = rng.random((n, spaces.size)) if charged else None
    won = ours.drawing.best(mask, toll)
    also = in_numpy(lambda: theirs.drawing.best(mask, toll))
    assert won.shape == (n, draws)
    assert np.take_along_axis(mask, won, axis=1).all()
    values = theirs.drawing.actions if toll is None else theirs.drawing.actions - toll[:, None, :]
    ours_drew, theirs_drew = (np.take_along_axis(values, at[:, :, None], axis=2) for at in (won, also))
    assert np.allclose(ours_drew, theirs_drew, rtol=1e-4, atol=1e-4)  # of two that are all but equal either may win
    assert np.mean(won == also) > 0.99

    for i in range(n):
        alone = Spaces.stacked([ActionSpace(*names, local[i], local[i], no_send)])
        again = scored(ready, x[i : i + 1], alone, own[i : i + 1])
        assert np.array_equal(again.reward[0], ours.reward[i])
        assert np.array_equal(again.drawing.best(mask[i : i + 1], None if toll is None else toll[i : i + 1])[0], won[i])


def small_drawing() -> Drawing:
    """One row: two variants, two channels, five slots, and not sending."""
    ready = made_up_heads(np.random.default_rng(0), 2, 2, 3, 2, 32)
    local = MONDAY + 3_600 * np.arange(5)
    spaces = Spaces.stacked([ActionSpace(("a", "b"), ("c", "d"), local, local, True)])
    return scored(ready, np.ones((1, 3), np.float32), spaces, [None]).drawing


@pytest.mark.parametrize(("variants", "heads"), [(1, 1), (3, 1), (2, 3), (4, 4)])
def test_drawn_rewards_of_a_row_are_the_same_to_the_last_bit_alone_and_among_others(variants: int, heads: int) -> None:
    """Not sending is worth what the best message is in each draw: which one wins tells of the last bit."""
    rng = np.random.default_rng(variants)
    ready = made_up_heads(rng, variants, 1, 30, heads, 32)
    local = np.tile(MONDAY + 3_600 * np.arange(3), (40, 1))
    names = tuple(f"v{i}" for i in range(variants))
    spaces = Spaces.stacked([ActionSpace(names, ("c",), row, row, True) for row in local])
    drawing = scored(ready, rng.normal(0, 1, (40, 30)).astype(np.float32), spaces, [None] * 40).drawing
    even = replace(drawing, stay=drawing.actions[:, :, : spaces.messages].max(axis=2))
    mask = np.ones((40, spaces.size), np.bool_)
    together = even.best(mask, None)
    assert 0.1 < np.mean(together == spaces.messages) < 0.9
    for i in range(40):
        assert np.array_equal(even._rows(slice(i, i + 1)).best(mask[i : i + 1], None)[0], together[i])


def test_a_reward_that_is_not_a_number_is_refused_where_it_is_eligible() -> None:
    drawing = small_drawing()
    reward, spaces = drawing.reward.copy(), drawing.spaces
    reward[0, 3, 4] = np.nan  # of b on d: the last message
    broken, mask = replace(drawing, reward=reward), np.ones((1, spaces.size), np.bool_)
    with pytest.raises(ValueError, match="finite"):
        broken.best(mask, None)
    mask[0, spaces.messages - 1] = False
    assert np.array_equal(broken.best(mask, None), drawing.best(mask, None))


def test_only_not_sending_is_left() -> None:
    drawing = small_drawing()
    mask = np.zeros((1, drawing.spaces.size), np.bool_)
    mask[0, -1] = True
    dear = np.full(mask.shape, 1e6)  # even where that is worth less than nothing
    assert (drawing.best(mask, dear) == drawing.spaces.size - 1).all()
