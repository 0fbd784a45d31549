"""What a refresh works on: the rows of the log, or those since what is kept of settled ones, and what is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial

from optimizer.bandit.rewards import planned_end
from optimizer.model.examples import Examples
from optimizer.model.training.settled import Settled
from optimizer.service import settledrows
from optimizer.service.annealing import exploration_numbers
from optimizer.service.apart import Apart, attempted
from optimizer.service.departure import DIVERGENCE_ROWS
from optimizer.service.drifting import changes, look
from optimizer.service.driftstate import Drift
from optimizer.service.feedback import Hazards, Log, Logged, examples, judgeable, load, usable
from optimizer.service.fitting import Job
from optimizer.service.footing import Footing
from optimizer.service.pacing import WITHIN
from optimizer.service.progress import counted_until
from optimizer.service.replay import on_known_clock
from optimizer.service.served import Served
from optimizer.service.settledrows import SettledRows, comparable, settled_until
from optimizer.service.soundness import sound
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.policies import Artifact, Pointer
from storage.port import Reader
from storage.records import Campaign, JsonObject


@dataclass(frozen=True)
class Read:
    """What a refresh works on.

    Attributes:
        log: the whole log, or the rows since ``before``, as known ``at`` that time.
        served: what campaigns serve, by campaign.
        before: what the settled rows say, where it is kept.
        drift: what the drift detectors know, by campaign.
        until: up to when the rows of ``log`` are settled, where it is worth keeping what they say.
        refused: campaigns whose data is absurd (see ``soundness``): none of their rows is in ``log``.
        job: what trains anew. fitted: artifact that is served, footing, whether it may be trained anew -> what became
            of it; told: artifact of a retrain (``told_as``) -> what settled rows say.
        columns: the rows by where they begin, with the number of settled ones.
    """

    log: Log
    at: datetime
    served: Mapping[str, Served]
    before: SettledRows | None
    drift: Mapping[str, Drift]
    until: datetime | None
    refused: frozenset[str]
    job: Callable[[], Job]
    fitted: dict[tuple[str, Footing, bool], Artifact] = field(default_factory=dict)
    told: dict[str, Settled] = field(default_factory=dict)
    columns: dict[float | None, tuple[Examples, int | None]] = field(default_factory=dict)

    @property
    def hazards(self) -> Hazards:
        """How outcomes become known."""
        return self.log.hazards if self.before is None else self.before.hazards

    def data(self, footing: Footing) -> tuple[Examples, int | None]:
        """The rows that a model of that footing is refitted on, as columns, and how many of them are settled (None =
        it isn't worth keeping what they say)."""
        if footing.since not in self.columns:
            rows = footing.rows(self.log.rows, changes(self.drift))
            settled = [r for r in rows if self.until is not None and r.decision.decided_at < self.until]
            count = None if self.until is None else len(usable(settled, self.log.campaigns))
            self.columns[footing.since] = examples(rows, self.log.campaigns, self.hazards), count
        return self.columns[footing.since]

    def numbers(self, campaign_id: str) -> JsonObject:
        """The exploration numbers of a campaign."""
        facts = None if self.before is None else self.before.facts.get(campaign_id)
        return exploration_numbers(self.log.of(campaign_id), self.drift.get(campaign_id), facts)


def read_log(
    services: Services,
    reader: Reader,
    workspace_id: str,
    campaign_id: str | None,
    learned: Sequence[Pointer],
    apart: Apart | None,
) -> Read:
    """The rows since what is kept, if that fits; else the whole log. What fails for a campaign is kept ``apart``."""
    now = services.clock()
    tried = [attempted(apart, p.campaign_id, partial(Served.of, reader, p)) for p in learned]
    served = {one.campaign_id: one for one in tried if one is not None}
    models = frozenset(name for one in served.values() for name in one.told_as)
    before = settledrows.read(services, workspace_id, models)
    log = load(reader, workspace_id, now, since=None if before is None else before.until)
    late = None if before is None else before.late
    drift = look(services, reader, workspace_id, campaign_id, log, apart, late)
    if before is not None:
        stand = all(one.stands(changes(drift)) for name, one in served.items() if name in log.campaigns)
        if not (stand and before.holds_for(log, changes(drift))):
            before, log = None, load(reader, workspace_id, now)
    refused = frozenset(sound(log)[1]) if before is None else before.refused
    log = log.without(refused)
    job = cache(partial(Job.of, services, reader, workspace_id, log, None, drift))
    counted = {name: until for name, one in served.items() if (until := counted_until(one.policy)) is not None}
    settled = settled_until(log.rows, now, before, partial(_uncounted, log, counted, now))
    return Read(log, now, served, before, drift, settled, refused, job)


def _uncounted(log: Log, counted: Mapping[str, float], now: datetime, row: Logged) -> bool:
    """Whether a row became final after the last look at how its line has predicted, so that the next one counts it: it
    comes within the hour. What nobody has counted in two holds up nothing."""
    until = counted.get(row.decision.campaign_id)
    if until is None or not row.trainable:
        return False
    final = planned_end(log.campaigns[row.decision.campaign_id], row.decision)
    return until < final.timestamp() and now - 2 * WITHIN < final <= now


def keep(services: Services, workspace_id: str, read: Read) -> None:
    """Keeps what settled rows say, for the next refresh, where it is worth it."""
    if read.until is None or not read.told:
        return
    if read.before is None:
        changed = changes(read.drift)
        kept = SettledRows.of(read.log, read.until, services.clock(), changed, read.told, read.refused)
    else:
        kept = read.before.followed(read.log, read.until, changes(read.drift), read.told)
    kept.write(services, workspace_id)


def recent(reader: Reader, read: Read, campaign: Campaign) -> list[Decision]:
    """The newest decisions that policies may be compared on under the campaign as it is, by time."""
    rows = judgeable(filter(comparable, read.log.of(campaign.campaign_id)), campaign)
    since = [r.decision for r in rows][-DIVERGENCE_ROWS:]
    if read.before is None or len(since) == DIVERGENCE_ROWS:
        return since
    names = read.before.recent.get(campaign.campaign_id, ())[len(since) - DIVERGENCE_ROWS :]
    found = [reader.decision(campaign.workspace_id, name) for name in names]
    return [*(one for one in found if one is not None and on_known_clock(one)), *since]
