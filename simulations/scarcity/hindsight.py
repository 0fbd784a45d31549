"""The best that hindsight allows: all requests known, a linear program decides who gets what is scarce, and when.

Shares of an action may be taken, so its optimum is at least that of any choice. It is solved by HiGHS and shares no
code with the prices. Under a cap its windows are fewer than the rule's (those of seven whole days that start at
midnight), which can only raise it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.actions import build_space
from optimizer.bandit.localtime import zone
from optimizer.bandit.scarce import moment
from optimizer.model.moment import seen_at
from optimizer.service.serving import load_policy
from simulations.scarcity.arms import Taken, opened
from simulations.scarcity.crowd import (
    CAMPAIGN,
    CHANNELS,
    DAY,
    HOUR,
    START,
    VARIANTS,
    WORKSPACE,
    Course,
    Crowd,
    Floats,
    Ints,
    campaign,
    rule,
    window,
)
from simulations.stage import LearningError
from storage.rules import MICROS, Budget, Cap, Capacity

COSTS = np.array([cost for _, cost in CHANNELS])


@dataclass(frozen=True, eq=False)
class Options:
    """All that m actions of the requests could do; of those that take the same, the best by ``gain``.

    Attributes:
        row: (m,) int64, the request.
        send_at: (m,) int64. channel: (m,) int64.
        gain: (m,) float64, what the program maximises. true: (m,) float64, the true gain.
    """

    row: Ints
    send_at: Ints
    channel: Ints
    gain: Floats
    true: Floats


def options(course: Course, people: Crowd, rows: Ints, predicted: Floats | None = None) -> Options:
    """The actions of requests ``rows``; ``predicted`` (len(rows), slots, V, C) gains instead of the true ones.

    Args:
        course: the course.
        people: its requests.
        rows: which of them.
        predicted: what a policy expects to gain; slots beyond a request's window are not looked at.
    """
    parts = []
    for slot in range(_slots(course, people, rows)):
        send_at = people.at[rows] + slot * HOUR
        inside = np.array([window(course, at)[1].timestamp() for at in people.at[rows].tolist()]) > send_at
        true = people.chance(rows, send_at) - COSTS
        gain = true if predicted is None else predicted[:, slot]
        best = gain.argmax(axis=1)  # texts cost the same
        for channel in range(len(CHANNELS)):
            chosen = best[:, channel]
            one = np.arange(len(rows))
            parts.append(
                (
                    rows[inside],
                    send_at[inside],
                    np.full(int(inside.sum()), channel, np.int64),
                    gain[one, chosen, channel][inside],
                    true[one, chosen, channel][inside],
                )
            )
    return Options(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _slots(course: Course, people: Crowd, rows: Ints) -> int:
    start, end = window(course, int(people.at[rows[0]]))
    return int((end - start).total_seconds()) // HOUR


def predicted_gains(folder: Path, course: Course, people: Crowd, rows: Ints, seed: int) -> Floats:
    """(len(rows), slots, V, C) what the folder's policy expects each action to gain over not sending."""
    slots = _slots(course, people, rows)
    out = np.zeros((len(rows), slots, len(VARIANTS), len(CHANNELS)))
    with opened(folder, seed, START) as (services, _), services.store.read() as reader:
        pointer = reader.pointer(WORKSPACE, CAMPAIGN)
        if pointer is None:
            raise LearningError("the campaign serves no policy")
        model = load_policy(reader, WORKSPACE, pointer.policy_id, {}).models[-1]
        if model is None:
            raise LearningError("the policy has no model")
        seen = [seen_at(people.context(i), moment(int(people.at[i]))) for i in rows.tolist()]
        embedded = model.embed(seen)
        for i, (row, x) in enumerate(zip(rows.tolist(), embedded, strict=True)):
            space = build_space(
                variants=VARIANTS,
                channels=tuple(name for name, _ in CHANNELS),
                window=window(course, int(people.at[row])),
                slot_minutes=60,
                spread=False,
                immediate=False,
                no_send=True,
                decision_id="hindsight",
                zone=zone("UTC"),
            )
            reward = model.score(x, space, campaign(), {}).reward
            cube = (reward[:-1] - reward[-1]).reshape(space.shape)
            out[i, : space.slots] = cube.transpose(1, 0, 2)
    return out


def best_gain(course: Course, people: Crowd, choices: Options, before: Taken) -> float:
    """The true gain of the program's solution, given what the learning days have reserved or sent.

    Args:
        course: the course.
        people: its requests.
        choices: the actions of the requests that are decided.
        before: what was done with the requests before them.
    """
    keep = choices.gain > 0
    choices = _part(choices, keep)
    parameters = rule(course).parameters
    if isinstance(parameters, Capacity):
        choices = _part(choices, _best_of(choices, choices.send_at))  # a message takes one place on every channel
        share = _solve(choices, [_hours(choices, before, parameters.limit)])
    elif isinstance(parameters, Budget):
        share = _solve(choices, [_weeks(choices, before, parameters.amount / MICROS)])
    elif isinstance(parameters, Cap):
        share = _by_person(people, choices, before, parameters.limit)
    else:
        raise TypeError(f"{course.scarcity}: nothing scarce")
    return float(share @ choices.true)


def _part(choices: Options, rows: Ints | NDArray[np.bool_]) -> Options:
    return Options(*(getattr(choices, name)[rows] for name in choices.__dataclass_fields__))


def _best_of(choices: Options, place: Ints) -> Ints:
    """Of the options of a request in one place (m,), the index of the best."""
    order = np.lexsort((-choices.gain, place, choices.row))
    first = np.r_[True, (np.diff(choices.row[order]) != 0) | (np.diff(place[order]) != 0)]
    return np.asarray(order[first], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Limit:
    """One family of constraints: entries (place, column) -> amount, and what is left of each place."""

    place: Ints
    column: Ints
    amount: Floats
    left: Floats


def _hours(choices: Options, before: Taken, limit: int) -> Limit:
    hour = choices.send_at // HOUR
    places, place = np.unique(hour, return_inverse=True)
    used = np.array([int(np.count_nonzero(before.sent & (before.send_at // HOUR == p))) for p in places])
    columns = np.arange(len(hour))
    return Limit(place, columns, np.ones(len(hour)), np.maximum(limit - used, 0).astype(np.float64))


def _weeks(choices: Options, before: Taken, amount: float) -> Limit:
    week = (choices.send_at - START) // (7 * DAY)  # START is a Monday
    places, place = np.unique(week, return_inverse=True)
    earlier = np.where(before.sent, (before.send_at - START) // (7 * DAY), -1)
    spent = np.array([COSTS[before.channel[earlier == p]].sum() for p in places])
    return Limit(place, np.arange(len(week)), COSTS[choices.channel], np.maximum(amount - spent, 0.0))


def _by_person(people: Crowd, choices: Options, before: Taken, limit: int) -> Floats:
    """A program for each person: at most ``limit`` in any seven days from a midnight on, earlier messages counted."""
    share = np.zeros(len(choices.row))
    who = people.person[choices.row]
    day = (choices.send_at - START) // DAY
    earlier_who, earlier_day = (
        people.person[: len(before.sent)][before.sent],
        (before.send_at[before.sent] - START) // DAY,
    )
    for person in np.unique(who).tolist():
        mine = np.flatnonzero(who == person)
        # Actions of a request on one day share every window: the best of them is enough.
        own = mine[_best_of(_part(choices, mine), day[mine])]
        chosen = _part(choices, own)
        held = earlier_day[earlier_who == person]
        share[own] = _solve(chosen, [_windows(day[own], held, limit)])
    return share


def _windows(day: Ints, held: Ints, limit: int) -> Limit:
    starts = np.arange(int(day.min()) - 6, int(day.max()) + 1)
    inside = (day[None, :] >= starts[:, None]) & (day[None, :] < starts[:, None] + 7)
    taken = ((held[None, :] >= starts[:, None]) & (held[None, :] < starts[:, None] + 7)).sum(axis=1)
    place, column = np.nonzero(inside)
    return Limit(place, column, np.ones(len(place)), np.maximum(limit - taken, 0).astype(np.float64))


def _solve(choices: Options, limits: Sequence[Limit]) -> NDArray[np.float64]:
    """(m,) the shares: at most one action a request, no place beyond what is left."""
    from scipy.optimize import linprog
    from scipy.sparse import coo_matrix

    _, request = np.unique(choices.row, return_inverse=True)
    rows, columns, values = [request], [np.arange(len(request))], [np.ones(len(request))]
    bounds = [np.ones(int(request.max()) + 1)]
    offset = len(bounds[0])
    for limit in limits:
        rows.append(offset + limit.place)
        columns.append(limit.column)
        values.append(limit.amount)
        bounds.append(limit.left)
        offset += len(limit.left)
    place = (np.concatenate(rows), np.concatenate(columns))
    matrix = coo_matrix((np.concatenate(values), place), shape=(offset, len(request))).tocsr()
    solved = linprog(-choices.gain, A_ub=matrix, b_ub=np.concatenate(bounds), bounds=(0, 1), method="highs")
    if solved.status != 0:
        raise RuntimeError(f"the program was not solved: {solved.message}")
    return np.asarray(solved.x)
