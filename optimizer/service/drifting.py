"""The drift alarm: do newly arrived rows still look as the served policy expects?

At each refresh and retrain three kinds of detector read the rows that have arrived since the last look:

- *calibration*: the logging policy's own predictions, older than the row, against what happened, by outcome (lower,
  higher, flatter than predicted; ``bandit.drift.calibration_ratios``), once nearly all of that is reported
  (``lateness``), rows that wait for the same purchase together (``driftratios.shares``);
- *propensities*: drawn actions against their logged probabilities, by variant, channel, daypart and not sending, as
  soon as they are drawn; and whether the probabilities can be recomputed at all;
- *features*: each block of 1,000 decisions or more of whole days against the campaign's rows that the model was trained
  on, by the stability index.

The first two raise a false alarm every million rows on average, all detectors together, however often they are asked;
a block of unchanged features does in one of 1,000. While a calibration or feature alarm stands, the next revision
explores at the campaign's full rate. What serves when outcomes change is anchored there (``footing``), and what is
trained anew lets older rows fade (``forgetting``). An alarm ends after 1,000 rows without another one, that of a
feature with the first block that looks as expected. The state is kept with the training run, so that a look reads each
row once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from heapq import heappush, heappushpop

import numpy as np

from optimizer.bandit.drift import Crossing, Detectors
from optimizer.bandit.rewards import planned_end
from optimizer.model.moment import seen_at
from optimizer.model.policy import LivePolicy
from optimizer.service import driftratios
from optimizer.service.apart import Apart, attempted
from optimizer.service.driftstate import QUIET_ROWS, Alarm, Drift, quiet_left
from optimizer.service.featureblocks import Block, Filling, empty_block
from optimizer.service.feedback import Log, Logged, feedback_rows
from optimizer.service.ids import COLD_POLICY
from optimizer.service.lateness import lateness_of, waits
from optimizer.service.replay import Past, Replayer
from optimizer.service.served import learned
from optimizer.service.serving import load_policy
from optimizer.service.told import LATE_COMMIT, last_told, last_told_of
from optimizer.service.wiring import Services
from storage.policies import Pointer
from storage.port import Reader
from storage.records import Campaign, JsonObject

#: Rows between false alarms on average, over all detectors of a campaign.
FALSE_ALARM_ROWS = 1e6
#: The newest rows that one look takes at most; of a larger backlog the older ones are left out, by time alone.
MOST_ROWS = 5_000


def planned_maturity(campaign: Campaign, row: Logged) -> float:
    """When the outcomes of the drawn action are known. Calibration is conditional on the action, so it may choose."""
    return planned_end(campaign, row.decision).timestamp()


def changes(drift: Mapping[str, Drift]) -> dict[str, float]:
    """When outcomes last changed, by campaign, for ``forgetting.remembered``."""
    return {name: one.changed for name, one in drift.items() if one.changed is not None}


def look(
    services: Services,
    reader: Reader,
    workspace_id: str,
    campaign_id: str | None,
    log: Log,
    apart: Apart | None = None,
    late: Mapping[str, float] | None = None,
) -> dict[str, Drift]:
    """Looks at what has arrived since the last look, in every campaign that serves a learned policy. Of others what
    the last look found stands: one model learns from the rows of all of them.

    Args:
        services: the wired service. reader: a snapshot of the store. workspace_id: whose campaigns.
        campaign_id: only this one is looked at (None = all).
        log: what was read as of now; rows that are older than it and were not looked at are read here.
        apart: keeps what fails for a campaign (None = it is raised).
        late: by campaign, hours after the end of windows until what happened is known (None = ``log`` is whole and
            tells it).

    Returns:
        The state by campaign; a new one counts once it is stored with a training run, under ``drift``.
    """
    found, now = {}, services.clock()
    late = waits(lateness_of(log)) if late is None else late
    pointers = [pointer for pointer in reader.pointers() if pointer.workspace_id == workspace_id]
    told = last_told_of(reader, workspace_id, [pointer.campaign_id for pointer in pointers], "drift", now)
    asked = {pointer.campaign_id for pointer in learned(reader, workspace_id, campaign_id)}
    for pointer in pointers:
        name = pointer.campaign_id
        campaign, last = reader.campaign(workspace_id, name), told.get(name)
        if campaign is None or (last is None and name not in asked):
            continue
        state = partial(_state, campaign, last)
        work = partial(_look, services, reader, pointer, campaign, log, late, state) if name in asked else state
        seen = attempted(apart, name, work)
        if seen is not None:
            found[name] = seen
    return found


def _look(
    services: Services,
    reader: Reader,
    pointer: Pointer,
    campaign: Campaign,
    log: Log,
    late: Mapping[str, float],
    last: Callable[[], Drift],
) -> Drift:
    now, state = services.clock(), last()
    live = load_policy(reader, pointer.workspace_id, pointer.policy_id, {})
    first = min(state.since, _unfilled(state, live)[0])
    since = datetime.fromtimestamp(first, UTC) if first else None
    rows: Iterable[Logged]
    if log.since is None or (since is not None and since >= log.since):
        rows = (r for r in log.of(pointer.campaign_id) if since is None or r.decision.decided_at >= since)
    else:
        rows = feedback_rows(reader, campaign, since, now)
    wait = late.get(pointer.campaign_id, 0.0)
    return advanced(state, Replayer(reader, services.salt), campaign, rows, live, now, wait=wait)


def advanced(
    state: Drift,
    past: Past,
    campaign: Campaign,
    rows: Iterable[Logged],
    live: LivePolicy,
    now: datetime,
    matures: Callable[[Campaign, Logged], float] = planned_maturity,
    wait: float = 0.0,
) -> Drift:
    """The state after the rows that it has not seen yet.

    Args:
        state: after the last look, or ``beginning``. past: the log's campaigns and policies.
        campaign: as it is now.
        rows: by time of decision; those from before ``state.since`` may be left out, but for those of a block that
            began under a model with other features.
        live: the policy that serves.
        now: the time of the look.
        matures: when a row's outcomes have happened, in epoch seconds. wait: hours from then on until they are known.
    """
    decided: deque[tuple[tuple[float, str], Logged]] = deque(maxlen=MOST_ROWS)
    matured: list[tuple[tuple[float, str], Logged]] = []
    waiting = now.timestamp()
    filling, filled = _filling(state.block, campaign, live), _unfilled(state, live)
    for row in rows:
        if not row.drawn or row.decision.imported or row.decision.policy_id == COLD_POLICY:
            continue
        at, name = row.decision.decided_at.timestamp(), row.decision.decision_id
        if at > now.timestamp():  # decided while the clock was ahead, or by a host whose clock is: at its time
            continue
        if (at, name) > state.decided:
            decided.append(((at, name), row))
        if filling is not None and (at, name) > filled:
            filling.take(at, row.decision.recipient_id, seen_at(row.decision.snapshot.context, row.decision.decided_at))
        key = (matures(campaign, row), name)
        if key[0] + 3600.0 * wait > now.timestamp():
            waiting = min(waiting, at)
        elif key > state.matured:
            # A heap of the newest: of a long log the first look would hold every row.
            (heappush if len(matured) < MOST_ROWS else heappushpop)(matured, (key, row))
    state = replace(state, since=waiting - LATE_COMMIT)
    matured.sort(key=lambda pair: pair[0])
    state = _balanced(past, state, campaign, [row for _, row in decided], now)
    state = _calibrated(past, state, campaign, matured, now)
    if filling is not None:
        state = _featured(replace(state, block=filling.at(now.timestamp())), filling.shifts, now)
    return replace(state, decided=decided[-1][0]) if decided else state


def _filling(block: Block, campaign: Campaign, live: LivePolicy) -> Filling | None:
    """What goes on with the feature block; None without a model to compare with."""
    model = live.heaviest_model
    if model is None:
        return None
    return Filling(block, model.spec, model.artifact_meta["rows"], model.own_counts(campaign.campaign_id))


def _unfilled(state: Drift, live: LivePolicy) -> tuple[float, str]:
    """The row after which the feature block is filled. A model that is trained anew reads the block's days again by its
    own features: trained several times a day, no block would ever cover one else."""
    model, block = live.heaviest_model, state.block
    anew = model is not None and block.rows > 0 and block.spec != model.spec.hash
    return (block.since, "") if anew else state.decided


def changed_at(reader: Reader, campaign: Campaign, now: datetime) -> float | None:
    """When a campaign's outcomes last changed, as epoch seconds, by the last look."""
    told = last_told(reader, campaign.workspace_id, campaign.campaign_id, "drift", now)
    return _state(campaign, told).changed


def _state(campaign: Campaign, told: JsonObject | None) -> Drift:
    """The last look's state, as it is stored; detectors follow the campaign's outcomes and actions of now."""
    return beginning(campaign) if told is None else following(Drift.from_json(told), campaign)


def beginning(campaign: Campaign) -> Drift:
    """The state before the first row."""
    return Drift(Detectors.start(driftratios.detector_names(campaign), FALSE_ALARM_ROWS), empty_block(""))


def following(state: Drift, campaign: Campaign) -> Drift:
    """The state with the detectors of the campaign's outcomes and actions of now; new ones start at nothing."""
    fresh = beginning(campaign).detectors
    old = state.detectors
    place = {name: i for i, name in enumerate(old.names)}
    value = tuple(old.value[place[name]] if name in place else 0.0 for name in fresh.names)
    since = tuple(old.since[place[name]] if name in place else 0.0 for name in fresh.names)
    return replace(state, detectors=replace(fresh, value=value, since=since))


def _calibrated(
    past: Past,
    state: Drift,
    campaign: Campaign,
    matured: Sequence[tuple[tuple[float, str], Logged]],
    now: datetime,
) -> Drift:
    """Adds matured rows to the detectors of calibration."""
    if not matured:
        return state
    rows = [row for _, row in matured]
    ratios, centres = driftratios.calibration(past, campaign, state.centres, rows)
    silent = np.full((len(rows), len(state.detectors.names) - ratios.shape[1]), np.nan)
    detectors, crossed = state.detectors.after(np.concatenate((ratios, silent), axis=1), driftratios.times(rows))
    before = state.rows
    state = replace(state, detectors=detectors, centres=centres, rows=before + len(rows), matured=matured[-1][0])
    return _alarmed(state, before, crossed, now)


def _balanced(past: Past, state: Drift, campaign: Campaign, rows: Sequence[Logged], now: datetime) -> Drift:
    """Adds newly made decisions to the detectors of propensities.

    A draw is known at once. Rows must not wait for their outcomes here: those of early sends come first, so that rows
    would be chosen by what was drawn, and honest draws would look as if they fell on early hours too often.
    """
    if not rows:
        return state
    ratios, errors = driftratios.balance(past, driftratios.subsets(campaign), rows)
    at = driftratios.times(rows)
    silent = np.full((len(rows), len(state.detectors.names) - ratios.shape[1]), np.nan)
    detectors, crossed = state.detectors.after(np.concatenate((silent, ratios), axis=1), at)
    replays = state.replays.after(errors)
    if replays.error > 0.0:
        crossed.append(Crossing("propensities.replay", len(rows) - 1, float(at[0])))
    before = state.drawn
    state = replace(state, detectors=detectors, drawn=before + len(rows), replays=replays)
    return _alarmed(state, before, crossed, now)


def _alarmed(state: Drift, before: int, crossed: Sequence[Crossing], now: datetime) -> Drift:
    """New alarms join, quiet ones end; a change of outcomes sets the time before which rows are forgotten."""
    alarms = {alarm.what: alarm for alarm in state.alarms}
    changed = state.changed
    for one in crossed:
        first, row, limit = alarms.get(one.name), before + one.row + 1, state.detectors.limit
        if first is not None and row - first.latest > QUIET_ROWS:  # that one had ended, within this look
            first = None
        alarms[one.name] = (
            Alarm(one.name, now.timestamp(), one.since, row, row, limit, limit)
            if first is None
            else replace(first, latest=row)
        )
        if one.name.startswith("calibration") and first is None:
            changed = one.since if changed is None else max(changed, one.since)
    standing = [alarm for alarm in alarms.values() if quiet_left(alarm, state) != 0]
    return replace(state, alarms=tuple(sorted(standing, key=lambda alarm: alarm.what)), changed=changed)


def _featured(state: Drift, shifts: Mapping[str, tuple[float, float]], now: datetime) -> Drift:
    """Feature alarms: begun by a block in which the figure is above the limit, ended by one in which it isn't."""
    alarms = {alarm.what: alarm for alarm in state.alarms}
    at = now.timestamp()
    for name, shift in shifts.items():
        what = f"features.{name}"
        first = alarms.pop(what, None)
        if shift[0] > shift[1]:
            alarms[what] = (
                Alarm(what, at, at, state.rows, state.rows, *shift)
                if first is None
                else replace(first, latest=state.rows, figure=shift[0], limit=shift[1])
            )
    standing = sorted(alarms.values(), key=lambda alarm: alarm.what)
    return replace(state, alarms=tuple(standing), features=dict(shifts) or state.features)
