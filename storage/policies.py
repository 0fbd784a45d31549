"""The records of what was learned: artifacts, the policies made of them, which of these are served, training runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from storage.records import JsonObject

RunStatus = Literal["queued", "running", "published", "rejected", "skipped", "failed"]
PolicyStatus = Literal["candidate", "live", "retired", "rejected"]


@dataclass(frozen=True, slots=True)
class Component:
    """One part of a policy's mixture: an artifact with its weight; ``artifact_id`` None = the campaign's cold start."""

    weight: float
    artifact_id: str | None


@dataclass(frozen=True, slots=True)
class Artifact:
    """A trained model as one blob (ONNX graph, arrays and JSON in one checksummed file), shared by policies."""

    workspace_id: str
    artifact_id: str
    created_at: datetime
    checksum: bytes
    feature_hash: str
    blob: bytes


@dataclass(frozen=True, slots=True)
class Policy:
    """A campaign's policy: a mixture of components; weights sum to 1. Immutable but for what became of it: ``status``,
    ``superseded_at``, and ``parent_id``, which skips revisions that were deleted.

    ``exploration`` holds the numbers that the distribution is computed with (rate, matured rows by variant, …);
    ``verdict`` is what the gate found, each condition with its number; ``superseded_at`` is when a revision of it took
    its place, or it was taken back (None = neither, since it last went into service). ``gated_id`` is the gated
    policy that a revision's line of revisions started from: nobody has to walk through thousands of parents.
    """

    workspace_id: str
    policy_id: str
    campaign_id: str
    created_at: datetime
    mixture: tuple[Component, ...]
    status: PolicyStatus = "candidate"
    parent_id: str | None = None
    run_id: str | None = None
    revision: bool = False
    exploration: JsonObject = field(default_factory=dict)
    verdict: JsonObject = field(default_factory=dict)
    superseded_at: datetime | None = None
    gated_id: str | None = None


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which policy a campaign serves. ``generation`` grows by one with every move (compare-and-set)."""

    workspace_id: str
    campaign_id: str
    policy_id: str
    generation: int
    moved_at: datetime


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One retrain or refresh: when, of what, how it ended."""

    workspace_id: str
    run_id: str
    kind: Literal["retrain", "refresh"]
    status: RunStatus
    created_at: datetime
    campaign_id: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    trigger: str = "schedule"
    verdict: JsonObject = field(default_factory=dict)
    error: str | None = None
