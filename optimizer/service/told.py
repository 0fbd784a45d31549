"""What an earlier training run told of a campaign: a look that goes on where the last one stopped keeps it there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from storage.log import items_of
from storage.policies import RunStatus, TrainingRun
from storage.port import Reader
from storage.records import JsonObject

#: Training runs that are looked through. Without the state a look starts from the first row, and comes to the same.
LOOK_BACK = 200
#: Seconds by which a decision may be committed after a look that its time of decision precedes.
LATE_COMMIT = 600.0


def last_told(reader: Reader, workspace_id: str, campaign_id: str, key: str) -> JsonObject | None:
    """What the newest run that says something under ``key`` says of a campaign."""
    for run in islice(runs(reader, workspace_id), LOOK_BACK):
        for told in run.verdict.get("campaigns", ()):
            if told.get("campaign_id") == campaign_id and told.get(key) is not None:
                found: JsonObject = told[key]
                return found
    return None


def runs(reader: Reader, workspace_id: str, status: RunStatus | None = None) -> Iterator[TrainingRun]:
    """Training runs, newest first; all of them, or those of one status."""
    return items_of(lambda at: reader.training_runs(workspace_id, limit=100, cursor=at, status=status))
