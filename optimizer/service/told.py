"""What an earlier training run told of a campaign: a look that goes on where the last one stopped keeps it there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from storage.policies import TrainingRun
from storage.port import Reader
from storage.records import JsonObject

#: Training runs that are looked through. Without the state a look starts from the first row, and comes to the same.
LOOK_BACK = 200


def last_told(reader: Reader, workspace_id: str, campaign_id: str, key: str) -> JsonObject | None:
    """What the newest run that says something under ``key`` says of a campaign."""
    for run in islice(runs(reader, workspace_id), LOOK_BACK):
        for told in run.verdict.get("campaigns", ()):
            if told.get("campaign_id") == campaign_id and told.get(key) is not None:
                found: JsonObject = told[key]
                return found
    return None


def runs(reader: Reader, workspace_id: str) -> Iterator[TrainingRun]:
    """Training runs, newest first."""
    cursor: str | None = None
    while True:
        page = reader.training_runs(workspace_id, limit=50, cursor=cursor)
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return
