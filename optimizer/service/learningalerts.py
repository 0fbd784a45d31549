"""What an operator wants to be woken for in what is learned: drift, data that was refused, guardrails that are broken,
policies that were taken back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from optimizer.service.served import gated_of, learned, policy_of
from optimizer.service.told import runs
from storage.policies import Pointer
from storage.port import Reader
from storage.records import JsonObject

#: Families of drift detectors.
KINDS: Final = ("calibration", "features", "propensities")
#: Training runs that are looked through: more than there are refreshes from one retrain to the next, as set by default.
_LOOK_BACK = 300
#: Moves of a campaign's policies that are looked through.
_MOVES = 20


@dataclass(frozen=True, slots=True)
class CampaignAlerts:
    """Of a campaign that a learned policy serves, or whose data was refused.

    Attributes:
        drift: how many alarms stand, by kind.
        refused: whether the last retrain refused its data.
        crossed: whether the policy in service breaks a guardrail and stays, since what served before would, too.
        rolled_back: when a policy of it was last taken back; None = not lately.
    """

    campaign_id: str
    drift: Mapping[str, int]
    refused: bool
    crossed: bool
    rolled_back: datetime | None


@dataclass(frozen=True, slots=True)
class LearningAlerts:
    """Of a workspace; ``trained``: when the last retrain that didn't fail has finished, None = not lately."""

    trained: datetime | None
    campaigns: tuple[CampaignAlerts, ...]


def learning_alerts(reader: Reader, workspace_id: str) -> LearningAlerts:
    """What the newest training runs and moves of policies say; a campaign that is paused keeps what was said last."""
    served = {p.campaign_id: _gated_id(reader, p) for p in learned(reader, workspace_id)}
    drift: dict[str, JsonObject] = {}
    guarded: dict[str, JsonObject] = {}
    decided: dict[str, str] = {}
    trained: datetime | None = None
    for run in islice(runs(reader, workspace_id), _LOOK_BACK):
        told = run.verdict.get("campaigns", ())
        for one in told:
            if one.get("drift") is not None:
                drift.setdefault(one["campaign_id"], one["drift"])
            if one.get("guard") is not None:
                guarded.setdefault(one["campaign_id"], one)
        if trained is None and run.kind == "retrain" and run.finished_at is not None and run.status != "failed":
            trained = run.finished_at
            decided = {one["campaign_id"]: one.get("decision", "") for one in told}
        if trained is not None and served.keys() <= drift.keys():
            break
    names = sorted(served.keys() | {name for name, decision in decided.items() if decision == "refused"})
    found = tuple(
        CampaignAlerts(
            campaign_id=name,
            drift=_standing(drift.get(name, {})),
            refused=decided.get(name) == "refused",
            crossed=_crossed(guarded.get(name), served.get(name)),
            rolled_back=_taken_back(reader, workspace_id, name),
        )
        for name in names
    )
    return LearningAlerts(trained, found)


def _gated_id(reader: Reader, pointer: Pointer) -> str:
    policy = policy_of(reader, pointer)
    return pointer.policy_id if policy is None else gated_of(reader, policy).policy_id


def _crossed(told: JsonObject | None, gated_id: str | None) -> bool:
    """Whether a guardrail was told to be broken, of a policy that serves still."""
    return told is not None and told["decision"] == "crossed" and told["policy_id"] == gated_id


def _standing(drift: JsonObject) -> dict[str, int]:
    count = Counter(alarm["what"].partition(".")[0] for alarm in drift.get("alarms", ()))
    return {kind: count[kind] for kind in KINDS}


def _taken_back(reader: Reader, workspace_id: str, campaign_id: str) -> datetime | None:
    moves = reader.policy_changes(workspace_id, limit=_MOVES, campaign_id=campaign_id)
    return next((move.at for move in moves if move.kind == "rolled_back"), None)
