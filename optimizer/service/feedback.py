"""Logged bandit feedback: decisions with what came of them, as rows for training and for off-policy evaluation.

A row enters reward training when its message went out (or still counts as going out) or when it was a decision not to
send. Rows that never went out (released, revoked, displaced, expired, failed) stay out of it. They stay in off-policy
evaluation, by intention to treat: leaving them out would choose rows by the action drawn, since only messages can be
called off, and every estimate and the balance test would be biased.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.localtime import zone
from optimizer.bandit.rewards import MESSAGE_OUTCOMES, Outcome, matured, max_window, outcomes, reward
from optimizer.model.examples import NO_SEND, Examples
from storage.log import COUNTED, Decision, FeedbackRow
from storage.port import Reader
from storage.records import Campaign


@dataclass(frozen=True)
class Logged:
    """One decision with its outcomes as known now."""

    decision: Decision
    outcomes: dict[str, Outcome]
    reward: float
    matured: bool
    failed: bool = False
    answered: bool = False
    closed: bool = True

    @property
    def trainable(self) -> bool:
        """Whether its action was carried out, so that its outcomes speak of it.

        An answer proves that a message went out, whatever its status says: an unsubscribe that arrives before the
        confirm calls off what is reserved, its own message too, and harms must not vanish from the log that way.
        """
        if self.failed:
            return False
        return self.answered or self.decision.status in COUNTED or self.decision.status == "no_send"

    @property
    def drawn(self) -> bool:
        """Whether a policy drew it over a logged set with a known propensity, whatever became of it."""
        decision = self.decision
        return (
            decision.group in ("treated", "random")
            and decision.mode == "live"
            and decision.propensity is not None
            and decision.propensity > 0
        )

    @property
    def evaluable(self) -> bool:
        """Whether off-policy evaluation may use it: drawn by a policy, and closed (see ``closes``)."""
        return self.closed and self.drawn


@dataclass(frozen=True)
class Log:
    """The feedback of a workspace, with its campaigns as they are now (the objective may have changed since)."""

    campaigns: dict[str, Campaign]
    rows: tuple[Logged, ...]

    def of(self, campaign_id: str) -> list[Logged]:
        """The rows of one campaign, by time of decision."""
        return [row for row in self.rows if row.decision.campaign_id == campaign_id]


def load(reader: Reader, workspace_id: str, now: datetime, since: datetime | None = None) -> Log:
    """Reads the feedback of a workspace; rewards are by the campaigns' present objectives."""
    campaigns = {c.campaign_id: c for c in all_campaigns(reader, workspace_id)}
    rows = [
        logged(campaigns[row.decision.campaign_id], row, now)
        for row in reader.feedback(workspace_id, since=since, until=now)
        if row.decision.campaign_id in campaigns
    ]
    return Log(campaigns, tuple(row for row in rows if row is not None))


def feedback_rows(reader: Reader, campaign: Campaign, since: datetime | None, until: datetime) -> Iterator[Logged]:
    """The campaign's own decisions (no imported ones) with ``since <= decided_at < until``, by time, as known then."""
    found = reader.feedback(
        campaign.workspace_id, campaign_id=campaign.campaign_id, since=since, until=until, imported=False
    )
    return (row for one in found if (row := logged(campaign, one, until)) is not None)


def all_campaigns(reader: Reader, workspace_id: str) -> list[Campaign]:
    """Every campaign of a workspace, archived ones included: their rows still teach."""
    found: list[Campaign] = []
    cursor: str | None = None
    while True:
        page = reader.campaigns(workspace_id, limit=500, cursor=cursor)
        found += page.items
        cursor = page.cursor
        if cursor is None:
            return found


def logged(campaign: Campaign, row: FeedbackRow, now: datetime) -> Logged | None:
    """A decision with its outcomes; None when nothing was chosen (withheld)."""
    decision = row.decision
    if decision.action is None:
        return None
    known = outcomes(campaign, decision, row.events, now)
    named = [event for event in row.events if event.decision_id == decision.decision_id]
    return Logged(
        decision=decision,
        outcomes=known,
        reward=reward(campaign, decision, known),
        matured=matured(campaign, known),
        failed=any(event.type == "failed" for event in named),
        closed=closes(campaign, decision) <= now,
        answered=any(event.type in MESSAGE_OUTCOMES and event.type != "failed" for event in named),
    )


def closes(campaign: Campaign, decision: Decision) -> datetime:
    """When a decision's reward would be final whatever had been drawn: its latest possible send + the longest window.

    A row matures with the action that was drawn, so the matured rows of the last days are those with early sends, and
    of these only. Where rows must not be chosen by their action, they are taken once they are closed.
    """
    snapshot = decision.snapshot
    latest = snapshot.window_start if snapshot.immediate else snapshot.window_end
    return max(latest, decision.decided_at) + timedelta(hours=max_window(campaign))


def examples(rows: Sequence[Logged], campaigns: dict[str, Campaign]) -> Examples:
    """Training rows as columns; an outcome that has not matured is unknown (NaN), not a no.

    An outcome that has happened counts only once its window is over too: else early rows would show only their yeses.
    """
    names = sorted(dict.fromkeys(r.decision.campaign_id for r in rows))
    used = tuple(campaigns[name] for name in names)
    index = {name: i for i, name in enumerate(names)}
    variants = [{v.id: i for i, v in enumerate(c.variants)} for c in used]
    channels = [{ch.id: i for i, ch in enumerate(c.channels)} for c in used]
    usable = [r for r in rows if _indexed(r, index, variants, channels)]
    campaign = np.array([index[r.decision.campaign_id] for r in usable], dtype=np.int64)
    kinds = sorted({kind for r in usable for kind in r.outcomes})
    clusters: dict[str, int] = {}
    return Examples(
        contexts=[r.decision.snapshot.context for r in usable],
        campaigns=used,
        campaign=campaign,
        variant=_column(usable, campaign, variants, "variant_id"),
        channel=_column(usable, campaign, channels, "channel"),
        local=np.array([local_seconds(r.decision) for r in usable], dtype=np.int64),
        outcome={kind: np.array([_happened(r.outcomes.get(kind)) for r in usable], dtype=np.float64) for kind in kinds},
        value={kind: np.array([_value(r.outcomes.get(kind)) for r in usable], dtype=np.float64) for kind in kinds},
        effects=[r.decision.snapshot.effects for r in usable],
        cluster=np.array([clusters.setdefault(r.decision.recipient_id, len(clusters)) for r in usable], dtype=np.int64),
    )


def _indexed(
    row: Logged, index: dict[str, int], variants: list[dict[str, int]], channels: list[dict[str, int]]
) -> bool:
    decision = row.decision
    if not row.trainable:
        return False
    if decision.variant_id is None or decision.channel is None:
        return True
    i = index[decision.campaign_id]
    return decision.variant_id in variants[i] and decision.channel in channels[i]


def _column(
    rows: Sequence[Logged], campaign: NDArray[np.int64], places: list[dict[str, int]], name: str
) -> NDArray[np.int64]:
    values = []
    for row, i in zip(rows, campaign.tolist(), strict=True):
        value = getattr(row.decision, name)
        values.append(NO_SEND if value is None else places[i][value])
    return np.array(values, dtype=np.int64)


def local_seconds(decision: Decision) -> int:
    """The recipient's wall clock at the planned send (at the decision for ``no_send``), in seconds as if UTC."""
    at = decision.send_at if decision.send_at is not None else decision.decided_at
    epoch = int(at.timestamp())
    return epoch + zone(decision.snapshot.timezone).offset(epoch)


def _happened(outcome: Outcome | None) -> float:
    if outcome is None or not outcome.matured:
        return float("nan")
    return float(outcome.happened)


def _value(outcome: Outcome | None) -> float:
    if outcome is None or outcome.value is None or not outcome.happened:
        return float("nan")
    return outcome.value


def matured_rows(rows: Iterable[Logged]) -> dict[str, int]:
    """How many matured rows each variant has: a variant with few is young, and keeps some mass."""
    counts: dict[str, int] = {}
    for row in rows:
        variant = row.decision.variant_id
        if variant is not None and row.matured and row.trainable:
            counts[variant] = counts.get(variant, 0) + 1
    return counts
