"""Which scheduled retrains have something to go by: with a gate, clearly more than the last verdict had; without one,
enough since outcomes have changed; none where all that was learned was taken back. And which refreshes are worth a
revision.

The gate's error rate is spent over all candidates of a campaign, later ones getting less. One that is judged every four
hours has made 2,190 tries within a year and passes at z 4.9; judged daily at most it passes at 4.4, on a fifth fewer
rows. First policies come no sooner by it (on Hillstrom, ten orders, a look every 25 rows: 1,950 rows with all looks,
1,975 with those that are a tenth apart).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from optimizer.bandit.rewards import planned_end
from optimizer.service.feedback import Logged
from optimizer.service.ids import COLD_POLICY
from optimizer.service.served import Served
from optimizer.service.wrongclock import ahead
from storage.log import items_of
from storage.policies import Policy, TrainingRun
from storage.port import Reader
from storage.records import Campaign, JsonObject

#: By how much the matured rows must have grown since the last verdict, and the rows that are enough however many there
#: were: a large campaign goes on being judged within a day.
GROWTH, ENOUGH = 0.1, 1_000
#: After so long a campaign is judged however little there is: its features, its network and its findings stay fresh.
LONGEST = timedelta(days=1)

#: Rows since a change of outcomes from which on all is learned anew. Before, the model that serves knows more:
#: refreshes take what came before the change out of it, and leave which features matter, and how much.
SINCE_CHANGE = 10_000
#: Since the last training; after so long it is worth a look how features, network and findings would be now.
LONGEST_UNSETTLED = timedelta(days=30)

#: By how much what is known must have grown for a revision (or what is known of one variant, and by how many rows), and
#: after which time anything new is worth one. A model of some hundred rows follows every few outcomes, one of a million
#: every hour: each revision that something was decided under stays as long as its decisions, with a model of a MB.
GROWN, VARIANT_GROWN, VARIANT_ROWS, WITHIN = 0.01, 0.1, 25, timedelta(hours=1)
#: In a verdict: up to when the models know, in epoch seconds, where they are older than the policy.
KNOWN_AT = "known_at"


def judged(reader: Reader, campaign: Campaign) -> Iterator[Policy]:
    """What the gate has judged of this campaign, newest first: candidates, and what shares the traffic (``climbing``).
    Each was a try."""
    workspace_id, campaign_id = campaign.workspace_id, campaign.campaign_id
    made = items_of(lambda at: reader.policies(workspace_id, limit=500, cursor=at, campaign_id=campaign_id))
    return (policy for policy in made if not policy.revision)


def next_try(reader: Reader, campaign: Campaign) -> int:
    """Which of the campaign's tries the next verdict is, those included that retention has taken away: what they spent
    of the error stays spent."""
    known = [policy.verdict.get("tries") for policy in judged(reader, campaign)]
    told = next(((count, later) for later, count in enumerate(known) if count is not None), (0, 0))
    return max(len(known), sum(told)) + 1


def candidates(reader: Reader, campaign: Campaign) -> Iterator[Policy]:
    """What retrains have made of this campaign, newest first."""
    return (policy for policy in judged(reader, campaign) if not of_shared(policy))


def of_shared(policy: Policy) -> bool:
    """Whether a look at what shares the traffic (``climbing``) made a judged policy, and no retrain."""
    return "shared" in policy.verdict


def taken_back(reader: Reader, campaign: Campaign, run: TrainingRun, *, gate: bool) -> str | None:
    """Why a retrain leaves a campaign alone whose policy was taken back to the cold start: nobody has asked since.

    The next one would replace chance as a first policy does, with all of the traffic at once, and undo within hours
    what somebody did. Where a gate holds it against the baseline it begins as a canary, and goes on being looked for.
    A campaign that was changed since is trained.
    """
    pointer = reader.pointer(campaign.workspace_id, campaign.campaign_id)
    if pointer is None or pointer.policy_id != COLD_POLICY or (gate and campaign.begins_with_baseline):
        return None
    asked = run.trigger != "schedule" and run.created_at >= pointer.moved_at
    if asked or _changed(reader, campaign, pointer.moved_at):
        return None
    return (
        f"its policy was taken back to the cold start at {pointer.moved_at:%Y-%m-%d %H:%M} UTC, which stays until a "
        "retrain is asked for, a policy is promoted or the campaign is changed"
    )


def _changed(reader: Reader, campaign: Campaign, since: datetime) -> bool:
    """Whether a campaign says something else than at that time: a PUT of the same every night is no change."""
    then: Campaign | None = campaign
    while then is not None and then.updated_at > since:
        then = reader.campaign(campaign.workspace_id, campaign.campaign_id, then.version - 1)
        if then is None or replace(then, version=campaign.version, updated_at=campaign.updated_at) != campaign:
            return True
    return False


def too_soon(reader: Reader, campaign: Campaign, matured: Sequence[Logged], now: datetime) -> str | None:
    """Why a scheduled retrain leaves a campaign alone, if it has little more to go by than the last verdict had.

    A campaign that was changed since is judged. Rows are new where there are more of them (an import), or where they
    became final since (retention takes as many away).
    """
    last = next(candidates(reader, campaign), None)
    if last is None or _long_ago(reader, last, campaign, now, LONGEST):
        return None
    told = last.verdict.get("rows")
    if not isinstance(told, int):
        return None
    final = sum(planned_end(campaign, row.decision) > last.created_at for row in matured)
    new, needed = max(len(matured) - told, final), min(ENOUGH, math.ceil(GROWTH * told))
    if new >= needed:
        return None
    return f"{new:,} outcomes more than at the last verdict; the next comes after {needed:,}, or a day"


def _long_ago(reader: Reader, last: Policy, campaign: Campaign, now: datetime, longest: timedelta) -> bool:
    """Whether a campaign's last candidate says nothing against another one, by when it was made."""
    made = last.created_at
    if now - made >= longest or ahead(f"policy {last.policy_id!r}", made, now):
        return True
    return _changed(reader, campaign, made)  # last: it reads every version since


def anchored_still(
    reader: Reader, campaign: Campaign, rows: Iterable[Logged], changed: float | None, now: datetime
) -> str | None:
    """Why a scheduled retrain without a gate leaves a campaign alone, if what it serves is anchored at a change of
    outcomes. A campaign that was changed itself since its last training is trained."""
    last, pointer = (
        next(candidates(reader, campaign), None),
        reader.pointer(campaign.workspace_id, campaign.campaign_id),
    )
    if changed is None or last is None or pointer is None:
        return None
    if _long_ago(reader, last, campaign, now, LONGEST_UNSETTLED):
        return None
    served = Served.of(reader, pointer)
    anchored = served is not None and served.anchored({campaign.campaign_id: changed})
    return unsettled(rows, changed) if anchored else None


def unsettled(rows: Iterable[Logged], changed: float) -> str | None:
    """Why a retrain would know less than an anchored model does, if outcomes have changed lately.

    Args:
        rows: those of the campaign that may be learned from.
        changed: when its outcomes last changed, in epoch seconds.
    """
    known = sum(row.decision.decided_at.timestamp() >= changed for row in rows)
    if known >= SINCE_CHANGE:
        return None
    return f"outcomes have changed, and {known:,} of {SINCE_CHANGE:,} rows since are known; refreshes go on"


def known_until(policy: Policy) -> float:
    """Up to when a policy's models know, in epoch seconds."""
    return float(policy.verdict.get(KNOWN_AT, policy.created_at.timestamp()))


def worth_revising(policy: Policy, numbers: JsonObject, campaign: Campaign, at: datetime) -> bool:
    """Whether what has become known since a policy was made is worth a revision of it.

    Args:
        policy: the one that serves. campaign: its campaign.
        numbers: what is known now, as in ``annealing.exploration_numbers``. at: the time of that.
    """
    had, told, known = policy.exploration.get("told"), numbers["told"], known_until(policy)
    if had is None or alarms_of(policy.exploration) != alarms_of(numbers):
        return True
    if had == told:
        return False
    grown: bool = abs(told - had) >= GROWN * had
    waited = at.timestamp() - known >= WITHIN.total_seconds() or campaign.updated_at.timestamp() > known
    return grown or waited or _variant_grown(policy.exploration.get("matured_rows", {}), numbers["matured_rows"])


def alarms_of(numbers: JsonObject) -> tuple[set[str], str | None]:
    """Which alarms stand in a policy's numbers, and when outcomes last changed. One that is heard again is no news."""
    drift = numbers.get("drift", {})
    return {alarm["what"] for alarm in drift.get("alarms", ())}, drift.get("changed")


def _variant_grown(before: Mapping[str, int], now: Mapping[str, int]) -> bool:
    return any(n - before.get(v, 0) >= max(VARIANT_ROWS, VARIANT_GROWN * before.get(v, 0)) for v, n in now.items())
