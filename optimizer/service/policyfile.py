"""A policy given as a file: for logged decisions, the probabilities that it would have chosen with.

One row a decision, NDJSON or Parquet, with ``decision_id`` and ``probability``, which is one of

- a list over the decision's whole action space, as ``sendtide export feedback`` writes it;
- an object from action index to probability (a JSON text in Parquet); what is left out has probability 0;
- one number, the probability of the logged action. Then nothing is known of the other actions, so the direct method
  and what builds on it need two more numbers a row: ``predicted``, the reward that a model predicts for the logged
  action, and ``value``, the mean of its predictions under the policy.

Distributions are checked, of every decision of the campaign that the file speaks of, evaluated on or not: no negative
entry, nothing outside the eligible set, a sum of 1 within 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from optimizer.errors import Invalid, SendtideError
from optimizer.service.replay import eligible_logged
from optimizer.service.rowfiles import RowFile
from storage.log import Decision

Floats = NDArray[np.float64]

#: How far a distribution may miss 1, and how much mass may lie outside the eligible set: rounding of a file.
TOLERANCE = 1e-6
#: Columns that are read; any others are welcome.
COLUMNS = ("decision_id", "probability", "predicted", "value")


@dataclass(frozen=True)
class Given:
    """What a file says of one decision, unchecked: which row said it, and its cells."""

    line: int
    probability: Any
    predicted: float | None
    value: float | None

    def vector(self, decision: Decision) -> Floats | None:
        """(K,) the distribution, checked; None where only the logged action's probability is given.

        Raises:
            Invalid: it is no distribution over the decision's eligible set.
        """
        told = self.probability
        if isinstance(told, int | float):
            return None
        vector = np.zeros(decision.actions)
        if isinstance(told, Mapping):
            for key, value in told.items():
                vector[self._action(key, decision)] = self._number("probability", value)
        else:
            if len(told) != decision.actions:
                raise self._bad("probability", f"has {len(told)} entries, the action space {decision.actions}")
            vector[:] = [self._number("probability", value) for value in told]
        if np.any(vector < 0.0):
            raise self._bad("probability", f"{float(vector.min()):g} must not be negative")
        outside = float(vector[~eligible_logged(decision)].sum())
        if outside > TOLERANCE:
            raise self._bad("probability", f"{outside:g} lies on actions that are not eligible")
        if abs(float(vector.sum()) - 1.0) > TOLERANCE:
            raise self._bad("probability", f"sums to {float(vector.sum()):.9g}, must be 1")
        return vector

    def chance(self) -> float:
        """The logged action's probability, where only that is given."""
        chance = self._number("probability", self.probability)
        if not 0.0 <= chance <= 1.0 + 1e-9:
            raise self._bad("probability", f"{chance:g} must lie in [0, 1]")
        return chance

    def _action(self, key: Any, decision: Decision) -> int:
        try:
            action = int(key)
        except ValueError:
            raise self._bad("probability", f"{key!r} is no action index") from None
        if str(action) != str(key):  # "00" would be a second "0"
            raise self._bad("probability", f"{key!r} is no action index: it must be written {action}")
        if not 0 <= action < decision.actions:
            raise self._bad("probability", f"action {action} is not in 0 … {decision.actions - 1}")
        return action

    def _number(self, column: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._bad(column, f"{value!r} must be a finite number")
        return float(value)

    def _bad(self, column: str, what: str) -> Invalid:
        return Invalid.field(f"{column}", f"line {self.line}: {what}")


@dataclass(frozen=True)
class Told:
    """What a file says, by decision id; ``nulls``: how many further rows have a probability of null and say nothing."""

    given: Mapping[str, Given]
    nulls: int


def read_policy(path: Path) -> Told:
    """What a file says of decisions.

    Raises:
        Invalid: a row that can't be read or repeats a decision, with its line: estimates from what is left of a file
            would look like estimates of the whole.
    """
    found: dict[str, Given] = {}
    nulls = 0
    with RowFile(path) as file:
        for line, row in file.rows():
            if isinstance(row, SendtideError):
                raise Invalid.field("file", f"line {line}: {row.detail}")
            given = _given(line, row)
            if given is None:
                nulls += 1
                continue
            name = str(row["decision_id"])
            if name in found:
                raise Invalid.field("decision_id", f"line {line}: {name} is on line {found[name].line} already")
            found[name] = given
    return Told(found, nulls)


def _given(line: int, row: Mapping[str, Any]) -> Given | None:
    for column in ("decision_id", "probability"):
        if column not in row:
            raise Invalid.field(column, f"line {line}: missing; a row needs decision_id and probability")
    told = row["probability"]
    if isinstance(told, str):
        told = _json(line, told)
    if told is None:
        return None
    if not isinstance(told, int | float | list | Mapping) or isinstance(told, bool):
        raise Invalid.field("probability", f"line {line}: must be a list, an object or a number")
    given = Given(line, told, None, None)
    more = {name: given._number(name, row[name]) for name in ("predicted", "value") if row.get(name) is not None}
    return Given(line, told, more.get("predicted"), more.get("value"))


def _json(line: int, text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as fault:
        raise Invalid.field("probability", f"line {line}: not JSON: {fault}") from None
