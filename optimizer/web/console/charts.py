"""Charts as places on a page: x in percent of the width, y in pixels of a fixed height. ``charts.html`` draws them.

Text keeps its size however wide the page is, since only what has no text is stretched. Everything a chart shows is also
in a table beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: Height of a curve's and a history's plot, in pixels.
HEIGHT: Final = 200
_TICKS: Final = 4
#: Points with bounds without which a curve shows those before them too.
_STATED: Final = 5
#: Series have so many colours; later ones share the last.
SERIES: Final = 8


@dataclass(frozen=True, slots=True)
class Tick:
    """A value on an axis, and where it is."""

    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Scale:
    """A straight scale from values to places."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value; values beyond the ends lie at the ends."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 2)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with bounds; None where nothing is known."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Whisker:
    """An estimate as a dot on a line, in percent; None where there is none, or no bounds."""

    dot: float | None
    low: float | None
    high: float | None
    clipped: bool


@dataclass(frozen=True, slots=True)
class Curve:
    """A line with a band around it; x of the area is 0 to 100, y 0 to ``HEIGHT``."""

    line: str
    band: str
    zero: float
    ticks: tuple[Tick, ...]
    places: tuple[float, ...]
    last: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a bar."""

    x: float
    y: float
    width: float
    height: float
    series: int


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars, each of pieces that lie on each other."""

    parts: tuple[Part, ...]
    ticks: tuple[Tick, ...]
    places: tuple[float, ...]


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers that cover a range: steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not span > 0.0:
        return [low]
    rough = span / _TICKS
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1.0, 2.0, 5.0, 10.0) if size * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def drawn_from(points: Sequence[Estimate]) -> int:
    """Which point a curve begins at, see ``curve``."""
    stated = [n for n, p in enumerate(points) if p.low is not None]
    return stated[0] if len(stated) >= _STATED else 0


def curve(points: Sequence[Estimate], days: Sequence[int]) -> Curve | None:
    """A curve through estimates of ascending days; None where there are fewer than two.

    It begins where bounds can be stated, if they can be at enough of them: what comes before is noise. Bounds that are
    far wider than usual are cut off: early ones would flatten the rest.
    """
    first = drawn_from(points)
    known = [(day, p) for day, p in zip(days[first:], points[first:], strict=True) if p.value is not None]
    if len(known) < 2:
        return None
    estimates = [p for _, p in known]
    wanted = [0.0, *(p.value or 0.0 for p in estimates), *_usual_bounds(estimates)]
    marks = nice_ticks(min(wanted), max(wanted))
    if len(marks) == 1:
        marks = [marks[0], marks[0] + 1.0]
    y = Scale(marks[0], marks[-1], HEIGHT, 0.0)
    across = Scale(known[0][0], known[-1][0], 0.0, 100.0)
    places = tuple(across(day) for day, _ in known)
    line = "M" + " L".join(f"{x} {y(p.value or 0.0)}" for x, p in zip(places, estimates, strict=True))
    bounded = [(x, p) for x, p in zip(places, estimates, strict=True) if p.low is not None and p.high is not None]
    band = ""
    if len(bounded) > 1:
        above = [f"{x} {y(p.high or 0.0)}" for x, p in bounded]
        below = [f"{x} {y(p.low or 0.0)}" for x, p in reversed(bounded)]
        band = "M" + " L".join([*above, *below]) + " Z"
    ticks = tuple(Tick(value, y(value)) for value in marks)
    return Curve(line, band, y(0.0), ticks, places, (places[-1], y(estimates[-1].value or 0.0)))


def colours(names: Sequence[str | None], known: Sequence[str] = ()) -> list[int]:
    """The colour of each series: nothing (None) has the quiet last one, later series share the one before it.

    Those that are ``known`` come first and in that order, so that each has its colour whichever others are shown.
    """
    places = {name: place for place, name in enumerate(dict.fromkeys([*known, *names]))}
    return [SERIES if name is None else min(places[name] + 1, SERIES - 1) for name in names]


def _usual_bounds(estimates: Sequence[Estimate]) -> list[float]:
    """Their bounds, no further from the estimate than three times the usual width."""
    known = [(e.value, e.low, e.high) for e in estimates]
    bounded = [(v, low, high) for v, low, high in known if v is not None and low is not None and high is not None]
    widths = sorted(high - low for _, low, high in bounded)
    usual = 3.0 * widths[len(widths) // 2] if widths else 0.0
    return [bound for v, low, high in bounded for bound in (max(low, v - usual), min(high, v + usual))]


def stack(bars: Sequence[Sequence[float]], series: Sequence[int]) -> Bars | None:
    """Bars of equal width, one beside the other; None where they hold nothing.

    Args:
        bars: for each the sizes of its pieces, from below.
        series: the colours of the pieces.
    """
    tallest = max((sum(bar) for bar in bars), default=0.0)
    if tallest <= 0.0:
        return None
    marks = nice_ticks(0.0, tallest)
    y = Scale(0.0, marks[-1], HEIGHT, 0.0)
    width = 100.0 / len(bars)
    parts = []
    for place, bar in enumerate(bars):
        below = 0.0
        for colour, size in zip(series, bar, strict=True):
            if size > 0.0:
                top, foot = y(below + size), y(below)
                x = round(place * width + 0.08 * width, 3)
                parts.append(Part(x, top, round(0.84 * width, 3), round(foot - top, 2), colour))
            below += size
    places = tuple(round((place + 0.5) * width, 2) for place in range(len(bars)))
    return Bars(tuple(parts), tuple(Tick(value, y(value)) for value in marks), places)


def shares(bars: Sequence[Sequence[float]], series: Sequence[int]) -> Bars | None:
    """As ``stack``, each bar as shares of its sum, in percent."""
    return stack([[100.0 * size / (sum(bar) or 1.0) for size in bar] for bar in bars], series)


@dataclass(frozen=True, slots=True)
class Whiskers:
    """Estimates under each other on one scale."""

    rows: tuple[Whisker, ...]
    zero: float | None
    low: float
    high: float


def whiskers(estimates: Sequence[Estimate], *, zero: bool = False) -> Whiskers | None:
    """Estimates on one scale; None where none is known. Bounds that are far wider than the others' are clipped.

    Args:
        estimates: in the order of the rows.
        zero: whether 0 belongs on the scale.
    """
    values = [e.value for e in estimates if e.value is not None]
    if not values:
        return None
    wanted = [*values, *([0.0] if zero else [])]
    wanted += _usual_bounds(estimates)
    low, high = min(wanted), max(wanted)
    margin = (high - low) * 0.05 or 1.0
    x = Scale(low - margin, high + margin, 0.0, 100.0)
    rows = tuple(
        Whisker(
            None if e.value is None else x(e.value),
            None if e.low is None else x(e.low),
            None if e.high is None else x(e.high),
            clipped=(e.low is not None and e.low < x.low) or (e.high is not None and e.high > x.high),
        )
        for e in estimates
    )
    return Whiskers(rows, x(0.0) if x.low <= 0.0 <= x.high else None, x.low, x.high)


@dataclass(frozen=True, slots=True)
class Cell:
    """An hour of the week in a heat map: how deep its colour is, 0 to 1; None = nothing happened there."""

    weekday: int
    hour: int
    depth: float | None
    count: int
    value: float | None


def heat(counts: Sequence[int], values: Sequence[float | None]) -> list[Cell]:
    """The 168 hours of a week from Monday: the deeper, the higher the value among the hours of this channel.

    Hours with few messages are drawn towards the mean of all, so that one lucky message is no hot spot.
    """
    total = sum(counts)
    if not total:
        return [Cell(n // 24, n % 24, None, 0, None) for n in range(len(counts))]
    mean = sum((v or 0.0) * n for v, n in zip(values, counts, strict=True)) / total
    few = max(1.0, total / 168.0)
    drawn = [(n * (v or 0.0) + few * mean) / (n + few) if n else None for v, n in zip(values, counts, strict=True)]
    known = [one for one in drawn if one is not None]
    low, span = min(known), max(known) - min(known)
    return [
        Cell(
            place // 24,
            place % 24,
            None if one is None else round((one - low) / span, 3) if span > 0.0 else 0.5,
            counts[place],
            values[place],
        )
        for place, one in enumerate(drawn)
    ]


def intensity(weights: Sequence[float]) -> list[Cell]:
    """The 168 hours of a week from Monday, the deeper, the more there is of something."""
    most = max(weights, default=0.0)
    return [
        Cell(place // 24, place % 24, round(one / most, 3) if one > 0.0 else None, round(one), one)
        for place, one in enumerate(weights)
    ]
