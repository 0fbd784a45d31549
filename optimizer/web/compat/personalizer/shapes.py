"""Writes Personalizer's answers, in the shapes of v1.0 and of the later versions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from optimizer.bandit.intervals import quantile
from optimizer.service.personalizer.apprentice import Apprentice, Counts
from optimizer.service.personalizer.evaluations import Bucket, Evaluation, PolicyOutcome, bucket_width
from optimizer.service.personalizer.importances import Importance
from optimizer.service.personalizer.loop import Loop
from optimizer.web.compat.personalizer import durations
from storage.ranks import Rank, SlotChoice

Json = dict[str, Any]

_OLD_STATUS = {"NotSubmitted": "notSubmitted", "Running": "pending", "Failed": "failed", "Timeout": "failed"}
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


def service(loop: Loop, apprentice: Apprentice | None, *, old: bool) -> Json:
    """``ServiceConfiguration``; v1.0 has the first six fields alone."""
    span = durations.dotnet if old else durations.iso
    told: Json = {
        "rewardWaitTime": span(loop.reward_wait),
        "defaultReward": loop.default_reward,
        "rewardAggregation": loop.aggregation,
        "explorationPercentage": loop.exploration,
        "modelExportFrequency": span(loop.export_every),
        "logRetentionDays": loop.retention_days,
    }
    if old:
        return told
    told |= {
        "modelRetrainDays": loop.retrain_days,
        "learningMode": loop.mode,
        "isAutoOptimizationEnabled": loop.auto_optimization,
        "autoOptimizationFrequency": span(loop.auto_every),
        "isInferenceExplainabilityEnabled": loop.explain,
        "logMirrorEnabled": loop.mirror,
    }
    optional = {
        "autoOptimizationStartDate": loop.auto_start,
        "logMirrorSasUri": loop.mirror_uri,
        "lastConfigurationEditDate": loop.edited_at,
        "latestApprenticeModeMetrics": None if apprentice is None else _apprentice(apprentice),
    }
    return {**told, **{name: value for name, value in optional.items() if value is not None}}


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
    """``Evaluation`` of the later versions, its series cut to a range and summed over stretches."""
    told = evaluation_details(found)
    if found.optimal is not None:
        told["optimalPolicy"] = found.optimal
    if found.description:
        told["description"] = found.description
    first, last = start or found.start, end or found.end
    value = [_policy_result(o, first, last, timedelta(minutes=minutes), expanding=expanding) for o in found.outcomes]
    if value:
        told["content"] = {"startTime": first, "endTime": last, "intervalInMinutes": minutes, "value": value}
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
                {"timeStamp": sums.start, "expectedReward": _mean(sums), "confidenceInterval": _interval(sums)}
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


def _interval(sums: Bucket) -> list[float]:
    return [_mean(sums) - _half(sums), _mean(sums) + _half(sums)]


def old_evaluation(found: Evaluation) -> Json:
    """``Evaluation`` of v1.0."""
    return {
        "id": found.id,
        "name": found.name,
        "startTime": found.start,
        "endTime": found.end,
        "jobId": found.id,
        "status": _OLD_STATUS.get(found.status, "completed"),
        "policyResults": [
            {
                "name": outcome.name,
                "arguments": outcome.arguments,
                "summary": [_old_sums(sums, bucket_width(found)) for sums in outcome.buckets],
                "totalSummary": _old_total(outcome, found),
            }
            for outcome in found.outcomes
            if not outcome.slot_id
        ],
    }


def _old_total(outcome: PolicyOutcome, found: Evaluation) -> Json:
    whole = list(stretches(outcome.buckets, found.start, found.end, _ALL, expanding=True))
    sums = whole[-1] if whole else Bucket(found.end, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
    return {**_old_sums(sums, found.end - found.start), "timeStamp": found.end}


#: One stretch that holds every time.
_ALL = timedelta(days=36_500 * 4)


def _old_sums(sums: Bucket, width: timedelta) -> Json:
    return {
        "timeStamp": sums.start,
        "ipsEstimatorNumerator": sums.wr,
        "ipsEstimatorDenominator": float(sums.rows),
        "snipsEstimatorDenominator": sums.w,
        "aggregateTimeWindow": durations.dotnet(width),
        "nonZeroProbability": float(sums.hits),
        "confidenceInterval": _half(sums),
        "sumOfSquares": sums.wwrr,
    }


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
