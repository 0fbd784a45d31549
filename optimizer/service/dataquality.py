"""What is known of the data: findings of the last training, the drift detectors, what became of reported events.

Nothing is computed here: training runs keep their verdicts with what they found, looks for drift keep their state with
the run that looked, policies keep the numbers that they explore with, and events are counted as they come in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

from optimizer.bandit.drift import CALIBRATION
from optimizer.service.driftstate import Alarm, Drift, quiet_left
from optimizer.service.featureblocks import BLOCK_ROWS
from optimizer.service.feedback import all_campaigns
from optimizer.service.ids import COLD_POLICY
from optimizer.service.runs import LEAST_ROWS
from optimizer.service.told import runs
from optimizer.service.wiring import Services
from storage.policies import TrainingRun
from storage.port import Reader
from storage.records import Campaign, JsonObject

#: Training runs that are looked through, refreshes included: about a day of them.
LOOK_BACK: Final = 1_500
#: Days of counts that are told, today among them.
DAYS: Final = 7
#: Reported and not used as meant; ``duplicate`` is no fault, vendors repeat themselves.
BAD: Final = ("unmatched", "unknown_type", "forged", "rejected")


#: What looks at canaries, at guardrails and at shared traffic tell beside a retrain's verdict.
_LOOKS = frozenset({"watch", "guard", "looks"})


@dataclass(frozen=True, slots=True)
class _Told:
    """What a run said of a campaign."""

    run: TrainingRun
    verdict: JsonObject

    def at(self) -> datetime:
        return self.run.finished_at or self.run.created_at


def data_quality(services: Services, workspace_id: str) -> dict[str, Any]:
    """Of each active campaign what the last training found and what the drift detectors know.

    Returns:
        ``campaigns``, each with ``training`` (None = no run has judged it), ``data`` (None = no run has examined its
        features), ``drift`` (None = no look yet) and ``exploration`` (None = nothing learned serves).
    """
    with services.store.read() as reader:
        campaigns = [one for one in all_campaigns(reader, workspace_id) if one.status == "active"]
        told = _looked_up(reader, workspace_id, {one.campaign_id for one in campaigns})
        found = [_campaign(reader, one, told.get(one.campaign_id, {})) for one in campaigns]
    return {"generated_at": services.clock(), "least_rows": LEAST_ROWS, "campaigns": found}


def intake(reader: Reader, workspace_id: str, now: datetime) -> list[dict[str, Any]]:
    """What became of the last days' events, by source: ``source``, ``total``, and ``results`` by their names, those
    that were rejected together; ``why`` counts them by the reason's code."""
    sources: dict[str, dict[str, Any]] = {}
    for one in reader.intake(workspace_id, (now - timedelta(days=DAYS - 1)).date()):
        told = sources.setdefault(one.source, {"source": one.source, "total": 0, "results": {}, "why": {}})
        result, _, code = one.result.partition(".")
        told["results"][result] = told["results"].get(result, 0) + one.count
        if code:
            told["why"][code] = told["why"].get(code, 0) + one.count
        # Those of unknown types are among the others.
        told["total"] += 0 if result == "unknown_type" else one.count
    return [sources[name] for name in sorted(sources)]


def _looked_up(reader: Reader, workspace_id: str, wanted: set[str]) -> dict[str, dict[str, _Told]]:
    """The newest run that judged, examined, looked at each campaign, under ``training``, ``data``, ``drift``."""
    found: dict[str, dict[str, _Told]] = {name: {} for name in wanted}
    missing = 3 * len(wanted)
    for run in islice(runs(reader, workspace_id), LOOK_BACK):
        for verdict in run.verdict.get("campaigns", ()):
            mine = found.get(verdict.get("campaign_id", ""))
            if mine is None:
                continue
            for kind in ("training", "data", "drift"):
                judged = run.kind == "retrain" and verdict.get("decision") != "waits" and not _LOOKS & verdict.keys()
                says = judged if kind == "training" else verdict.get(kind) is not None
                if says and kind not in mine:
                    mine[kind] = _Told(run, verdict)
                    missing -= 1
        if not missing:
            break
    return found


def _campaign(reader: Reader, campaign: Campaign, told: Mapping[str, _Told]) -> dict[str, Any]:
    training, data, drift = told.get("training"), told.get("data"), told.get("drift")
    return {
        "campaign_id": campaign.campaign_id,
        "name": campaign.name,
        "training": training and _training(training),
        "data": data and {**_by(data), **data.verdict["data"]},
        "drift": drift and {**_by(drift), **_drift(Drift.from_json(drift.verdict["drift"]))},
        "exploration": _exploration(reader, campaign),
    }


def _by(told: _Told) -> dict[str, Any]:
    return {"run_id": told.run.run_id, "at": told.at()}


def _training(told: _Told) -> dict[str, Any]:
    verdict = told.verdict
    failed = [one for one in verdict.get("conditions", ()) if not one["passed"]]
    return {
        **_by(told),
        "decision": verdict["decision"],
        "rows": verdict.get("rows"),
        "reason": verdict.get("reason", ""),
        # What a gate refuses is told with the policy; here only what was wrong with the data.
        "refused": failed if verdict["decision"] == "refused" else [],
    }


def _drift(state: Drift) -> dict[str, Any]:
    detectors = state.detectors
    values = [
        {**detector_of(name), "figure": value, "limit": detectors.limit}
        for name, value in zip(detectors.names, detectors.value, strict=True)
    ]
    features = [
        {"family": "features", "of": name, "way": "", "figure": figure, "limit": limit}
        for name, (figure, limit) in state.features.items()
    ]
    return {
        "rows": state.rows,
        "raised": state.raised,
        "changed": _moment(state.changed),
        "alarms": [_alarm(state, alarm) for alarm in state.alarms],
        # The nearest to an alarm first.
        "detectors": sorted([*values, *features], key=lambda one: -one["figure"] / one["limit"]),
        "block": {"rows": state.block.rows, "size": BLOCK_ROWS},
    }


def _alarm(state: Drift, alarm: Alarm) -> dict[str, Any]:
    named = detector_of(alarm.what)
    return {
        **asdict(alarm),
        **named,
        "noticed": _moment(alarm.noticed),
        "changed": _moment(alarm.changed),
        "ends": quiet_left(alarm, state),
    }


def detector_of(name: str) -> dict[str, str]:
    """A detector's name in parts: ``family``, ``of`` what, which ``way``."""
    family, _, rest = name.partition(".")
    of, _, way = rest.rpartition(".")
    if family == "calibration" and way in CALIBRATION:
        return {"family": family, "of": of, "way": way}
    if family == "propensities" and way in ("more", "less"):
        return {"family": family, "of": of, "way": way}
    return {"family": family, "of": rest, "way": ""}


def _exploration(reader: Reader, campaign: Campaign) -> dict[str, Any] | None:
    pointer = reader.pointer(campaign.workspace_id, campaign.campaign_id)
    if pointer is None or pointer.policy_id == COLD_POLICY:
        return None
    policy = reader.policy(campaign.workspace_id, pointer.policy_id)
    if policy is None or "anneal" not in policy.exploration:
        return None
    return {"policy_id": policy.policy_id, "rate": float(policy.exploration["anneal"])}


def _moment(epoch: float | None) -> datetime | None:
    return None if epoch is None else datetime.fromtimestamp(epoch, UTC)
