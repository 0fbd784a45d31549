"""The models behind a served policy: which follow the outcomes, and which retrain each of them came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from optimizer.service.footing import Known, footing_of, known_of, told_as
from storage.policies import Component, Pointer, Policy
from storage.port import Reader


@dataclass(frozen=True)
class Served:
    """The models that follow the outcomes of a campaign, as they are stored: what each says of itself, and the artifact
    of its retrain."""

    campaign_id: str
    models: tuple[tuple[Known, str], ...]

    @classmethod
    def of(cls, reader: Reader, pointer: Pointer) -> Served:
        """Of the policy that a campaign's pointer names."""
        policy = reader.policy(pointer.workspace_id, pointer.policy_id)
        names = {} if policy is None else lineage_of(reader, policy)
        found = [(reader.artifact(pointer.workspace_id, name), origin) for name, origin in names.items()]
        return cls(pointer.campaign_id, tuple((known_of(one.blob), origin) for one, origin in found if one is not None))

    @property
    def told_as(self) -> list[str]:
        """Under which names it is kept what settled rows say of them."""
        return [told_as(origin, footing_of(known, self.campaign_id, {}), known) for known, origin in self.models]

    def anchored(self, changed: Mapping[str, float]) -> bool:
        """Whether one is anchored, or will be by the next refresh."""
        return any(footing_of(known, self.campaign_id, changed).since is not None for known, _ in self.models)

    def stands(self, changed: Mapping[str, float]) -> bool:
        """Whether none has yet to be anchored at a change: for that, settled rows are read again."""
        return not any(footing_of(known, self.campaign_id, changed).anchors for known, _ in self.models)


def lineage_of(reader: Reader, policy: Policy) -> dict[str, str]:
    """The artifacts of a policy, each with that of the retrain that it came from."""
    gated = gated_of(reader, policy)
    pairs = zip(following(policy, gated), gated.mixture, strict=True)
    return {one.artifact_id: of.artifact_id for one, of in pairs if one.artifact_id and of.artifact_id}


def following(policy: Policy, gated: Policy) -> tuple[Component, ...]:
    """The components of a revision that follow those of its gated ancestor: all, or what shares the traffic with it."""
    return policy.mixture[-len(gated.mixture) :]


def gated_of(reader: Reader, policy: Policy) -> Policy:
    """The gated policy that a line of revisions started from."""
    return line_of(reader, policy)[-1]


def line_of(reader: Reader, policy: Policy) -> list[Policy]:
    """A policy and what it revises, newest first; the gated policy that the line started from is the last."""
    line = [policy]
    while line[-1].revision and line[-1].parent_id is not None:
        parent = reader.policy(policy.workspace_id, line[-1].parent_id)
        if parent is None:
            break
        line.append(parent)
    return line
