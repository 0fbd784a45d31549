"""Logged bandit feedback: decisions with what came of them, as rows for training and for off-policy evaluation.

A row enters reward training when its message went out (or still counts as going out) or when it was a decision not to
send. Rows that never went out (released, revoked, displaced, expired, failed) stay out of it. They stay in off-policy
evaluation and in reports, by intention to treat: leaving them out would choose rows by the action drawn, since only
messages can be called off, and every estimate and the balance test would be biased.

A row that counts no longer comes back by what says that its message went out whatever the recipient did then: a
confirm, or ``delivered``. An open or a click says it too, but only of those who answered: where campaigns ``release``
what is unconfirmed and nobody confirms, every row would be a yes. Guardrails see a harm of whatever row it is of.

Training need not wait for attribution windows of messages: with the hazards of the log's outcomes (``bandit.hazards``)
every row whose clock has started teaches what it shows so far, whatever came of it. What needs no message is learned
once it is final: it goes on by itself, until the same moment whatever was drawn, so that shares seen since the send
would make late sends look better. Whatever needs a final reward (gate, off-policy evaluation) asks without hazards.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.hazards import Delays, Hazard, fit_hazard
from optimizer.bandit.ope import TINY_PROPENSITY
from optimizer.bandit.rewards import (
    HARMFUL,
    LOOKED,
    Outcome,
    clock_start,
    latest_start,
    matured,
    needs_message,
    outcomes_and_look,
    reward,
)
from optimizer.bandit.spoken import outcome_names, speaks_of, window_hours
from optimizer.model.examples import NO_SEND, Examples
from optimizer.model.history import pack
from optimizer.model.moment import mark, seen_at
from optimizer.service.engagement import meant
from optimizer.service.offered import Offered
from optimizer.service.replay import local_seconds, on_known_clock
from storage.log import COUNTED, Decision, FeedbackRow, items_of
from storage.port import Reader
from storage.records import Campaign, JsonObject
from storage.swift import swift

#: Answers that call off what is reserved, their own message too if its time has not come.
_CALLING_OFF = HARMFUL | {"bounced"}
#: How an outcome's happenings become known, by its name and attribution window in hours.
Hazards = Mapping[tuple[str, float], Hazard]


@swift
@dataclass(frozen=True, slots=True)
class Logged:
    """One decision with its outcomes as known now; ``age`` in hours since its clock started; ``looked``: whether it was
    opened or clicked (see ``rewards.looked``); ``went_out``: whether events say that its message did, though it may
    count no longer."""

    decision: Decision
    outcomes: Mapping[str, Outcome]
    reward: float
    matured: bool
    failed: bool = False
    went_out: bool = False
    closed: bool = True
    age: float = math.inf
    looked: Outcome | None = None

    def told(self, kind: str) -> Outcome | None:
        """What is known of an outcome, of ``LOOKED`` too; None = the campaign doesn't speak of it."""
        return self.looked if kind == LOOKED else self.outcomes.get(kind)

    @property
    def started(self) -> bool:
        """Whether its clock runs, so that there may be something to learn from it."""
        return self.age > 0.0

    @property
    def trainable(self) -> bool:
        """Whether its action was carried out, so that its outcomes speak of it. What counts as sent since an event says
        so alone does not teach by that: it may have been the answer."""
        status, heard = self.decision.status, self.decision.close_reason is not None
        counts = status in COUNTED and not (status == "assumed_sent" and heard)
        return not self.failed and (self.went_out or counts or status == "no_send")

    @property
    def drawn(self) -> bool:
        """Whether a policy drew it over a logged set with a known propensity, whatever became of it. One that is too
        small to weigh by is not known."""
        decision = self.decision
        return (
            decision.group in ("treated", "random")
            and decision.mode == "live"
            and decision.propensity is not None
            and decision.propensity >= TINY_PROPENSITY
        )

    @property
    def evaluable(self) -> bool:
        """Whether off-policy evaluation may use it: drawn by a policy, and closed (see ``closes``)."""
        return self.closed and self.drawn


@dataclass(frozen=True)
class Log:
    """The feedback of a workspace decided ``since`` then (None = all), with its campaigns as they are now: objectives
    may have changed."""

    campaigns: dict[str, Campaign]
    rows: tuple[Logged, ...]
    since: datetime | None = None

    @cached_property
    def hazards(self) -> Hazards:
        """How outcomes become known, from the delays in this log."""
        return hazards_of(self.rows, self.campaigns)

    def of(self, campaign_id: str) -> list[Logged]:
        """The rows of one campaign, by time of decision."""
        return [row for row in self.rows if row.decision.campaign_id == campaign_id]

    def without(self, campaign_ids: Collection[str]) -> Log:
        """The log without the rows of some campaigns."""
        return replace(self, rows=tuple(r for r in self.rows if r.decision.campaign_id not in campaign_ids))


def load(reader: Reader, workspace_id: str, now: datetime, since: datetime | None = None) -> Log:
    """Reads the feedback of a workspace, each context with its moment, histories packed; rewards are by the present
    objectives. Of people whose zone this host doesn't know nothing is learned: their hours are not known."""
    campaigns = {c.campaign_id: c for c in all_campaigns(reader, workspace_id)}
    rows = []
    for found in reader.feedback(workspace_id, since=since, until=now):
        campaign, seen = campaigns.get(found.decision.campaign_id), found.decision.snapshot
        row = None if campaign is None else logged(campaign, found, now)
        if row is not None and on_known_clock(found.decision):
            mark(seen.context, found.decision.decided_at)
            pack(seen.context)
            rows.append(row)
    return Log(campaigns, tuple(rows), since)


def feedback_rows(reader: Reader, campaign: Campaign, since: datetime | None, until: datetime) -> Iterator[Logged]:
    """The campaign's own decisions (no imported ones) with ``since <= decided_at < until``, by time, as known then, but
    for those that can't be replayed on this host's clocks."""
    found = reader.feedback(
        campaign.workspace_id, campaign_id=campaign.campaign_id, since=since, until=until, imported=False
    )
    known = (one for one in found if on_known_clock(one.decision))
    return (row for one in known if (row := logged(campaign, one, until)) is not None)


def all_campaigns(reader: Reader, workspace_id: str) -> list[Campaign]:
    """Every campaign of a workspace, archived ones included: their rows still teach."""
    return list(items_of(lambda at: reader.campaigns(workspace_id, limit=500, cursor=at)))


def logged(campaign: Campaign, row: FeedbackRow, now: datetime) -> Logged | None:
    """A decision with its outcomes; None when nothing was chosen (withheld), or its person was erased and with them
    what it was chosen by."""
    decision = row.decision
    if decision.action is None or decision.snapshot.erased:
        return None
    known, look = outcomes_and_look(campaign, decision, row.events, now)
    types = {meant(campaign, event.type) for event in row.events if event.decision_id == decision.decision_id}
    return Logged(
        decision,
        known,
        reward(campaign, decision, known),
        matured(campaign, known),
        failed="failed" in types,
        closed=closes(campaign, decision) <= now,
        went_out=_went_out(campaign, decision, types),
        age=_hours(now - clock_start(decision)),
        looked=look,
    )


def _went_out(campaign: Campaign, decision: Decision, types: Collection[str]) -> bool:
    """Whether a message went out by the types of the events that name it, and not only if outcomes that are learned
    happened: one of those must not choose its rows.

    A refusal may be what called its own message off. It would vanish from the log by that, and with it the harm.
    """
    delivered = "delivered" in types and "delivered" not in outcome_names(campaign)
    return delivered or (decision.status == "revoked" and not _CALLING_OFF.isdisjoint(types))


def closes(campaign: Campaign, decision: Decision) -> datetime:
    """When a decision's reward would be final whatever had been drawn: its latest possible send + the longest window.

    Matured rows of the last days are those sent early: rows that must not be chosen by their action are taken closed.
    """
    return latest_start(decision) + speaks_of(campaign).reach


def hazards_of(rows: Iterable[Logged], campaigns: Mapping[str, Campaign]) -> dict[tuple[str, float], Hazard]:
    """How the outcomes of these campaigns become known, from the delays in a log (imported rows tell nothing of it)."""
    found: dict[tuple[str, float], list[tuple[float, float, str]]] = {
        _key(campaign, name): [] for campaign in campaigns.values() for name in (*outcome_names(campaign), LOOKED)
    }
    for row in rows:
        if row.decision.imported or not row.trainable or not row.started:
            continue
        for name in (*row.outcomes, LOOKED):
            outcome = row.told(name)
            if outcome is not None and outcome.heard is not None:
                hours = max(0.0, _hours(outcome.heard - clock_start(row.decision)))
                key = _key(campaigns[row.decision.campaign_id], name)
                found[key].append((hours, row.age, row.decision.channel or ""))
    hazards = {}
    for (name, window), events in found.items():
        times = np.array([event[:2] for event in events], dtype=np.float64).reshape(-1, 2)
        hazards[name, window] = fit_hazard(Delays(times[:, 0], times[:, 1], [event[2] for event in events]), window)
    return hazards


def _key(campaign: Campaign, name: str) -> tuple[str, float]:
    """Where the hazard of a campaign's outcome is found; looks have the window of clicks."""
    return name, window_hours(campaign, "clicked" if name == LOOKED else name)


def delays_json(campaign: Campaign, hazards: Hazards) -> dict[str, JsonObject]:
    """What is known of a campaign's delays, by outcome, for those who read a policy's verdict."""
    return {name: hazards[name, window_hours(campaign, name)].to_json() for name in outcome_names(campaign)}


def examples(rows: Sequence[Logged], campaigns: dict[str, Campaign], hazards: Hazards | None = None) -> Examples:
    """Training rows as columns.

    Args:
        rows: those that are not trainable are left out.
        campaigns: as they are now.
        hazards: with them an outcome of a message whose window is still open is told as it is so far, with the share
            of its happenings seen by now, unless the clock has not started. All others that have not matured are
            unknown (NaN), a yes too: else young rows would show yeses only.
    """
    names = sorted(dict.fromkeys(r.decision.campaign_id for r in rows))
    used = tuple(campaigns[name] for name in names)
    index = {name: i for i, name in enumerate(names)}
    variants = [{v.id: i for i, v in enumerate(c.variants)} for c in used]
    channels = [{ch.id: i for i, ch in enumerate(c.channels)} for c in used]
    taken = usable(rows, campaigns)
    campaign = np.array([index[r.decision.campaign_id] for r in taken], dtype=np.int64)
    kinds = sorted({kind for r in taken for kind in r.outcomes} | {LOOKED for r in taken if r.looked is not None})
    clusters: dict[str, int] = {}
    young = hazards is not None
    return Examples(
        contexts=[seen_at(r.decision.snapshot.context, r.decision.decided_at) for r in taken],
        campaigns=used,
        campaign=campaign,
        variant=_column(taken, campaign, variants, "variant_id"),
        channel=_column(taken, campaign, channels, "channel"),
        local=np.array([local_seconds(r.decision) for r in taken], dtype=np.int64),
        outcome={kind: np.array([_happened(r, kind, young) for r in taken], dtype=np.float64) for kind in kinds},
        value={kind: np.array([_value(r, kind, campaigns) for r in taken], dtype=np.float64) for kind in kinds},
        effects=[r.decision.snapshot.effects for r in taken],
        cluster=np.array([clusters.setdefault(r.decision.recipient_id, len(clusters)) for r in taken], dtype=np.int64),
        seen={} if hazards is None else {kind: _seen(taken, kind, campaigns, hazards) for kind in kinds},
    )


def usable(rows: Sequence[Logged], campaigns: Mapping[str, Campaign]) -> list[Logged]:
    """The rows that ``examples`` takes: trainable ones whose variant and channel their campaign still has."""
    offered = {name: Offered.of(campaign) for name, campaign in campaigns.items()}
    return [row for row in rows if row.trainable and offered[row.decision.campaign_id].chosen(row.decision)]


def judgeable(rows: Iterable[Logged], campaign: Campaign) -> list[Logged]:
    """The rows of a campaign on which policies can be judged under the campaign as it is now (see ``offered``)."""
    offered = Offered.of(campaign)
    return [row for row in rows if offered.whole(row.decision)]


def people(rows: Iterable[Logged]) -> int:
    """How many recipients some rows are of."""
    return len({row.decision.recipient_id for row in rows})


def _column(
    rows: Sequence[Logged], campaign: NDArray[np.int64], places: list[dict[str, int]], name: str
) -> NDArray[np.int64]:
    values = []
    for row, i in zip(rows, campaign.tolist(), strict=True):
        value = getattr(row.decision, name)
        values.append(NO_SEND if value is None else places[i][value])
    return np.array(values, dtype=np.int64)


def _happened(row: Logged, kind: str, young: bool) -> float:
    outcome = row.told(kind)
    if outcome is None or not (outcome.matured or (young and row.started and needs_message(kind))):
        return math.nan
    return float(outcome.happened)


def _seen(
    rows: Sequence[Logged], kind: str, campaigns: Mapping[str, Campaign], hazards: Hazards
) -> NDArray[np.float64]:
    """(n,) the share of an outcome's happenings that is seen in each row by now; 1 where it is final or unknown."""
    share = np.ones(len(rows))
    open_: dict[tuple[str, str], list[int]] = {}
    for i, row in enumerate(rows):
        outcome = row.told(kind)
        if outcome is not None and not outcome.matured and row.started:
            open_.setdefault((row.decision.campaign_id, row.decision.channel or ""), []).append(i)
    for (campaign_id, channel), places in open_.items():
        share[places] = hazards[_key(campaigns[campaign_id], kind)].seen([rows[i].age for i in places], channel)
    return share


def _value(row: Logged, kind: str, campaigns: Mapping[str, Campaign]) -> float:
    """What an outcome was worth; what pays by its value and came without one was worth 0, as for the reward."""
    outcome = row.told(kind)
    if outcome is None or not outcome.happened or not outcome.matured:
        return math.nan
    if outcome.value is not None:
        return outcome.value
    weight = campaigns[row.decision.campaign_id].objective.get(kind)
    return 0.0 if weight is not None and weight.per_value else math.nan


def told(rows: Iterable[Logged]) -> int:
    """A number that grows with everything that is learned of these rows: a start, a happening, a maturity."""
    return sum(
        1
        + row.matured
        + sum(o.happened if needs_message(k) else (1 + o.happened) * o.matured for k, o in known.items())
        for row, known in ((row, row.outcomes) for row in rows if row.trainable and row.started)
    )


def _hours(span: timedelta) -> float:
    return span / timedelta(hours=1)
