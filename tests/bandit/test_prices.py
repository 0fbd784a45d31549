"""Shadow prices equal the linear program's, and respect what they are for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from optimizer.bandit.prices import GAP, Demand, solve


def made_up(seed: int, questions: int, cells: int, actions: int, rules: int, scarcity: float = 0.3) -> Demand:
    """Gains that differ by person and action; the first rule takes 1 of a cell, the others an amount of some cell."""
    rng = np.random.default_rng(seed)
    question = np.repeat(np.arange(questions), actions)
    n = len(question)
    gain = np.exp(rng.normal(0, 0.7, questions))[question] * np.exp(rng.normal(0, 0.5, n)) - 0.3
    cell = np.stack([rng.integers(0, cells, n), *(rng.integers(cells // 2, cells + 1, n) for _ in range(rules - 1))], 1)
    take = np.c_[np.ones(n), rng.uniform(0.1, 2, (n, rules - 1))]
    weight = rng.uniform(0.5, 1.5, questions)
    capacity = scarcity * weight.sum() / cells * rng.uniform(0.2, 1.8, cells)
    return Demand(question, gain, cell, take, weight, capacity)


def optimum(demand: Demand) -> float:
    """The assignment program's value, by a solver of linear programs."""
    questions, cells = len(demand.weight), len(demand.capacity)
    weight = demand.weight[demand.question]
    rows, columns, values = [demand.question], [np.arange(len(weight))], [np.ones(len(weight))]
    for r in range(demand.cell.shape[1]):
        real = np.flatnonzero(demand.cell[:, r] < cells)
        rows.append(questions + demand.cell[real, r])
        columns.append(real)
        values.append((weight * demand.take[:, r])[real])
    place = (np.concatenate(rows), np.concatenate(columns))
    shape = (questions + cells, len(weight))
    matrix = coo_matrix((np.concatenate(values), place), shape=shape).tocsr()
    limits = np.r_[np.ones(questions), demand.capacity]
    solved = linprog(-(weight * demand.gain), A_ub=matrix, b_ub=limits, bounds=(0, None), method="highs")
    assert solved.status == 0
    return float(-solved.fun)


@pytest.mark.parametrize("seed", range(12))
def test_the_dual_value_is_the_programs_optimum(seed: int) -> None:
    rng = np.random.default_rng([7, seed])
    demand = made_up(seed, int(rng.integers(5, 400)), int(rng.integers(1, 30)), int(rng.integers(1, 20)), 1 + seed % 3)
    solved = solve(demand)
    best = optimum(demand)
    assert best <= solved.value * (1 + 1e-9)
    assert solved.value - best <= solved.gap * solved.value
    assert solved.gap <= 5 * GAP
    assert (solved.price >= 0).all()


def test_choosing_by_gain_less_price_reaches_the_optimum_within_the_capacity() -> None:
    demand = made_up(3, 2_000, 24, 12, 1)
    solved = solve(demand)
    net = demand.gain - solved.price[demand.cell[:, 0]]
    best = net.reshape(2_000, 12).argmax(axis=1) + 12 * np.arange(2_000)
    chosen = best[net[best] > 0]
    weight = demand.weight[demand.question[chosen]]
    used = np.bincount(demand.cell[chosen, 0], weight, 24)
    # One question more or less a cell is what an undivided choice may cost; here a cell holds about 25.
    assert (used <= demand.capacity + 3.0).all()
    assert weight @ demand.gain[chosen] == pytest.approx(optimum(demand), rel=0.02)


def test_what_does_not_bind_is_free() -> None:
    demand = made_up(4, 200, 6, 5, 2, scarcity=100.0)
    solved = solve(demand)
    assert not solved.price.any()
    best = np.maximum(demand.gain.reshape(200, 5).max(axis=1), 0.0)
    assert solved.value == pytest.approx(float(best @ demand.weight))


def test_the_price_lies_between_the_last_served_and_the_first_turned_away() -> None:
    gain = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    demand = Demand(np.arange(5), gain, np.zeros((5, 1), np.int64), np.ones((5, 1)), np.ones(5), np.array([2.0]))
    solved = solve(demand)
    assert 3.0 - 0.02 <= solved.price[0] <= 4.0 + 0.02
    assert solved.value == pytest.approx(9.0, rel=1e-3)


def test_nothing_left_costs_as_much_as_stops_everybody() -> None:
    gain = np.array([5.0, 4.0, 1.0])
    cell = np.array([[0], [0], [1]])
    demand = Demand(np.arange(3), gain, cell, np.ones((3, 1)), np.ones(3), np.array([0.0, 5.0]))
    solved = solve(demand)
    assert solved.price[0] == pytest.approx(5.0, rel=0.02)
    assert solved.price[1] == 0.0
    assert solved.value == pytest.approx(1.0, rel=0.02)


def test_a_crowded_hour_costs_what_it_is_better_than_an_empty_one() -> None:
    # Everybody gains 2 in the crowded hour and 1 in the empty one: the crowded hour is worth the difference.
    question = np.repeat(np.arange(100), 2)
    gain, cell = np.tile([2.0, 1.0], 100), np.tile([0, 1], 100)[:, None]
    demand = Demand(question, gain, cell, np.ones((200, 1)), np.ones(100), np.array([30.0, 1000.0]))
    solved = solve(demand)
    assert solved.price == pytest.approx([1.0, 0.0], abs=0.02)
    assert solved.value == pytest.approx(130.0, rel=1e-3)


@pytest.mark.parametrize("gains", [[], [-1.0, 0.0]])
def test_no_useful_question_no_price(gains: list[float]) -> None:
    n = len(gains)
    demand = Demand(
        np.arange(n), np.array(gains), np.zeros((n, 1), np.int64), np.ones((n, 1)), np.ones(n), np.array([1.0])
    )
    solved = solve(demand)
    assert solved.price.tolist() == [0.0]
    assert solved.value == 0.0


def test_questions_that_nobody_asks_make_no_price() -> None:
    demand = made_up(3, 20, 4, 3, 1)
    nobody = solve(replace(demand, weight=np.zeros(20)))
    assert (nobody.price.tolist(), nobody.value) == ([0.0] * 4, 0.0)
    some = np.where(np.arange(20) < 10, demand.weight, 0.0)
    mine = demand.question < 10
    alone = Demand(
        demand.question[mine], demand.gain[mine], demand.cell[mine], demand.take[mine], some, demand.capacity
    )
    assert solve(replace(demand, weight=some)).value == solve(alone).value
