"""What settled rows of a long log say, kept in a file, so that a refresh reads only the rows since.

A refresh of the whole log writes it; the refreshes up to the next retrain go on from there, and add what has been
settled since (``model.training.settled`` has the mathematics). It is a cache: it may be deleted at any time, and one
that can't be read or no longer fits counts for nothing. It fits while the models are of the same retrain, the campaigns
are as they were, outcomes have not changed since, no action is new, and it was begun within a day: then what came late
for settled rows is read at last, and hours of the week that are new get weights of their own.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from optimizer.bandit.hazards import Curve, Hazard
from optimizer.errors import BadArtifact
from optimizer.model.artifact import pack, unpack
from optimizer.model.training.settled import Arrays, Settled
from optimizer.service.feedback import Hazards, Log, Logged, judgeable, told
from optimizer.service.lateness import lateness_of, waits
from optimizer.service.wiring import Services
from storage.records import Campaign, JsonObject

log = logging.getLogger(__name__)

#: Settled rows from which on they are kept: fewer are read in a second or two.
LEAST: Final = 20_000
#: So many that have been settled since are added to them.
MORE: Final = 5_000
#: At least so much of the log must be settled, else little is won.
_SHARE: Final = 0.5
#: Decisions that were stored later than they were made are among the rows since.
_LATE: Final = timedelta(minutes=10)
#: What is kept is good for so long.
LONGEST: Final = timedelta(days=1)
#: Settled decisions of each campaign that are named, newest last: to compare policies on.
RECENT: Final = 200
#: Another number makes nothing of older files.
_FORMAT: Final = 3

#: (campaign, variant, channel); both None = not sending.
Shown = tuple[str, str | None, str | None]


@dataclass(frozen=True)
class Facts:
    """What is counted of a campaign's rows, as far as they may be trained on.

    Attributes:
        rows: matured ones; known: those of them since outcomes last changed; matured: the known ones by variant.
        before: for each variant the matured ones that came before its first.
        told: a number that grows with everything learned (see ``feedback.told``).
    """

    rows: int = 0
    known: int = 0
    matured: Mapping[str, int] | None = None
    told: int = 0
    before: Mapping[str, int] | None = None

    @classmethod
    def of(cls, rows: Sequence[Logged], changed: float | None) -> Facts:
        """Of a campaign's rows; ``changed``: when its outcomes last changed."""
        mine = [r for r in rows if r.trainable and r.matured]
        known = [r for r in mine if changed is None or r.decision.decided_at.timestamp() >= changed]
        return cls(len(mine), len(known), _matured_rows(known), told(rows), _rows_before(mine))

    def __add__(self, other: Facts) -> Facts:
        one, two = dict(self.matured or {}), other.matured or {}
        matured = {name: one.get(name, 0) + two.get(name, 0) for name in {**one, **two}}
        before = {**{name: self.rows + n for name, n in (other.before or {}).items()}, **(self.before or {})}
        return Facts(self.rows + other.rows, self.known + other.known, matured, self.told + other.told, before)


@dataclass(frozen=True)
class SettledRows:
    """What is kept of a workspace's rows decided before ``until``.

    Attributes:
        made: when the whole log was read. until: the first moment whose rows are not among them.
        basis: what it rests on, as a hash (see ``basis_of``).
        facts, recent: by campaign; ``recent`` names the newest decisions that policies may be compared on.
        hazards: how outcomes become known, from the whole log at that time.
        shown: the actions of the whole log at that time.
        models: artifact of the retrain -> what the rows say of its weights.
        refused: campaigns whose data was absurd: their rows are not among these, nor read with those since.
        late: by campaign, hours after the end of windows until what happened was known in the log of that time.
    """

    made: datetime
    until: datetime
    basis: str
    facts: Mapping[str, Facts]
    recent: Mapping[str, Sequence[str]]
    hazards: Hazards
    shown: frozenset[Shown]
    models: Mapping[str, Settled]
    refused: frozenset[str] = frozenset()
    late: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        whole: Log,
        until: datetime,
        now: datetime,
        changed: Mapping[str, float],
        models: Mapping[str, Settled],
        refused: frozenset[str] = frozenset(),
    ) -> SettledRows:
        """Of a log that was read whole; ``changed``: when outcomes last changed, by campaign."""
        nothing = dict.fromkeys(whole.campaigns, Facts())
        basis, shown = basis_of(whole.campaigns, changed), _shown(whole.rows)
        late = waits(lateness_of(whole))
        begun = cls(now, until, basis, nothing, {}, whole.hazards, shown, models, refused, late)
        return begun.followed(whole, until, changed, models)

    def followed(
        self, since: Log, until: datetime, changed: Mapping[str, float], models: Mapping[str, Settled]
    ) -> SettledRows:
        """With the rows that have been settled since: those up to ``until``."""
        new: dict[str, list[Logged]] = {name: [] for name in self.facts}
        for row in since.rows:
            if row.decision.decided_at < until:
                new[row.decision.campaign_id].append(row)
        facts = {name: self.facts[name] + Facts.of(rows, changed.get(name)) for name, rows in new.items()}
        mine = {name: judgeable(filter(comparable, rows), since.campaigns[name]) for name, rows in new.items()}
        recent = {
            name: [*self.recent.get(name, ()), *(r.decision.decision_id for r in rows)][-RECENT:]
            for name, rows in mine.items()
        }
        return replace(self, until=until, facts=facts, recent=recent, models=models)

    def holds_for(self, since: Log, changed: Mapping[str, float]) -> bool:
        """Whether it rests on what is so now, and the rows since show no action that the whole log did not."""
        rows = since.without(self.refused).rows
        return self.basis == basis_of(since.campaigns, changed) and _shown(rows) <= self.shown

    def write(self, services: Services, workspace_id: str) -> None:
        """Puts it in the place of what was there; where that can't be, a warning says so."""
        arrays: Arrays = {}
        models = {}
        for i, (name, settled) in enumerate(sorted(self.models.items())):
            saved, models[name] = settled.save(str(i))
            arrays |= saved
        meta = {
            "format": _FORMAT,
            "made": self.made.timestamp(),
            "until": self.until.isoformat(),
            "basis": self.basis,
            "facts": {name: asdict(facts) for name, facts in self.facts.items()},
            "recent": {name: list(ids) for name, ids in self.recent.items()},
            "hazards": [[name, _hazard_json(hazard)] for (name, _), hazard in sorted(self.hazards.items())],
            "shown": sorted(map(list, self.shown), key=str),
            "refused": sorted(self.refused),
            "late": dict(self.late),
            "models": models,
        }
        path = _path(services, workspace_id)
        beside: str | None = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file, beside = tempfile.mkstemp(".settled", dir=path.parent)  # readable by its owner alone
            with os.fdopen(file, "wb") as out:
                out.write(pack(b"", arrays, meta))
            Path(beside).replace(path)
        except OSError as error:
            log.warning("what settled rows say can't be kept in %s: %s", path.parent, error.strerror)
            if beside is not None:
                Path(beside).unlink(missing_ok=True)


def read(services: Services, workspace_id: str, models: frozenset[str]) -> SettledRows | None:
    """What is kept of a workspace, if it speaks of all ``models`` and is not too old."""
    try:
        _, arrays, meta = unpack(_path(services, workspace_id).read_bytes())
        if meta["format"] != _FORMAT or not models <= meta["models"].keys():
            return None
        made = datetime.fromtimestamp(meta["made"], UTC)
        if not timedelta(0) <= services.clock() - made <= LONGEST:
            return None
        hazards = [(name, _hazard_from(told)) for name, told in meta["hazards"]]
        return SettledRows(
            made=made,
            until=datetime.fromisoformat(meta["until"]),
            basis=meta["basis"],
            facts={name: Facts(**facts) for name, facts in meta["facts"].items()},
            recent=meta["recent"],
            hazards={(name, hazard.window): hazard for name, hazard in hazards},
            shown=frozenset((campaign, variant, channel) for campaign, variant, channel in meta["shown"]),
            models={
                name: Settled.load(str(i), arrays, told)
                for i, (name, told) in enumerate(sorted(meta["models"].items()))
                if name in models
            },
            refused=frozenset(meta["refused"]),
            late=meta.get("late", {}),
        )
    except (OSError, BadArtifact, KeyError, TypeError, ValueError):
        return None


def forget(services: Services, workspace_id: str) -> None:
    """Deletes what is kept of a workspace: the next refresh reads the whole log.

    Where that can't be, a warning says so; it is too old after a day.
    """
    path = _path(services, workspace_id)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("what settled rows say can't be deleted from %s: %s", path.parent, error.strerror)


def settled_until(
    rows: Sequence[Logged], now: datetime, before: SettledRows | None, uncounted: Callable[[Logged], bool]
) -> datetime | None:
    """Up to when rows are settled, if it is worth keeping what they say.

    ``rows``: by time, all or those since. ``uncounted``: whether a settled one is to be looked at once more.
    """
    first = next((row.decision.decided_at for row in rows if not row.matured or uncounted(row)), now)
    until = min(first, now - _LATE)
    count = sum(row.decision.decided_at < until for row in rows)
    return until if count >= (max(LEAST, _SHARE * len(rows)) if before is None else MORE) else None


def basis_of(campaigns: Mapping[str, Campaign], changed: Mapping[str, float]) -> str:
    """What hangs on campaigns and on changes of outcomes, as a hash."""
    told = [
        sorted((name, campaign.updated_at.isoformat()) for name, campaign in campaigns.items()),
        sorted(changed.items()),
    ]
    return blake2b(orjson.dumps(told), digest_size=16).hexdigest()


def comparable(row: Logged) -> bool:
    """Whether policies may be compared on a row."""
    return row.trainable and row.matured and row.evaluable


def _shown(rows: Sequence[Logged]) -> frozenset[Shown]:
    return frozenset((r.decision.campaign_id, r.decision.variant_id, r.decision.channel) for r in rows)


def _hazard_json(hazard: Hazard) -> dict[str, Any]:
    curves = {name: _curve_json(curve) for name, curve in hazard.channels.items()}
    return {"window": hazard.window, "pooled": _curve_json(hazard.pooled), "channels": curves}


def _curve_json(curve: Curve) -> dict[str, Any]:
    return {"hours": curve.hours.tolist(), "share": curve.share.tolist(), "events": curve.events}


def _hazard_from(told: JsonObject) -> Hazard:
    channels = {name: _curve_from(curve) for name, curve in told["channels"].items()}
    return Hazard(told["window"], _curve_from(told["pooled"]), channels)


def _curve_from(told: JsonObject) -> Curve:
    return Curve(np.array(told["hours"]), np.array(told["share"]), told["events"])


def _path(services: Services, workspace_id: str) -> Path:
    key = blake2b(workspace_id.encode(), digest_size=16, key=services.salt, person=b"sendtide.settled").hexdigest()
    return services.settings.report_path / f"{key}.settled"


def _matured_rows(rows: Iterable[Logged]) -> dict[str, int]:
    """How many matured rows each variant has: a variant with few is young, and keeps some mass."""
    counts: dict[str, int] = {}
    for row in rows:
        variant = row.decision.variant_id
        if variant is not None and row.matured and row.trainable:
            counts[variant] = counts.get(variant, 0) + 1
    return counts


def _rows_before(rows: Iterable[Logged]) -> dict[str, int]:
    """How many of these rows, all matured, came before the first of each variant."""
    first: dict[str, int] = {}
    for i, row in enumerate(rows):
        if row.decision.variant_id is not None:
            first.setdefault(row.decision.variant_id, i)
    return first
