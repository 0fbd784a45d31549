"""Writes Personalizer's answers, in the shapes of each of its versions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from optimizer.bandit.intervals import quantile
from optimizer.service.personalizer.apprentice import Apprentice, Counts
from optimizer.service.personalizer.evaluations import (
    Bucket,
    Evaluation,
    PolicyOutcome,
    Source,
    Status,
    bucket_width,
)
from optimizer.service.personalizer.importances import Importance
from optimizer.service.personalizer.loop import Loop
from optimizer.service.personalizer.shelf import WAITING
from optimizer.web.compat.personalizer import durations
from optimizer.web.compat.personalizer.versions import Version
from storage.ranks import Rank, SlotChoice

Json = dict[str, Any]

#: Statuses before 2022. What waits is "pending", as at Azure: the .NET SDK takes any other for the end of the job.
_EARLY_STATUS: Mapping[Status, str] = {
    "NotSubmitted": "pending",
    "Running": "pending",
    "Succeeded": "completed",
    "Failed": "failed",
    "Timeout": "timeout",
    "OptimalPolicyApplied": "optimalPolicyApplied",
    "OnlinePolicyRetained": "onlinePolicyRetained",
}
#: Those that v1.0 doesn't have yet.
_OLD_STATUS = {"timeout": "failed", "optimalPolicyApplied": "completed", "onlinePolicyRetained": "completed"}
#: Azure's v1.1 told its series by these stretches, too, behind those of five minutes (answers recorded for the tests of
#: Azure/azure-sdk-for-net, ``sdk/personalizer``).
_EARLY_WIDTHS = (timedelta(hours=1), timedelta(hours=6), timedelta(days=1))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rank(answer: Rank, explained: Sequence[Sequence[tuple[str, float]]] | None = None) -> Json:
    """``RankResponse``: excluded actions keep their place, the rest are ordered around them, the chosen one first."""
    slot = answer.slots[0]
    told: Json = {
        "ranking": [
            {"id": answer.actions[place].id, "probability": probability} for place, probability in ordered(answer, slot)
        ],
        "eventId": answer.event_id,
        "rewardActionId": answer.actions[slot.chosen].id,
    }
    if explained is not None:
        told["inferenceExplanation"] = [
            {"id": action.id, "features": [{"name": name, "score": score} for name, score in features]}
            for action, features in zip(answer.actions, explained, strict=True)
        ]
    return told


def ordered(answer: Rank, slot: SlotChoice) -> list[tuple[int, float]]:
    """Places of the actions as they are ranked, with their probabilities."""
    told = dict(zip(slot.eligible, slot.probability, strict=True))
    rest = iter(sorted(told, key=lambda place: (place != slot.chosen, -told[place], place)))
    places = (next(rest) if place in told else place for place in range(len(answer.actions)))
    return [(place, told.get(place, 0.0)) for place in places]


def multi_slot(answer: Rank) -> Json:
    """``MultiSlotRankResponse``."""
    return {
        "eventId": answer.event_id,
        "slots": [{"id": slot.slot_id, "rewardActionId": answer.actions[slot.chosen].id} for slot in answer.slots],
    }


def service(loop: Loop, apprentice: Apprentice | None, version: Version) -> Json:
    """``ServiceConfiguration``; v1.0 has the first six fields alone, v1.1 not yet those of 2022."""
    span = _span(version)
    told: Json = {
        "rewardWaitTime": span(loop.reward_wait),
        "defaultReward": loop.default_reward,
        "rewardAggregation": loop.aggregation,
        "explorationPercentage": loop.exploration,
        "modelExportFrequency": span(loop.export_every),
        "logRetentionDays": loop.retention_days,
    }
    if version is Version.V1_0:
        return told
    told |= {
        "learningMode": loop.mode,
        "isAutoOptimizationEnabled": loop.auto_optimization,
        "autoOptimizationFrequency": span(loop.auto_every),
        "logMirrorEnabled": loop.mirror,
    }
    optional = {
        "autoOptimizationStartDate": loop.auto_start,
        "logMirrorSasUri": loop.mirror_uri,
        "lastConfigurationEditDate": loop.edited_at,
    }
    told |= {name: value for name, value in optional.items() if value is not None}
    if version is Version.V1_1:
        return told
    told |= {"modelRetrainDays": loop.retrain_days, "isInferenceExplainabilityEnabled": loop.explain}
    return told if apprentice is None else {**told, "latestApprenticeModeMetrics": _apprentice(apprentice)}


def _span(version: Version) -> Callable[[timedelta], str]:
    """How a version writes spans of time."""
    return durations.dotnet if version is Version.V1_0 else durations.iso


def _apprentice(found: Apprentice) -> Json:
    return {
        "startTime": found.start,
        "lastProcessedEventTime": found.end,
        **_counts(found.total),
        "lastBatchMetrics": _counts(found.last),
    }


def _counts(found: Counts) -> Json:
    return {
        "numberOfEvents": found.events,
        "numberOfImitatedEvents": found.imitated,
        "sumOfRewards": found.rewards,
        "sumOfImitatedRewards": found.imitated_rewards,
    }


def evaluation_details(found: Evaluation) -> Json:
    """``EvaluationDetails``."""
    return {
        "id": found.id,
        "name": found.name,
        "startTime": found.start,
        "endTime": found.end,
        "creationTime": found.created_at,
        "status": found.status,
        "evaluationType": found.kind,
    }


def evaluation(
    found: Evaluation, start: datetime | None, end: datetime | None, minutes: int, *, expanding: bool
) -> Json:
    """``Evaluation`` of 2022-09-01-preview, its series cut to a range and summed over stretches."""
    told = evaluation_details(found)
    if found.optimal is not None:
        told["optimalPolicy"] = found.optimal
    if found.description:
        told["description"] = found.description
    first, last = start or found.start, end or found.end
    width = max(timedelta(minutes=minutes), bucket_width(found))  # sums of a long range are kept by the hour
    value = [_policy_result(o, first, last, width, expanding=expanding) for o in found.outcomes]
    if value:
        interval = width // timedelta(minutes=1)
        told["content"] = {"startTime": first, "endTime": last, "intervalInMinutes": interval, "value": value}
    return told


def _policy_result(
    outcome: PolicyOutcome, start: datetime, end: datetime, width: timedelta, *, expanding: bool
) -> Json:
    told: Json = {
        "name": outcome.name,
        "arguments": outcome.arguments,
        "policySource": outcome.source,
        "summary": {"expectedReward": outcome.value, "confidenceInterval": [outcome.low, outcome.high]},
        "timeseries": {
            "data": [
                {"timeStamp": sums.start, "expectedReward": _mean(sums), "confidenceInterval": _interval(sums, outcome)}
                for sums in stretches(outcome.buckets, start, end, width, expanding=expanding)
                if sums.w > 0  # else the stretch tells nothing of this policy
            ]
        },
    }
    return {**told, "slotId": outcome.slot_id} if outcome.slot_id else told


def stretches(
    buckets: Sequence[Bucket], start: datetime, end: datetime, width: timedelta, *, expanding: bool
) -> Iterator[Bucket]:
    """Sums over stretches of time; ``expanding``: over everything up to each stretch's end."""
    so_far: Bucket | None = None
    for bucket in buckets:
        if not start <= bucket.start < end:
            continue
        at = _EPOCH + (bucket.start - _EPOCH) // width * width
        if so_far is not None and (at == so_far.start or expanding):
            if at != so_far.start:
                yield so_far
            so_far = _sum(so_far, bucket, at)
            continue
        if so_far is not None:
            yield so_far
        so_far = _sum(None, bucket, at)
    if so_far is not None:
        yield so_far


def _sum(a: Bucket | None, b: Bucket, at: datetime) -> Bucket:
    if a is None:
        return Bucket(at, b.rows, b.hits, b.w, b.wr, b.ww, b.wwr, b.wwrr)
    return Bucket(
        at, a.rows + b.rows, a.hits + b.hits, a.w + b.w, a.wr + b.wr, a.ww + b.ww, a.wwr + b.wwr, a.wwrr + b.wwrr
    )


def _mean(sums: Bucket) -> float:
    """The self-normalised estimate."""
    return sums.wr / sums.w if sums.w > 0 else 0.0


def _half(sums: Bucket) -> float:
    """Half the 95 % interval of ``_mean``, by the delta method."""
    if sums.w <= 0:
        return 0.0
    mean = _mean(sums)
    spread = max(sums.wwrr - 2 * mean * sums.wwr + mean**2 * sums.ww, 0.0)
    return quantile(0.95) * math.sqrt(spread) / sums.w


def _interval(sums: Bucket, outcome: PolicyOutcome) -> list[float]:
    """The 95 % interval of ``_mean``, where rewards can lie: a Gaussian one reaches beyond."""
    lowest, highest = outcome.seen or (-math.inf, math.inf)
    return [max(lowest, _mean(sums) - _half(sums)), min(highest, _mean(sums) + _half(sums))]


def early_evaluation(found: Evaluation, version: Version, *, series: bool = True) -> Json:
    """``Evaluation`` of v1.0 and v1.1; without ``series`` as lists have it."""
    told: Json = {
        "id": found.id,
        "name": found.name,
        "startTime": found.start,
        "endTime": found.end,
        "jobId": found.id,
        "status": _EARLY_STATUS[found.status],
        "policyResults": list(_early_results(found, version, series=series)),
    }
    if version is Version.V1_0:
        return {**told, "status": _OLD_STATUS.get(told["status"], told["status"])}
    return {
        **told,
        "featureImportance": [],  # asked for by itself
        "evaluationType": found.kind,
        "optimalPolicy": found.optimal or "",
        "creationTime": found.created_at,
    }


def _early_results(found: Evaluation, version: Version, *, series: bool) -> Iterator[Json]:
    """``PolicyResult`` of each policy, over all slots; while it waits, what was asked for."""
    if found.status in WAITING:
        yield from (_early_policy(asked.name, asked.arguments, "Custom", version) for asked in found.policies)
    for outcome in found.outcomes:
        if not outcome.slot_id:
            told = _early_policy(outcome.name, outcome.arguments, outcome.source, version)
            if series:
                told["summary"] = list(_early_series(outcome, found, version))
            yield {**told, "totalSummary": _early_total(outcome, found, version)}


def _early_policy(name: str, arguments: str, source: Source, version: Version) -> Json:
    told = {"name": name, "arguments": arguments}
    return told if version is Version.V1_0 else {**told, "policySource": source}


def _early_series(outcome: PolicyOutcome, found: Evaluation, version: Version) -> Iterator[Json]:
    finest = bucket_width(found)
    yield from (_early_sums(sums, finest, version) for sums in outcome.buckets)
    for width in () if version is Version.V1_0 else _EARLY_WIDTHS:
        if width > finest:
            coarser = stretches(outcome.buckets, found.start, found.end, width, expanding=False)
            yield from (_early_sums(sums, width, version) for sums in coarser)


def _early_total(outcome: PolicyOutcome, found: Evaluation, version: Version) -> Json:
    whole = list(stretches(outcome.buckets, found.start, found.end, _ALL, expanding=True))
    sums = whole[-1] if whole else Bucket(found.end, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
    half = (outcome.high - outcome.low) / 2
    told = {**_early_sums(sums, found.end - found.start, version), "timeStamp": found.end, "confidenceInterval": half}
    return told if version is Version.V1_0 else {**told, "averageReward": outcome.value}


#: One stretch that holds every time.
_ALL = timedelta(days=36_500 * 4)


def _early_sums(sums: Bucket, width: timedelta, version: Version) -> Json:
    """``PolicyResultSummary``."""
    told: Json = {
        "timeStamp": sums.start,
        "ipsEstimatorNumerator": sums.wr,
        "ipsEstimatorDenominator": float(sums.rows),
        "snipsEstimatorDenominator": sums.w,
        "aggregateTimeWindow": _span(version)(width),
        "nonZeroProbability": float(sums.hits),
        "confidenceInterval": _half(sums),
        "sumOfSquares": sums.wwrr,
    }
    return told if version is Version.V1_0 else {**told, "averageReward": _mean(sums)}


def importance_details(found: Importance) -> Json:
    """``FeatureImportanceDetails``."""
    return {
        "id": found.id,
        "name": found.name,
        "startTime": found.start,
        "endTime": found.end,
        "creationTime": found.created_at,
        "status": found.status,
    }


def importance(found: Importance) -> Json:
    """``FeatureImportance``."""
    told = importance_details(found)
    if found.description:
        told["description"] = found.description
    return {
        **told,
        "featureScores": [{"namespace": s.namespace, "featureName": s.feature, "score": s.score} for s in found.scores],
    }
