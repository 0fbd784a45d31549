"""The logits of an action as a sum of named terms: which feature, acting through what, adds how much to each outcome.

A head is linear in its base row (see ``layout``), so its terms are exact. What an encoded context passes through a
network first is told apart by integrated gradients (see ``learnedparts``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from optimizer.model.copywords import token_coordinates
from optimizer.model.features import FeatureSpec
from optimizer.model.heads import Heads
from optimizer.model.history import HISTORY
from optimizer.model.inference import RewardModel
from optimizer.model.layout import Action, Block, Segment, Unit
from optimizer.model.learnedparts import LearnedParts
from optimizer.model.timefeatures import HOURS_OF_DAY, TIME_NAMES, harmonics, hour_of_week
from storage.records import JsonObject, Variant

Floats = NDArray[np.float64]


@dataclass(frozen=True, order=True)
class Name:
    """What a term is of.

    ``kind``: level (of doing this at all), campaign, channel, variant, pair (variant on channel), copy (a feature or
    word of the variant), attribute, product (of two attributes), history, hour, weekday, rhythm. ``through``: what an
    attribute, a product, the history or the time acts through: "" (alike for all messages), variant, channel, pair,
    campaign, time.
    """

    kind: str
    feature: str
    through: str = ""


#: Terms (H,) by name.
Terms = Mapping[Name, Floats]

LEVEL: Final = Name("level", "sending at all")
_OWN: Final[Mapping[Unit, Name]] = {
    "one": LEVEL,
    "campaign": Name("campaign", "the campaign"),
    "channel": Name("channel", "the channel"),
    "variant": Name("variant", "the variant itself"),
    "pair": Name("pair", "the variant on this channel"),
}
#: Of a variant's coordinates: with the average context's learned columns, and alone, which is told apart by word.
_COPY: Final = (Name("copy", "features and words together"), Name("copy", ""))
_TIMED: Final[frozenset[Segment]] = frozenset({"time", "weekday", "plain_time", "hour", "week"})
_HOUR, _WEEKDAY = Name("hour", "hour of the day"), Name("weekday", "weekday")


@dataclass(frozen=True)
class Seen:
    """A context as a model reads it: f(x), and what the learned columns owe to which feature."""

    x: Floats
    parts: LearnedParts | None
    effects: JsonObject
    _columns: dict[tuple[int, Segment, int], tuple[list[Name], Floats]] = field(default_factory=dict)

    def columns(self, heads: Heads, spec: FeatureSpec, segment: Segment, local: int) -> tuple[list[Name], Floats]:
        """``_columns``, worked out once: the actions of a decision share most of them."""
        key = (id(heads), segment, local if segment in _TIMED else 0)
        if key not in self._columns:
            self._columns[key] = _columns(heads, spec, self, segment, local)
        return self._columns[key]


def message_terms(
    model: RewardModel, seen: Seen, campaign_id: str, variant: Variant, channel: str, local: int
) -> dict[Name, Floats]:
    """Terms of the message heads for one message at local second ``local``; they add up to the logits."""
    heads = model.message
    action = Action(campaign_id, variant.id, channel, model.basis.coordinates(variant))
    found = _linear(heads, model.spec, action, seen, local)
    _add(found, LEVEL, heads.offset)
    if heads.blind:
        _add(found, _OWN["channel"], heads.deemed(action))
    _split_copy(found, model, variant)
    if model.rhythm is not None:
        shift = model.rhythm.shift(heads.outcomes, seen.effects, np.array([local], dtype=np.int64))
        if shift is not None:
            _add(found, Name("rhythm", "the recipient's own hours"), shift[:, 0])
    return found


def no_send_terms(model: RewardModel, seen: Seen, campaign_id: str) -> dict[Name, Floats]:
    """Terms of the heads of not sending."""
    found = _linear(model.no_send, model.spec, Action(campaign_id), seen, 0)
    _add(found, LEVEL, model.no_send.offset)
    return found


def _linear(heads: Heads, spec: FeatureSpec, action: Action, seen: Seen, local: int) -> dict[Name, Floats]:
    """Weight x value of every weight that acts on the action, by name."""
    found: dict[Name, Floats] = {}
    for block in heads.layout.blocks:
        names, values = seen.columns(heads, spec, block.segment, local)
        for row, factor in heads.layout.rows_of(block, action):
            weights = heads.mean[:, block.start + row * block.width :][:, : block.width]
            for name, term in zip(names, (factor * weights @ values).T, strict=True):
                _add(found, _through(block, name), term)
    return found


def _through(block: Block, name: Name) -> Name:
    """The name of a column's term in a block."""
    unit = block.unit
    if name == LEVEL:
        return _COPY[block.segment == "one"] if unit == "feature" else _OWN[unit]
    if unit == "one":
        return name
    through = {"feature": "variant"}.get(unit, unit)
    return Name(name.kind, name.feature, through)


def _columns(heads: Heads, spec: FeatureSpec, seen: Seen, segment: Segment, local: int) -> tuple[list[Name], Floats]:
    """Of a segment's columns the names (J,) and what each column's value owes to each of them, (width, J)."""
    layout = heads.layout
    if segment == "one":
        return [LEVEL], np.ones((1, 1))
    if segment == "network":
        return _learned(spec, seen, layout.network)
    if segment in ("plain", "detail"):
        positions = layout.plain if segment == "plain" else layout.detail
        return _named([owner_name(spec, position) for position in positions], seen.x[list(positions)])
    now = np.array([local], dtype=np.int64)
    if segment in ("time", "weekday", "plain_time"):
        tau = harmonics(now)[0]
        if segment != "plain_time":
            columns = layout.time if segment == "time" else layout.weekday
            return _named([_time_name(column) for column in columns], tau[list(columns)])
        names = [Name(*_bare(owner_name(spec, position)), "time") for _, position in _pairs(heads)]
        return _named(names, np.array([tau[column] * seen.x[position] for column, position in _pairs(heads)]))
    hour = int(hour_of_week(now)[0])
    if segment == "hour":
        return _named([_HOUR] * len(layout.hour), np.array([float(one == hour % HOURS_OF_DAY) for one in layout.hour]))
    return _named([_WEEKDAY] * len(layout.week), np.array([float(one == hour) for one in layout.week]))


def _pairs(heads: Heads) -> list[tuple[int, int]]:
    """Time column and position in f(x) of each column of context x time."""
    return [(column, position) for column in heads.layout.short for position in heads.layout.plain]


def _learned(spec: FeatureSpec, seen: Seen, positions: Sequence[int]) -> tuple[list[Name], Floats]:
    """The learned columns' values, by what they owe to: each feature, the history in its order, the average."""
    if seen.parts is None or not positions:
        return _named([LEVEL] * len(positions), seen.x[list(positions)])
    places = [position - spec.width for position in positions]
    owners = (_of_owner(spec, owner) for owner in range(len(seen.parts.owners)))
    names = [LEVEL, *owners, Name("history", "what happened last, in order")]
    parts = seen.parts
    values = np.vstack([parts.average, parts.by_owner, parts.history])[:, places]
    names.append(Name("residual", "residual of the network's path"))
    return names, np.vstack([values, parts.residual[None, places]]).T


def owner_name(spec: FeatureSpec, position: int) -> Name:
    """The feature that a number of the encoded context comes from."""
    return _of_owner(spec, spec.owner[position])


def _of_owner(spec: FeatureSpec, owner: int) -> Name:
    kind, name = spec.kind(owner), spec.owners[owner]
    return Name(kind, name.removeprefix(HISTORY).lstrip(".") if kind == "history" else name)


def _bare(name: Name) -> tuple[str, str]:
    return name.kind, name.feature


def _time_name(column: int) -> Name:
    return _HOUR if TIME_NAMES[column].startswith("day") else _WEEKDAY


def _named(columns: Sequence[Name], values: Floats) -> tuple[list[Name], Floats]:
    """One name a column, names merged: (J,) and (width, J)."""
    names = list(dict.fromkeys(columns))
    place = {name: i for i, name in enumerate(names)}
    out = np.zeros((len(columns), len(names)))
    out[np.arange(len(columns)), [place[name] for name in columns]] = values
    return names, out


def _split_copy(found: dict[Name, Floats], model: RewardModel, variant: Variant) -> None:
    """Tells the variant's coordinates apart by its features and words."""
    if found.pop(_COPY[True], None) is None:
        return
    block = next(b for b in model.message.layout.blocks if (b.unit, b.segment) == ("feature", "one"))
    weights = model.message.mean[:, block.start : block.start + block.size]
    parts, rest = token_coordinates(variant, model.basis)
    for token, coordinates in parts.items():
        told = token.text if token.kind == "feature" else f"“{token.text}”"
        _add(found, Name("copy", told), weights @ coordinates[: block.size])
    _add(found, Name("copy", "the average variant"), weights @ rest[: block.size])


def _add(found: dict[Name, Floats], name: Name, term: Floats) -> None:
    found[name] = found[name] + term if name in found else np.array(term, dtype=np.float64)
