"""What an operator wants to be woken for in what is learned: drift, data that was refused, policies taken back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from optimizer.service.served import learned
from optimizer.service.told import runs
from storage.port import Reader
from storage.records import JsonObject

#: Families of drift detectors.
KINDS: Final = ("calibration", "features", "propensities")
#: Training runs that are looked through for drift, and retrains for one that didn't fail.
_LOOK_BACK = 300
#: Moves of a campaign's policies that are looked through.
_MOVES = 20


@dataclass(frozen=True, slots=True)
class CampaignAlerts:
    """Of a campaign that a learned policy serves, or one served that was taken back, or whose data was refused.

    Attributes:
        drift: how many alarms stand, by kind.
        refused: whether the last retrain refused its data.
        rolled_back: when a policy of it was last taken back; None = not lately.
    """

    campaign_id: str
    drift: Mapping[str, int]
    refused: bool
    rolled_back: datetime | None


@dataclass(frozen=True, slots=True)
class LearningAlerts:
    """Of a workspace; ``trained``: when the last retrain that didn't fail has finished, None = not lately."""

    trained: datetime | None
    campaigns: tuple[CampaignAlerts, ...]


def learning_alerts(reader: Reader, workspace_id: str) -> LearningAlerts:
    """What the newest training runs and moves of policies say; a campaign that is paused keeps what was said last."""
    served = {pointer.campaign_id for pointer in learned(reader, workspace_id)}
    moved = [p.campaign_id for p in reader.pointers() if p.workspace_id == workspace_id]
    back = {name: at for name in moved if (at := _taken_back(reader, workspace_id, name)) is not None}
    drift: dict[str, JsonObject] = {}
    for run in islice(runs(reader, workspace_id), _LOOK_BACK):
        for one in run.verdict.get("campaigns", ()):
            if one.get("drift") is not None:
                drift.setdefault(one["campaign_id"], one["drift"])
        if served <= drift.keys():
            break
    retrains = islice(runs(reader, workspace_id, kind="retrain"), _LOOK_BACK)
    trained = next((run for run in retrains if run.finished_at is not None and run.status != "failed"), None)
    told = () if trained is None else trained.verdict.get("campaigns", ())
    decided = {one["campaign_id"]: one.get("decision", "") for one in told}
    names = sorted(served | back.keys() | {name for name, decision in decided.items() if decision == "refused"})
    found = tuple(
        CampaignAlerts(
            campaign_id=name,
            drift=_standing(drift.get(name, {})),
            refused=decided.get(name) == "refused",
            rolled_back=back.get(name),
        )
        for name in names
    )
    return LearningAlerts(None if trained is None else trained.finished_at, found)


def _standing(drift: JsonObject) -> dict[str, int]:
    count = Counter(alarm["what"].partition(".")[0] for alarm in drift.get("alarms", ()))
    return {kind: count[kind] for kind in KINDS}


def _taken_back(reader: Reader, workspace_id: str, campaign_id: str) -> datetime | None:
    moves = reader.policy_changes(workspace_id, limit=_MOVES, campaign_id=campaign_id)
    return next((move.at for move in moves if move.kind == "rolled_back"), None)
