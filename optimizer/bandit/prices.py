"""Shadow prices: what one more unit of something scarce would be worth, learned from a sample of past questions.

The questions ask for things that all share (messages of a period, money of a budget). Who should get them is an
assignment problem, a linear program: choose shares x of the actions of each question so that no cell (a scarce thing in
a class of time) is used beyond its capacity C and the sum of weight x gain is largest. Its dual is

    min over price >= 0 of  f(price) = sum_q w_q max(0, max_a [gain_qa - sum_j price_j take_qaj]) + sum_j price_j C_j ,

and its solution is the price per cell. A policy that maximises gain less price x take (a bid-price control) then gives
the scarce things to those who gain most, without knowing the questions to come.

What is approximated: the future asks as the sample did (the sample average stands for the expectation); an action is
taken or not, and the program lets shares be taken, which matters by at most one question a cell; a cell is a class of
periods, so within it the program spreads use evenly. Asymptotically such prices lose nothing, and computed anew from
what is left they lose a logarithm instead of a root of the number of questions (sources below).

Sources: Talluri & van Ryzin 1998, "An analysis of bid-price controls for network revenue management"; Agrawal, Wang &
Ye 2014, "A dynamic near-optimal algorithm for online linear programming" (prices from a sample of the past, solved anew
with what is left); Jasin & Kumar 2012 (the gain of solving anew); Nesterov 2005 (smoothing a maximum).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Where the relative duality gap is at most this, the prices are good enough: far below what a sample can tell.
GAP = 1e-3
#: Temperatures of the smoothed maximum, as parts of the mean gain; solved from the warmest down.
TEMPERATURES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
#: Newton steps at one temperature at most; a handful is usual.
MOST_STEPS = 50
#: A temperature is done when a step promises less than this part of the objective.
PROMISE = 1e-7
#: Products of at most this many multiplications stay on one thread in OpenBLAS. On a busy machine of two cores a larger
#: one (25 cells, 2,000 questions) took 20 ms with two threads that waited for each other, and .5 ms in such parts.
_ONE_THREAD = 1 << 18
_ARMIJO = 1e-4
_HALVINGS = 30


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """What Q questions ask of P cells.

    An offer is an action of a question, or several that take the same. Not sending is no offer: it gains 0 and takes
    nothing, and every question may have it.

    Attributes:
        question: (n,) int64, ascending, the offer's question 0 … Q-1.
        gain: (n,) float64, the offer's gain over not sending.
        cell: (n, R) int64, the cells that the offer takes from; P = none.
        take: (n, R) float64, how much it takes of each, not negative.
        weight: (Q,) float64, how many questions each one stands for, not negative.
        capacity: (P,) float64, how much there is of each cell.
    """

    question: Ints
    gain: Floats
    cell: Ints
    take: Floats
    weight: Floats
    capacity: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """The prices of the cells.

    Attributes:
        price: (P,) float64, not negative.
        value: f(price), an upper bound of what any choice can gain, whatever it knows.
        gap: how far at most, relative to ``value``, what can be reached stays below it.
    """

    price: Floats
    value: float
    gap: float


def solve(demand: Demand, *, gap: float = GAP) -> Solved:
    """The prices that solve the dual within a relative duality gap.

    The maximum is smoothed to temperature · log sum exp, which also breaks ties evenly, and minimised by Newton steps
    projected to the box 0 <= price <= the largest gain per unit of the cell (a price beyond it stops nobody more). The
    temperature falls until the gap is reached: the smoothed shares, scaled down where a cell is overused, are a choice
    that keeps every capacity, so their gain bounds the optimum from below, as f does from above.
    """
    useful = _useful(demand)
    if not len(useful.gain) or not len(demand.capacity):
        return Solved(np.zeros(len(demand.capacity)), _exact(useful, np.zeros(len(demand.capacity))), 0.0)
    best = np.maximum.reduceat(useful.gain, question_starts(useful.question))
    scale = float(np.average(best, weights=useful.weight[np.unique(useful.question)]))
    highest = _highest(useful)
    price = np.zeros(len(demand.capacity))
    found = Solved(price, _exact(useful, price), 1.0)
    for part in TEMPERATURES:
        price = _minimise(useful, price, part * scale, highest)
        reached = _reached(useful, price, part * scale)
        value = _exact(useful, price)
        now = Solved(price, value, (value - reached) / max(value, 1e-300))
        if now.gap < found.gap:
            found = now
        if found.gap <= gap:
            break
    return found


def _useful(demand: Demand) -> Demand:
    """The offers that gain something, which no price makes more attractive, of questions that somebody asks."""
    keep = (demand.gain > 0) & (demand.weight[demand.question] > 0)
    return Demand(
        demand.question[keep],
        demand.gain[keep],
        demand.cell[keep],
        demand.take[keep],
        demand.weight,
        demand.capacity,
    )


def question_starts(question: Ints) -> Ints:
    """Where the rows of each question start: (n,) ascending numbers of questions."""
    return np.flatnonzero(np.r_[True, question[1:] != question[:-1]])


def _highest(demand: Demand) -> Floats:
    """(P,) the largest gain per unit among the offers that take of a cell."""
    out = np.zeros(len(demand.capacity) + 1)
    taking = demand.take > 0
    ratio = np.divide(demand.gain[:, None], demand.take, out=np.zeros_like(demand.take), where=taking)
    np.maximum.at(out, demand.cell, ratio)
    return out[:-1]


def _net(demand: Demand, price: Floats) -> Floats:
    """(n,) gain less what the offer is charged."""
    charged = np.r_[price, 0.0][demand.cell] * demand.take
    return np.asarray(demand.gain - charged.sum(axis=1))


def _exact(demand: Demand, price: Floats) -> float:
    """f(price)."""
    if not len(demand.gain):
        return float(price @ demand.capacity)
    starts = question_starts(demand.question)
    best = np.maximum(np.maximum.reduceat(_net(demand, price), starts), 0.0)
    return float(best @ demand.weight[demand.question[starts]] + price @ demand.capacity)


def _smoothed(demand: Demand, price: Floats, temperature: float) -> tuple[float, Floats]:
    """The smoothed f(price), and each offer's share of its question (n,)."""
    starts = question_starts(demand.question)
    lengths = np.diff(np.r_[starts, len(demand.question)])
    net = _net(demand, price)
    top = np.maximum(np.maximum.reduceat(net, starts), 0.0)
    raised = np.exp((net - np.repeat(top, lengths)) / temperature)
    total = np.add.reduceat(raised, starts) + np.exp(-top / temperature)
    weight = demand.weight[demand.question[starts]]
    value = weight @ (top + temperature * np.log(total)) + price @ demand.capacity
    return float(value), np.asarray(raised / np.repeat(total, lengths))


def _used(demand: Demand, share: Floats) -> Floats:
    """(P,) how much of each cell is taken."""
    amount = (demand.weight[demand.question] * share)[:, None] * demand.take
    return np.asarray(np.bincount(demand.cell.ravel(), amount.ravel(), len(demand.capacity) + 1)[:-1], np.float64)


def _reached(demand: Demand, price: Floats, temperature: float) -> float:
    """What the smoothed shares gain after they were scaled down to keep every capacity."""
    _, share = _smoothed(demand, price, temperature)
    used = _used(demand, share)
    kept = np.divide(demand.capacity, used, out=np.ones_like(used), where=used > demand.capacity)
    factor = np.where(demand.take > 0, np.r_[kept, 1.0][demand.cell], 1.0).min(axis=1)
    return float(np.sum(demand.weight[demand.question] * share * factor * demand.gain))


def _hessian(demand: Demand, share: Floats, temperature: float) -> Floats:
    """(P, P) second derivatives of the smoothed f."""
    cells, rules = len(demand.capacity) + 1, demand.cell.shape[1]
    weighted = demand.weight[demand.question] * share
    square = np.zeros(cells * cells)
    for i in range(rules):
        for j in range(rules):
            place = demand.cell[:, i] * cells + demand.cell[:, j]
            square += np.bincount(place, weighted * demand.take[:, i] * demand.take[:, j], cells * cells)
    mean = np.zeros(len(demand.weight) * cells)
    for i in range(rules):
        mean += np.bincount(demand.question * cells + demand.cell[:, i], share * demand.take[:, i], mean.size)
    by_question = mean.reshape(-1, cells)[:, :-1]
    inner = square.reshape(cells, cells)[:-1, :-1]
    outer = np.zeros_like(inner)
    rows = max(1, _ONE_THREAD // inner.size)
    for i in range(0, len(by_question), rows):
        part = by_question[i : i + rows]
        outer += (part * demand.weight[i : i + rows, None]).T @ part
    return np.asarray((inner - outer) / temperature)


def _minimise(demand: Demand, price: Floats, temperature: float, highest: Floats) -> Floats:
    """The smoothed minimum by projected Newton steps (Bertsekas 1982); a cell that its slope holds at a bound stays."""
    value, share = _smoothed(demand, price, temperature)
    for _ in range(MOST_STEPS):
        slope = demand.capacity - _used(demand, share)
        held = ((price <= 0) & (slope > 0)) | ((price >= highest) & (slope < 0))
        free = np.flatnonzero(~held)
        if not free.size:
            return price
        bent = _hessian(demand, share, temperature)[np.ix_(free, free)]
        damp = 1e-8 * (1.0 + float(np.trace(bent)) / free.size)
        step = np.zeros_like(price)
        step[free] = np.linalg.solve(bent + damp * np.eye(free.size), -slope[free])
        better = _line_search(demand, price, step, slope, value, temperature, highest)
        if better is None:
            return price
        fallen = value - better[1]
        price, value, share = better
        if fallen <= PROMISE * abs(value):
            return price
    return price


def _line_search(
    demand: Demand,
    price: Floats,
    step: Floats,
    slope: Floats,
    value: float,
    temperature: float,
    highest: Floats,
) -> tuple[Floats, float, Floats] | None:
    """The first of ever shorter projected steps that lowers the smoothed f as its slope promises; None: none does."""
    length = 1.0
    for _ in range(_HALVINGS):
        trial = np.clip(price + length * step, 0.0, highest)
        lower, share = _smoothed(demand, trial, temperature)
        if lower <= value + _ARMIJO * float(slope @ (trial - price)) and lower < value:
            return trial, lower, share
        length *= 0.5
    return None
