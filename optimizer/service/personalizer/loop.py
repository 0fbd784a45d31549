"""The configuration of a workspace's loop: what it is, how it is kept, what may be changed together.

Field names and limits follow Azure's specification of Personalizer 2022-09-01-preview (``ServiceConfiguration``,
``PolicyContract``) and the wording of its error codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, get_args

import msgspec

from optimizer.errors import Invalid
from optimizer.service.personalizer.arguments import DEFAULT_ARGUMENTS, LearningSettings, read_arguments, with_epsilon
from optimizer.service.wiring import Services
from storage.port import Reader, Writer
from storage.ranks import LoopMode

Aggregation = Literal["earliest", "average", "median", "sum", "min", "max"]
AGGREGATIONS: Final[tuple[Aggregation, ...]] = get_args(Aggregation)
MODES: Final[tuple[LoopMode, ...]] = get_args(LoopMode)
DEFAULT_POLICY: Final = "default"
_SHORTEST_WAIT: Final = timedelta(seconds=5)
_LONGEST_WAIT: Final = timedelta(days=2)
#: More days than that are a hundred years.
LONGEST_DAYS: Final = 36_500
_LONGEST: Final = timedelta(days=LONGEST_DAYS)
_INVALID: Final = "InvalidServiceConfiguration"


@dataclass(frozen=True, slots=True)
class Loop:
    """How a loop ranks and learns. ``edited_at`` is when something that changes what is learned was last changed."""

    reward_wait: timedelta = timedelta(minutes=10)
    default_reward: float = 0.0
    aggregation: Aggregation = "earliest"
    exploration: float = 0.2
    export_every: timedelta = timedelta(minutes=1)
    retention_days: int = 90
    retrain_days: int = 2
    mode: LoopMode = "Online"
    auto_optimization: bool = False
    auto_every: timedelta = timedelta(days=28)
    auto_start: datetime | None = None
    mirror: bool = False
    mirror_uri: str | None = None
    explain: bool = False
    edited_at: datetime | None = None
    policy_name: str = DEFAULT_POLICY
    arguments: str = DEFAULT_ARGUMENTS

    @property
    def settings(self) -> LearningSettings:
        """The policy's arguments, as far as they are understood."""
        return read_arguments(self.arguments)

    @property
    def teaching(self) -> tuple[object, ...]:
        """What decides what is learned from a given log: where it changes, a model is made anew."""
        return (self.reward_wait, self.default_reward, self.aggregation, self.settings.products)


_decoder: Final = msgspec.json.Decoder(Loop)


def load(reader: Reader, workspace_id: str) -> Loop:
    """The loop of a workspace; a workspace that never changed anything has the default one."""
    stored = reader.loop_document(workspace_id, "loop", "")
    return Loop() if stored is None else _agreed(_decoder.decode(stored))


def _agreed(loop: Loop) -> Loop:
    """``--epsilon`` tells what is explored, whoever changed it: else to put the arguments back would change that."""
    if loop.settings.epsilon in (None, loop.exploration):
        return loop
    return replace(loop, arguments=with_epsilon(loop.arguments, loop.exploration))


def get(services: Services, workspace_id: str) -> Loop:
    """``load`` on a reader of its own."""
    with services.store.read() as reader:
        return load(reader, workspace_id)


def change(services: Services, workspace_id: str, changes: Mapping[str, Any]) -> Loop:
    """Replaces the named fields of a loop.

    Raises:
        Invalid: a value is out of its range, or such changes may not be made together.
    """
    now = services.clock()

    def work(writer: Writer) -> Loop:
        before = load(writer, workspace_id)
        after = _agreed(checked(before, replace(before, **changes)))
        if after.teaching != before.teaching:
            after = replace(after, edited_at=now)
        writer.put_loop_document(workspace_id, "loop", "", msgspec.json.encode(after))
        return after

    return services.store.write(work)


def set_policy(services: Services, workspace_id: str, name: str, arguments: str) -> Loop:
    """Sets the learning settings. An ``--epsilon`` among them is from then on the share that is explored at most."""
    read = read_arguments(arguments)
    changes: dict[str, Any] = {"policy_name": name, "arguments": arguments}
    if read.epsilon is not None:
        changes["exploration"] = read.epsilon
    return change(services, workspace_id, changes)


def reset_policy(services: Services, workspace_id: str) -> Loop:
    """Back to the settings that every loop begins with."""
    return set_policy(services, workspace_id, DEFAULT_POLICY, DEFAULT_ARGUMENTS)


def checked(before: Loop, after: Loop) -> Loop:
    """``after``, if it is allowed to follow ``before``.

    Raises:
        Invalid: it isn't; the code is Azure's.
    """
    _check_values(after)
    rewards_changed = (before.reward_wait, before.default_reward, before.aggregation) != (
        after.reward_wait,
        after.default_reward,
        after.aggregation,
    )
    if {before.mode, after.mode} == {"Online", "Apprentice"} and rewards_changed:
        raise Invalid.field(
            "learningMode",
            "rewardWaitTime, defaultReward and rewardAggregation can't change together with it; make two calls",
            code="InvalidLearningModeServiceConfiguration",
        )
    return after


def _check_values(loop: Loop) -> None:
    if not _SHORTEST_WAIT <= loop.reward_wait <= _LONGEST_WAIT:
        raise Invalid.field("rewardWaitTime", "must be from 5 seconds to 2 days", code="InvalidRewardWaitTime")
    fewest = math.ceil((loop.reward_wait + timedelta(days=1)) / timedelta(days=1))
    if loop.retention_days != -1 and loop.retention_days < fewest:
        raise Invalid.field(
            "logRetentionDays",
            f"is {loop.retention_days}; must be -1 (for ever) or at least {fewest}, the wait time and a day",
            code="InvalidLogRetentionDays",
        )
    if loop.retrain_days < 0 or (loop.retention_days != -1 and loop.retrain_days > loop.retention_days):
        raise Invalid.field(
            "modelRetrainDays",
            f"is {loop.retrain_days}; must be from 0 to logRetentionDays",
            code="InvalidModelRetrainDays",
        )
    if loop.aggregation not in AGGREGATIONS:
        raise Invalid.field("rewardAggregation", f"must be one of {', '.join(AGGREGATIONS)}", code=_INVALID)
    if loop.mode not in MODES:
        raise Invalid.field("learningMode", f"must be one of {', '.join(MODES)}", code=_INVALID)
    _check_number("defaultReward", loop.default_reward, -1.0, 1.0)
    _check_number("explorationPercentage", loop.exploration, 0.0, 1.0)
    for name, span, shortest in (
        ("modelExportFrequency", loop.export_every, timedelta(seconds=1)),
        ("autoOptimizationFrequency", loop.auto_every, timedelta(hours=1)),
    ):
        if not shortest <= span <= _LONGEST:
            raise Invalid.field(name, f"must be at least {shortest.total_seconds():.0f} seconds", code=_INVALID)


def _check_number(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise Invalid.field(name, f"is {value}; must be from {low:g} to {high:g}", code=_INVALID)
