"""What an earlier training run told of a campaign: a look that goes on where the last one stopped keeps it there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice

from optimizer.service.wrongclock import ahead
from storage.log import items_of
from storage.policies import RunStatus, TrainingRun
from storage.port import Reader
from storage.records import JsonObject

#: Training runs that tell of a campaign and are looked through for what is sought: the newest may be of another kind.
LOOK_BACK = 200
#: Training runs that are looked through in all. Runs that failed, or were of other campaigns, tell nothing of one; days
#: of these hide no state. Without it a look starts from the first row, and what was known of changes is lost.
MOST_RUNS = 10_000
#: Training runs that are read at once: mostly the first is what is looked for.
_PAGE = 20
#: Seconds by which a decision may be committed after a look that its time of decision precedes.
LATE_COMMIT = 600.0


def last_told(reader: Reader, workspace_id: str, campaign_id: str, key: str, now: datetime) -> JsonObject | None:
    """What the newest run that says something under ``key`` says of a campaign. One that is dated ahead has looked
    farther than there is anything to see yet."""
    return last_told_of(reader, workspace_id, [campaign_id], key, now).get(campaign_id)


def last_told_of(
    reader: Reader, workspace_id: str, campaign_ids: Iterable[str], key: str, now: datetime
) -> dict[str, JsonObject]:
    """The same of several campaigns, each run read once: a run tells of all of them, and there may be hundreds."""
    found: dict[str, JsonObject] = {}
    left = dict.fromkeys(campaign_ids, LOOK_BACK)
    for run in islice(runs(reader, workspace_id), MOST_RUNS if left else 0):
        for told in run.verdict.get("campaigns", ()):
            name = told.get("campaign_id")
            if name not in left or dated_ahead(run, now):
                continue
            left[name] -= 1
            if told.get(key) is not None:
                found[name] = told[key]
            if name in found or left[name] == 0:
                del left[name]
        if not left:
            break
    return found


def runs(
    reader: Reader, workspace_id: str, status: RunStatus | None = None, kind: str | None = None
) -> Iterator[TrainingRun]:
    """Training runs, newest first; all of them, or those of one status and of one kind."""
    return items_of(lambda at: reader.training_runs(workspace_id, limit=_PAGE, cursor=at, status=status, kind=kind))


def dated_ahead(run: TrainingRun, now: datetime) -> bool:
    """Whether the clock was ahead when a run was queued (see ``wrongclock``)."""
    return ahead(f"training run {run.run_id!r}", run.created_at, now)
