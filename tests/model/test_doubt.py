"""Draws with precisions in doubt: wide where little of a group was tried, and what they were where rows tell much."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.bandit.actions import ActionSpace
from optimizer.model import prepared
from optimizer.model.artifact import pack, unpack
from optimizer.model.inference import RewardModel
from optimizer.model.layout import Action
from optimizer.model.training.doubt import in_doubt
from optimizer.model.training.posterior import Posterior, fit_posterior
from optimizer.model.training.rows import Design, RowSet, message_layout
from optimizer.model.training.train import train
from optimizer.model.variantbasis import fit_basis
from tests.model.conftest import MONDAY, campaign, made_up

COUNT = 4_000
#: Every message was sent on one of these.
TRIED = (0, 1)


def rows(n: int, days: tuple[int, ...]) -> tuple[Design, NDArray[np.float64]]:
    """Noon on some days of the week, one variant; two in ten click, whatever the day or the context."""
    rng = np.random.default_rng(7)
    local = MONDAY + 43_200 + 86_400 * rng.choice(days, n)
    context = rng.standard_normal((n, 3)).astype(np.float32)
    rowset = RowSet(np.arange(n), (Action("c", "a", "email"),), np.zeros(n, np.int64), context, local)
    design = Design(message_layout(rowset, fit_basis([]), (0, 1), (0, 1, 1)), rowset)
    return design, (rng.random(n) < 0.2).astype(np.float64)


def fitted(n: int, days: tuple[int, ...], *, empirical: bool = True) -> tuple[Design, Posterior]:
    design, outcome = rows(n, days)
    return design, fit_posterior(design, outcome, -1.4, empirical=empirical)


def doubted(fit: Posterior, design: Design, count: int, seed: int) -> NDArray[np.float32]:
    """Draws with what precisions in doubt add to them."""
    drawn = fit.draws(count, seed)
    return drawn + in_doubt(fit, design.layout, drawn, seed)


def of_days(design: Design, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """(M, 7) what drawn weights (M, d) say of noon on each day, beside what they say of all."""
    noons = MONDAY + 43_200 + 86_400 * np.arange(7)
    week = RowSet(
        np.arange(7), (Action("c", "a", "email"),), np.zeros(7, np.int64), np.zeros((7, 3), np.float32), noons
    )
    said = Design(design.layout, week)
    return np.array([said.logits(drawn.astype(np.float64)) for drawn in weights])


def test_a_day_that_was_never_tried_is_in_more_doubt_than_its_groups_precision_says() -> None:
    design, fit = fitted(4_000, TRIED)
    plain, wide = (of_days(design, drawn) for drawn in (fit.draws(COUNT, 1), doubted(fit, design, COUNT, 1)))
    untried = [day for day in range(7) if day not in TRIED]
    ratio = wide.var(axis=0) / plain.var(axis=0)
    assert ratio[untried].min() > 1.5
    # How often a draw believes in a day that was never tried, by more than four of the plain deviations.
    far = 4.0 * plain.std(axis=0)
    assert (np.abs(plain) > far).mean() < 0.001
    assert (np.abs(wide) > far)[:, untried].mean() > 0.01
    assert abs(wide.mean(axis=0)).max() < 0.02


def test_what_rows_tell_much_of_is_in_no_more_doubt_than_before() -> None:
    design, fit = fitted(60_000, tuple(range(7)))
    sure = replace(fit, precision=np.minimum(fit.precision, 5.0))
    plain, wide = (of_days(design, drawn) for drawn in (sure.draws(COUNT, 1), doubted(sure, design, COUNT, 1)))
    # The standard error of a ratio of variances of 4,000 draws, most of whose noise is shared, is below .02.
    assert wide.var(axis=0) / plain.var(axis=0) == pytest.approx(np.ones(7), abs=0.1)


def test_no_draw_is_narrower_and_what_a_context_adds_is_not_widened() -> None:
    design, fit = fitted(4_000, TRIED, empirical=False)
    context = np.array([":" in design.layout.groups[group][0] for group in design.layout.group])
    plain, wide = fit.draws(COUNT, 1), doubted(fit, design, COUNT, 1)
    spread = wide.var(axis=0)[fit.live] / plain.var(axis=0)[fit.live]
    assert spread.min() > 0.95
    assert spread[context[fit.live]].max() < 1.1


def test_draws_are_seeded_and_move_little_when_little_more_is_known() -> None:
    design, fit = fitted(4_000, TRIED)
    drawn = doubted(fit, design, 32, 1)
    assert (drawn == doubted(fit, design, 32, 1)).all()
    assert (drawn != doubted(fit, design, 32, 2)).any()
    later = replace(fit, factor=fit.factor * 1.01)
    moved = doubted(later, design, 32, 1)
    assert np.corrcoef(moved.ravel(), drawn.ravel())[0, 1] > 0.99


def test_a_model_from_before_precisions_were_in_doubt_draws_as_it_did() -> None:
    blob = train(made_up(1_500, 4), attributes=(), seed=4, network=False).blob
    graph, arrays, meta = unpack(blob)
    earlier = {name: array for name, array in arrays.items() if not name.endswith(".doubt")}
    assert set(arrays) - set(earlier) == {"message.doubt", "no_send.doubt"}
    now, before = RewardModel.load(blob), RewardModel.load(pack(graph, earlier, meta))
    local = MONDAY + 3_600 * np.arange(0, 168, 9)
    space = ActionSpace(("a", "b"), ("email", "sms"), local, local, True)
    row = now.embed([{}])[0]
    new, old = (model.score(row, space, campaign(), {}) for model in (now, before))
    assert np.array_equal(new.reward, old.reward)
    assert (new.draws.std(axis=0) > old.draws.std(axis=0)).mean() > 0.9


def test_what_precisions_in_doubt_add_is_narrowed_by_half_as_rows_come() -> None:
    heads = RewardModel.load(train(made_up(1_500, 4), attributes=(), seed=4, network=False).blob).message
    assert heads.doubt is not None
    action, both = Action("spring", "a", "email"), np.arange(2)
    alone = heads.layout.cell(action).coefficients(heads.doubt[both].astype(np.float64), heads.layout.base)
    for width in (0.05, 0.25, 0.5):
        drawn = width * heads.deviations(action, both, 1.0, prepared.doubt_factor(width))
        plain = width * replace(heads, doubt=None).deviations(action, both)
        assert np.allclose(drawn - plain, max(width, 0.25) * alone)
    assert prepared.doubt_factor(0.0) == 1.0
