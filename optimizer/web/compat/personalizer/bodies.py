"""Reads Personalizer's request bodies into what the service takes. Fields that nobody knows are passed over, as the
service that is stood in for did.

Limits are those of Azure's specification: 50 actions, 50 slots, ids of 256 characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, TypeVar

import msgspec
import orjson
from msgspec import UNSET, Meta, Struct, UnsetType

from optimizer.errors import Invalid, Unreadable
from optimizer.model.adf import Action
from optimizer.service import moments
from optimizer.service.jsontext import deeper
from optimizer.service.personalizer.evaluations import Evaluation, NamedPolicy
from optimizer.service.personalizer.importances import Importance
from optimizer.service.personalizer.ranking import RankRequest, Slot
from optimizer.web.compat.personalizer import durations

T = TypeVar("T")

MOST_ACTIONS = 50
MOST_SLOTS = 50
#: Objects and lists in one another.
MOST_DEPTH = 32
#: Bytes of features of which is remembered what was made of them: objects take some twenty times their JSON.
MOST_KEPT = 4096
_LENGTH = re.compile(r"Expected `(array|str)` of length (>=|<=) (\d+)")
Days = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
#: Rewards may be any number; this keeps sums of their squares finite.
_HUGE = 1e9


class ActionIn(Struct):
    """``RankableAction``. Features stay JSON: the model remembers what it made of the same bytes."""

    id: Name
    features: msgspec.Raw = msgspec.Raw(b"[]")


class RankIn(Struct, rename="camel"):
    """``RankRequest``."""

    actions: Annotated[list[ActionIn], Meta(min_length=1, max_length=MOST_ACTIONS)]
    context_features: msgspec.Raw = msgspec.Raw(b"[]")
    excluded_actions: list[str] | None = None
    event_id: Annotated[str, Meta(max_length=256)] | None = None
    defer_activation: bool | None = None


class SlotIn(Struct, rename="camel"):
    """``SlotRequest``."""

    id: Name
    baseline_action: Name
    features: msgspec.Raw = msgspec.Raw(b"[]")
    excluded_actions: list[str] | None = None


class MultiSlotIn(Struct, rename="camel"):
    """``MultiSlotRankRequest``."""

    actions: Annotated[list[ActionIn], Meta(min_length=1, max_length=MOST_ACTIONS)]
    slots: Annotated[list[SlotIn], Meta(min_length=1, max_length=MOST_SLOTS)]
    context_features: msgspec.Raw = msgspec.Raw(b"[]")
    event_id: Annotated[str, Meta(max_length=256)] | None = None
    defer_activation: bool | None = None


class RewardIn(Struct):
    """``RewardRequest``."""

    value: Annotated[float, Meta(ge=-_HUGE, le=_HUGE)]


class SlotRewardIn(Struct, rename="camel"):
    """``SlotReward``."""

    slot_id: Name
    value: Annotated[float, Meta(ge=-_HUGE, le=_HUGE)]


class SlotRewardsIn(Struct):
    """``MultiSlotRewardRequest``."""

    reward: Annotated[list[SlotRewardIn], Meta(min_length=1, max_length=MOST_SLOTS)]


class PolicyIn(Struct):
    """``PolicyContract``."""

    name: Name
    arguments: Annotated[str, Meta(min_length=1, max_length=1024)]


class ReferenceIn(Struct, rename="camel"):
    """``PolicyReferenceContract``."""

    evaluation_id: Name
    policy_name: Name


class JobIn(Struct, rename="camel"):
    """``EvaluationContract`` of every version, and ``FeatureImportanceContract``."""

    name: Name
    start_time: datetime
    end_time: datetime
    policies: list[PolicyIn] | None = None
    enable_policy_optimization: bool | None = None
    enable_offline_experimentation: bool | None = None


class ServiceIn(Struct, rename="camel"):
    """``ServiceConfiguration``: what is left out stays as it is."""

    reward_wait_time: str | UnsetType = UNSET
    default_reward: float | UnsetType = UNSET
    reward_aggregation: str | UnsetType = UNSET
    exploration_percentage: float | UnsetType = UNSET
    model_export_frequency: str | UnsetType = UNSET
    log_retention_days: Days | UnsetType = UNSET
    model_retrain_days: Days | UnsetType = UNSET
    learning_mode: str | UnsetType | None = UNSET
    is_auto_optimization_enabled: bool | UnsetType | None = UNSET
    auto_optimization_frequency: str | UnsetType | None = UNSET
    auto_optimization_start_date: datetime | UnsetType | None = UNSET
    is_inference_explainability_enabled: bool | UnsetType | None = UNSET
    log_mirror_enabled: bool | UnsetType | None = UNSET
    log_mirror_sas_uri: Annotated[str, Meta(max_length=2048)] | UnsetType | None = UNSET


#: Fields of ``ServiceIn``, and those of ``Loop`` that they set.
_LOOP_FIELDS = {
    "default_reward": "default_reward",
    "exploration_percentage": "exploration",
    "log_retention_days": "retention_days",
    "model_retrain_days": "retrain_days",
    "learning_mode": "mode",
    "is_auto_optimization_enabled": "auto_optimization",
    "is_inference_explainability_enabled": "explain",
    "log_mirror_enabled": "mirror",
    "log_mirror_sas_uri": "mirror_uri",
}
_SPANS = {
    "reward_wait_time": ("rewardWaitTime", "reward_wait"),
    "model_export_frequency": ("modelExportFrequency", "export_every"),
    "auto_optimization_frequency": ("autoOptimizationFrequency", "auto_every"),
}
#: May be null, which empties them; any other null says nothing.
_EMPTIED = frozenset({"log_mirror_sas_uri", "auto_optimization_start_date"})


def read(raw: bytes, kind: type[T], code: str) -> T:
    """The body as a struct.

    Raises:
        Invalid: it is JSON but not of that form; the message names the field.
        Unreadable: it is not JSON.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as fault:
        message, _, place = str(fault).partition(" - at ")
        target = place.strip("`").removeprefix("$").lstrip(".") or "body"
        message = _LENGTH.sub(_in_words, message)
        raise Invalid(f"{target}: {message}", code=code, errors={target: [message]}) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise Unreadable(f"the body is not JSON: {fault}", code=code) from None


def _in_words(found: re.Match[str]) -> str:
    """What msgspec says of a length, for people."""
    kind, bound, number = found.groups()
    what, of = ("a list", "entries") if kind == "array" else ("a string", "characters")
    return f"Must be {what} of {number} or {'more' if bound == '>=' else 'fewer'} {of}"


def rank_request(raw: bytes) -> RankRequest:
    """The request of ``/rank``."""
    code = "InvalidRankRequest"
    told = read(raw, RankIn, code)
    actions = _actions(told.actions, code)
    excluded = frozenset(told.excluded_actions or ())
    if all(action.id in excluded for action in actions):
        raise Invalid.field("excludedActions", "excludes every action", code=code)
    return RankRequest(
        actions=actions,
        slots=(Slot("", excluded),),
        context=_features(_decoded, bytes(told.context_features), "contextFeatures", code),
        event_id=told.event_id or None,
        deferred=bool(told.defer_activation),
        fingerprint=_fingerprint(raw, told.event_id, code),
    )


def multi_slot_request(raw: bytes) -> RankRequest:
    """The request of ``/multislot/rank``."""
    code = "InvalidRankRequest"
    told = read(raw, MultiSlotIn, code)
    actions = _actions(told.actions, code)
    ids = {action.id for action in actions}
    slots = tuple(
        Slot(
            s.id,
            frozenset(s.excluded_actions or ()),
            _features(_remembered, bytes(s.features), f"slots[{number}].features", code),
            s.baseline_action,
        )
        for number, s in enumerate(told.slots)
    )
    _check_slots(slots, ids, code)
    return RankRequest(
        actions=actions,
        slots=slots,
        context=_features(_decoded, bytes(told.context_features), "contextFeatures", code),
        event_id=told.event_id or None,
        deferred=bool(told.defer_activation),
        multi_slot=True,
        fingerprint=_fingerprint(raw, told.event_id, code),
    )


def _check_slots(slots: Sequence[Slot], ids: set[str], code: str) -> None:
    for number, slot in enumerate(slots):
        if slot.baseline not in ids:
            raise Invalid.field(f"slots[{number}].baselineAction", "is none of the actions", code=code)
        if slot.baseline in slot.excluded:
            raise Invalid.field(f"slots[{number}].baselineAction", "is excluded from this slot", code=code)
    if len({slot.id for slot in slots}) < len(slots):
        raise Invalid.field("slots", "two slots have the same id", code=code)
    if len({slot.baseline for slot in slots}) < len(slots):
        raise Invalid.field("slots", "two slots have the same baselineAction", code=code)


def _actions(told: Sequence[ActionIn], code: str) -> tuple[Action, ...]:
    actions = []
    for number, action in enumerate(told):
        raw = bytes(action.features)
        features = _features(_remembered, raw, f"actions[{number}].features", code)
        name = b"%b\0%b" % (action.id.encode(), raw) if len(raw) <= MOST_KEPT else None
        actions.append(Action(action.id, features, name))
    if len({action.id for action in actions}) < len(actions):
        raise Invalid.field("actions", "two actions have the same id", code=code)
    return tuple(actions)


def _features(decoded: Callable[[bytes], tuple[Any, ...]], raw: bytes, target: str, code: str) -> tuple[Any, ...]:
    """Feature objects of their JSON; ``decoded`` makes them.

    Raises:
        Invalid: it is neither an object nor a list of objects, or nested deeper than anyone can mean.
    """
    try:
        return decoded(raw)
    except (orjson.JSONDecodeError, ValueError) as fault:
        raise Invalid.field(target, str(fault), code=code) from None


def _remembered(raw: bytes) -> tuple[Any, ...]:
    """The same actions and slots come with every request, so what was made of their bytes is kept, unless it is large.
    Contexts are seldom the same twice."""
    return _kept(raw) if len(raw) <= MOST_KEPT else _decoded(raw)


def _decoded(raw: bytes) -> tuple[Any, ...]:
    value = orjson.loads(raw)
    if value is None:
        return ()
    found = [value] if isinstance(value, dict) else value
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError("must be a list of objects")
    if deeper(found, MOST_DEPTH):
        raise ValueError(f"is nested deeper than {MOST_DEPTH}")
    return tuple(found)


_kept = lru_cache(maxsize=2048)(_decoded)


def _fingerprint(raw: bytes, event_id: str | None, code: str) -> bytes:
    """What makes the same request the same, whatever the order of its keys; not asked for without an event id."""
    if not event_id:
        return b""
    try:
        return orjson.dumps(orjson.loads(raw), option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONDecodeError, TypeError) as fault:
        raise Unreadable(f"the body is not JSON: {fault}", code=code) from None


def loop_changes(raw: bytes) -> dict[str, Any]:
    """The fields of a loop that a ``ServiceConfiguration`` sets."""
    told = read(raw, ServiceIn, "InvalidServiceConfiguration")
    changes: dict[str, Any] = {}
    for field, target in _LOOP_FIELDS.items():
        value = getattr(told, field)
        if value is not UNSET and (value is not None or field in _EMPTIED):
            changes[target] = value
    for field, (name, target) in _SPANS.items():
        text = getattr(told, field)
        if text is not UNSET and text is not None:
            changes[target] = durations.read(name, text)
    if told.reward_aggregation is not UNSET:
        changes["aggregation"] = told.reward_aggregation.lower()
    start = told.auto_optimization_start_date
    if start is not UNSET:
        changes["auto_start"] = None if start is None else aware("autoOptimizationStartDate", start)
    return changes


def aware(name: str, moment: datetime) -> datetime:
    """A time; one without an offset is UTC, as .NET clients send it. ``Invalid`` outside the years that can be kept."""
    try:
        made = moments.as_utc(moment, UTC)
    except ValueError:  # at the edge of the calendar
        made = None
    if made is None or not 1971 <= made.year <= 9000:
        raise Invalid.field(name, f"is {moment.isoformat()}; must lie between 1971 and 9000", code="InvalidRequest")
    return made


def evaluation(raw: bytes, evaluation_id: str) -> Evaluation:
    """The evaluation that is asked for."""
    told = read(raw, JobIn, "InvalidEvaluationContract")
    start = aware("startTime", told.start_time)
    return Evaluation(
        id=evaluation_id,
        name=told.name,
        start=start,
        end=aware("endTime", told.end_time),
        created_at=start,
        policies=tuple(NamedPolicy(policy.name, policy.arguments) for policy in told.policies or ()),
        optimise=bool(told.enable_policy_optimization or told.enable_offline_experimentation),
    )


def importance(raw: bytes, job_id: str) -> Importance:
    """The feature importance job that is asked for."""
    told = read(raw, JobIn, "InvalidContract")
    start = aware("startTime", told.start_time)
    return Importance(job_id, told.name, start, aware("endTime", told.end_time), start)
