"""Which features can't be trusted: examined on the training rows, reported by name, left out or guarded.

Found are features that are constant, mostly missing, exploding (values that no encoding survives), identities (a level
of its own for nearly everyone), leaking (known only after the send), unreadable (their type can't read many values) and
shifted (the newer rows look unlike the older). All but the last two are left out of the run's feature spec. A shifted
one stays: what ``model.columns`` makes of a number ends at the range that was seen, five standard deviations from its
mean, so that is its guard, and it is named. What can't be read is missing, and said to be.
One that few rows have stays too, where they are enough to learn from: what doesn't matter is shrunk away by the fit.
And whatever can be read of an attribute that was declared for the model stays, since its owner knows when it is known;
what was found is told.
Outcomes that come late are named by whoever knows when events came in.

All features are examined, however many. Those that stay may be too wide together: ``fit_spec`` chooses, and it is told.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.drift import compare
from optimizer.model.columns import CategoryColumn, Column, NumberColumn
from optimizer.model.examples import Examples
from optimizer.model.features import MAX_WIDTH, FeatureSpec, Widths, fit_spec, kind_of
from optimizer.model.reading import parse_category
from optimizer.model.training.attributetypes import readable, unreadable
from optimizer.model.training.exploding import exploding
from optimizer.model.training.findings import SHIFT_ROWS, Finding, QualityLimits
from optimizer.model.training.leaks import Leak, foretold, leak_of
from storage.records import Attribute, AttributeType, JsonObject

#: Rows looked at, spread evenly over time: enough for every test.
MOST_ROWS = 20_000
#: Bins of a number, and named levels of a category, when older and newer rows are compared.
_SHIFT_BINS, _SHIFT_LEVELS = 10, 20


@dataclass(frozen=True)
class Quality:
    """What was found, and in how many rows and features it was looked for."""

    rows: int
    features: int
    findings: tuple[Finding, ...]
    limits: QualityLimits

    @cached_property
    def left_out(self) -> tuple[str, ...]:
        """Features that the run does without, sorted."""
        return tuple(sorted({finding.feature for finding in self.findings if finding.left_out}))

    def registry(self, attributes: Sequence[Attribute], workspace_id: str) -> tuple[Attribute, ...]:
        """The attribute registry in which what can't be trusted is not used by the model. What is too wide is: a spec
        of all rows chooses by itself what fits."""
        out = {finding.feature for finding in self.findings if finding.left_out and finding.problem != "too_wide"}
        known = [replace(a, use_in_model=a.use_in_model and a.name not in out) for a in attributes]
        new = sorted(out - {a.name for a in attributes})
        return (*known, *(Attribute(workspace_id, name, "category", use_in_model=False) for name in new))

    def to_json(self) -> dict[str, Any]:
        """For the run's verdict."""
        return {
            "rows": self.rows,
            "features": self.features,
            "left_out": list(self.left_out),
            "findings": [asdict(finding) for finding in self.findings],
            "errors": {"leaking": self.limits.leak_error, "shifted": self.limits.shift_error},
        }


def examine(examples: Examples, attributes: Sequence[Attribute] = ()) -> Quality:
    """Examines every feature that the model would read.

    Args:
        examples: the training rows, in order of time: the first half are the older ones.
        attributes: the registry; what is not used by the model is not examined, and of what was declared for it no
            column is left out.
    """
    limits = QualityLimits()
    n = len(examples)
    if n == 0:
        return Quality(0, 0, (), limits)
    rows = examples.take(np.array(looked_at(n), np.int64))
    spec = fit_spec(rows.contexts, attributes, Widths(most=sys.maxsize))
    types = {attribute.name: attribute.type for attribute in attributes}
    findings = [f for name in spec.dropped if (f := _dropped(rows.contexts, name, types.get(name))) is not None]
    tests = max(1, len(spec.columns) * max(1, len(rows.outcomes)))
    shares = limits.leak_error / tests, limits.shift_error / max(1, len(spec.columns))
    declared = {attribute.name for attribute in attributes if attribute.declared}
    sensitive = {attribute.name for attribute in attributes if attribute.sensitive}
    for column in spec.columns:
        misread = _unreadable(column, rows.contexts, limits, told=column.name not in sensitive)
        for found in _of_column(_Read.of(column, rows), rows, limits, misread, *shares):
            stays = found.left_out and column.name in declared
            findings.append(replace(found, left_out=False, declared=True) if stays else found)
    quality = Quality(len(rows), len(spec.columns) + len(spec.dropped), tuple(findings), limits)
    findings += _too_wide(quality, spec, rows.contexts, attributes)
    findings.sort(key=lambda finding: (finding.feature, finding.problem))
    return replace(quality, findings=tuple(findings))


def looked_at(rows: int) -> list[int]:
    """The places of those of some rows that are examined, evenly spread."""
    places: list[int] = np.unique(np.linspace(0, rows - 1, min(rows, MOST_ROWS)).astype(np.int64)).tolist()
    return places


@dataclass(frozen=True)
class _Read:
    """A feature's values over the rows.

    Attributes:
        column: how the model reads it.
        number: (n,) NaN = missing; None for categories and texts.
        code: (n,) −1 = missing; the level of a category (0 where a text is present, and of a number 0 too).
        levels: how many levels.
        own: (n,) rows of campaigns that use the feature at all.
    """

    column: Column
    number: NDArray[np.float64] | None
    code: NDArray[np.int64]
    levels: int
    own: NDArray[np.bool_]

    @classmethod
    def of(cls, column: Column, rows: Examples) -> _Read:
        number: NDArray[np.float64] | None = None
        levels = 1
        if isinstance(column, NumberColumn):
            number = column.parsed(rows.contexts)
            code = np.where(np.isnan(number), -1, 0).astype(np.int64)
        elif isinstance(column, CategoryColumn):
            index: dict[str, int] = {}
            named = column.parsed(rows.contexts)
            code = np.array([-1 if v is None else index.setdefault(v, len(index)) for v in named], dtype=np.int64)
            levels = len(index)
        else:
            code = np.array([-1 if not isinstance(c.get(column.name), str) else 0 for c in rows.contexts], np.int64)
        used = np.bincount(rows.campaign[code >= 0], minlength=len(rows.campaigns)) > 0
        return cls(column, number, code, levels, used[rows.campaign])


def _of_column(
    read: _Read, rows: Examples, limits: QualityLimits, misread: Finding | None, leak: float, shift: float
) -> list[Finding]:
    """What is wrong with one feature: the gravest that it is left out for, else what it stays with."""
    leaking = leak_of(read.number, read.code, read.levels, rows, leak)
    if leaking is not None:
        return [_leaking(read.column.name, leaking)]
    missing = _missing(read, rows, limits)
    found = missing if missing is not None and missing.left_out else None
    found = found or exploding(read.column, read.number, rows.contexts, limits) or _identity(read, rows, limits)
    found = found or misread or missing or _shifted(read, rows, shift)
    return [] if found is None else [found]


def _missing(read: _Read, rows: Examples, limits: QualityLimits) -> Finding | None:
    """Values that are mostly not there: left out are those too few to learn from, and those of which it can't be told
    whether they were written after the send."""
    missing = float(np.mean(read.code[read.own] < 0)) if read.own.any() else 1.0
    if missing <= limits.missing:
        return None
    present = read.code >= 0
    few, told = int(present.sum()) < limits.present, foretold(present, rows)
    detail = f"{100 * missing:.1f} % of {int(read.own.sum())} rows have no readable value"
    if few:
        detail += f", and {limits.present} with one are needed"
    elif told is not None:
        detail += f", and {told} happened in nearly all that have one: it may be known only after the send"
    left_out = few or told is not None
    return Finding(read.column.name, "missing", missing, limits.missing, left_out=left_out, detail=detail)


def _unreadable(column: Column, contexts: Sequence[JsonObject], limits: QualityLimits, *, told: bool) -> Finding | None:
    """Values that the feature's type can't read count as missing; the type may come from the first value ever seen."""
    share, common = unreadable(contexts, column.name, kind_of(column), told=told)
    if share <= limits.unreadable:
        return None
    example = "" if common is None else f", such as {common!r}"
    detail = f"{100 * share:.1f} % of the values that are there can't be read as {kind_of(column)}{example}"
    return Finding(column.name, "unreadable", share, limits.unreadable, left_out=False, detail=detail)


def _dropped(contexts: Sequence[JsonObject], name: str, declared: AttributeType | None) -> Finding | None:
    """A feature that the spec has no column for: constant, or never readable."""
    values = [context[name] for context in contexts if context.get(name) is not None]
    if declared in ("number", "timestamp", "boolean") and not any(readable(declared, value) for value in values):
        detail = f"no value can be read as its type, {declared}"
        return Finding(name, "missing", 1.0, 0.95, left_out=True, detail=detail)
    levels = {parse_category(value) for value in values}
    if None in levels and len(levels) == 1:
        return Finding(name, "missing", 1.0, 0.95, left_out=True, detail="no readable value: lists or objects")
    if len(levels) == 1:
        detail = f"the same value in all {len(values)} rows"
        return Finding(name, "constant", 1.0, 1.0, left_out=True, detail=detail)
    return None


def _too_wide(
    found: Quality, spec: FeatureSpec, contexts: Sequence[JsonObject], attributes: Sequence[Attribute]
) -> list[Finding]:
    """What a model has no room for beside the other features that stay."""
    out = set(found.left_out)
    width = {column.name: len(column.labels) for column in spec.columns if column.name not in out}
    total = sum(width.values())
    if total <= MAX_WIDTH:
        return []
    why = (
        f"numbers of it don't fit into the {MAX_WIDTH} that a model reads of a context; all {len(width)} features make "
        f"{total}, and those that more rows have came first, then by name"
    )
    dropped = [name for name in fit_spec(contexts, found.registry(attributes, "")).dropped if name in width]
    return [
        Finding(name, "too_wide", total, MAX_WIDTH, left_out=True, detail=f"{width[name]} {why}") for name in dropped
    ]


def _identity(read: _Read, rows: Examples, limits: QualityLimits) -> Finding | None:
    if not isinstance(read.column, CategoryColumn) or read.levels < limits.levels:
        return None
    people = len(np.unique(rows.cluster[read.code >= 0]))
    share = read.levels / people
    if share < limits.identity:
        return None
    detail = f"{read.levels} levels among {people} recipients: an identity, not a property"
    return Finding(read.column.name, "identity", share, limits.identity, left_out=True, detail=detail)


def _leaking(name: str, leak: Leak) -> Finding:
    return Finding(name, "leaking", leak.figure, leak.limit, left_out=True, detail=leak.detail)


def _shifted(read: _Read, rows: Examples, error: float) -> Finding | None:
    """Older against newer half by the stability index, a row a recipient in each: repeated rows are not independent."""
    half = len(rows) // 2
    bins = _bins(read)
    counts = []
    for part in (slice(0, half), slice(half, len(rows))):
        own = np.flatnonzero(read.own[part]) + (part.start or 0)
        _, last = np.unique(rows.cluster[own][::-1], return_index=True)
        counts.append(np.bincount(bins[own[::-1][last]] + 1, minlength=int(bins.max()) + 2))
    if min(count.sum() for count in counts) < SHIFT_ROWS:
        return None
    shift = compare(counts[0], counts[1], error)
    if not shift.shifted:
        return None
    detail = f"stability index between the older and the newer rows, {shift.rows} recipients; clipped to what was seen"
    return Finding(read.column.name, "shifted", shift.stability, shift.limit, left_out=False, detail=detail)


def _bins(read: _Read) -> NDArray[np.int64]:
    """(n,) the bin of each row, −1 = missing: deciles of a number, frequent levels and the rest of a category."""
    if read.number is not None:
        known = ~np.isnan(read.number)
        edges = np.unique(np.quantile(read.number[known], np.linspace(0.0, 1.0, _SHIFT_BINS + 1)))[1:-1]
        return np.where(known, np.searchsorted(edges, read.number, side="right"), -1).astype(np.int64)
    sizes = np.bincount(read.code[read.code >= 0], minlength=max(1, read.levels))
    place = np.full(sizes.size + 1, _SHIFT_LEVELS, dtype=np.int64)  # one more, so that −1 has a place of its own
    place[np.argsort(-sizes, kind="stable")[:_SHIFT_LEVELS]] = np.arange(min(_SHIFT_LEVELS, sizes.size))
    place[-1] = -1
    return place[read.code]
