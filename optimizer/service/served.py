"""The models behind a served policy: which follow the outcomes, and which retrain each of them came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optimizer.service.footing import Known, footing_of, known_of, told_as
from optimizer.service.ids import COLD_POLICY
from storage.policies import Component, Pointer, Policy
from storage.port import Reader


@dataclass(frozen=True)
class Served:
    """What a campaign serves.

    Attributes:
        line: see ``line_served``.
        models: those that follow the outcomes, as they are stored: what each says of itself, and the artifact of its
            retrain.
    """

    campaign_id: str
    line: tuple[Policy, ...]
    models: tuple[tuple[Known, str], ...]

    @classmethod
    def of(cls, reader: Reader, pointer: Pointer) -> Served:
        """Of the policy that a campaign's pointer names."""
        line = line_served(reader, pointer)
        names = origins_of(line) if line else {}
        found = [(reader.artifact(pointer.workspace_id, name), origin) for name, origin in names.items()]
        models = tuple((known_of(one.blob), origin) for one, origin in found if one is not None)
        return cls(pointer.campaign_id, line, models)

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


def line_served(reader: Reader, pointer: Pointer) -> tuple[Policy, ...]:
    """The serving policy and what it revises, newest first; the gated policy that this line of revisions started from
    is the last. Empty while nothing learned serves."""
    line: list[Policy] = []
    policy = None if pointer.policy_id == COLD_POLICY else reader.policy(pointer.workspace_id, pointer.policy_id)
    while policy is not None:
        line.append(policy)
        if not policy.revision or policy.parent_id is None:
            break
        policy = reader.policy(pointer.workspace_id, policy.parent_id)
    return tuple(line)


def origins_of(line: Sequence[Policy]) -> dict[str, str]:
    """The artifacts of a line's newest policy, each with that of the retrain that it came from."""
    pairs = zip(following(line), line[-1].mixture, strict=True)
    return {one.artifact_id: of.artifact_id for one, of in pairs if one.artifact_id and of.artifact_id}


def following(line: Sequence[Policy]) -> tuple[Component, ...]:
    """The components of a line's newest policy that follow those of its gated one: all, or what shares the traffic with
    it."""
    return line[0].mixture[-len(line[-1].mixture) :]
