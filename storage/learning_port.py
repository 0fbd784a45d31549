"""What a store knows of artifacts, policies, pointers and training runs, and of who does such work now."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from storage.log import ChangeKind, Page
from storage.policies import Artifact, Pointer, Policy, PolicyStatus, TrainingRun


class LearningQueries(Protocol):
    """Part of ``storage.port.Reader``."""

    def pointers(self) -> tuple[Pointer, ...]:
        """The serving pointer of every campaign of every workspace, for hot reload."""

    def artifact(self, workspace_id: str, artifact_id: str) -> Artifact | None:
        """One artifact, its blob included."""

    def policy(self, workspace_id: str, policy_id: str) -> Policy | None:
        """One policy with its verdict."""

    def policies(
        self,
        workspace_id: str,
        *,
        limit: int,
        cursor: str | None = None,
        campaign_id: str | None = None,
        revisions: bool = True,
    ) -> Page[Policy]:
        """Policies, newest first; without ``revisions`` refreshed ones are left out unless they are live."""

    def pointer(self, workspace_id: str, campaign_id: str) -> Pointer | None:
        """Which policy a campaign serves; None before its first."""

    def training_run(self, workspace_id: str, run_id: str) -> TrainingRun | None:
        """One training run."""

    def training_runs(
        self,
        workspace_id: str,
        *,
        limit: int,
        cursor: str | None = None,
        status: str | None = None,
        kind: str | None = None,
    ) -> Page[TrainingRun]:
        """Training runs, newest first; all of them, or those of one status and of one kind."""


class LearningChanges(Protocol):
    """Part of ``storage.port.Writer``."""

    def put_artifact(self, artifact: Artifact) -> None:
        """Stores an artifact; a known ``artifact_id`` is left as it is."""

    def add_policy(self, policy: Policy) -> None:
        """Stores a new policy; ``AlreadyExists`` when its id is taken."""

    def set_policy_status(
        self, workspace_id: str, policy_id: str, status: PolicyStatus, *, superseded_at: datetime | None = None
    ) -> None:
        """Sets what became of a policy; ``VersionConflict`` when there is no such policy."""

    def move_pointer(self, pointer: Pointer) -> None:
        """Compare-and-set: ``VersionConflict`` unless ``generation`` is the stored generation + 1 (none stored = 0)."""

    def add_change(
        self,
        workspace_id: str,
        kind: ChangeKind,
        at: datetime,
        *,
        decision_id: str | None = None,
        campaign_id: str | None = None,
        policy_id: str | None = None,
        replaced_id: str | None = None,
        detail: str = "",
    ) -> int:
        """Appends to the change feed; positions are in the order of commits."""

    def put_training_run(self, run: TrainingRun) -> None:
        """Inserts or replaces."""

    def take_lease(self, name: str, holder: str, now: datetime, until: datetime) -> bool:
        """Takes or renews a lease; False while another holder's has not run out at ``now``. One that ends more than
        five minutes after ``until`` is no one's: it was taken while the clock was ahead."""

    def drop_lease(self, name: str, holder: str) -> None:
        """Gives a lease back; nothing happens when it is another holder's."""
