"""The models behind a served policy: which follow the outcomes, and which retrain each of them came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from optimizer.service.feedback import Logged
from optimizer.service.footing import Known, footing_of, known_of, told_as
from optimizer.service.ids import COLD_POLICY
from storage.policies import Component, Pointer, Policy
from storage.port import Reader


@dataclass(frozen=True)
class Served:
    """What a campaign serves.

    Attributes:
        policy: the one that its pointer names. gated: see ``gated_of``.
        models: those that follow the outcomes, as they are stored: what each says of itself, and the artifact of its
            retrain.
    """

    campaign_id: str
    policy: Policy
    gated: Policy
    models: tuple[tuple[Known, str], ...]

    @classmethod
    def of(cls, reader: Reader, pointer: Pointer) -> Served | None:
        """What a campaign's pointer names; None where nothing learned serves."""
        policy = policy_of(reader, pointer)
        if policy is None:
            return None
        gated = gated_of(reader, policy)
        pairs = origins_of(policy, gated).items()
        found = [(reader.artifact(pointer.workspace_id, name), origin) for name, origin in pairs]
        models = tuple((known_of(one.blob), origin) for one, origin in found if one is not None)
        return cls(pointer.campaign_id, policy, gated, models)

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


def learned(reader: Reader, workspace_id: str, campaign_id: str | None = None) -> list[Pointer]:
    """The pointers of a workspace's campaigns (None = of all) that name something learned."""
    return [
        pointer
        for pointer in reader.pointers()
        if pointer.workspace_id == workspace_id
        and pointer.policy_id != COLD_POLICY
        and campaign_id in (None, pointer.campaign_id)
    ]


def policy_of(reader: Reader, pointer: Pointer) -> Policy | None:
    """The policy that a campaign's pointer names; None where nothing learned serves."""
    return None if pointer.policy_id == COLD_POLICY else reader.policy(pointer.workspace_id, pointer.policy_id)


def gated_of(reader: Reader, policy: Policy) -> Policy:
    """The gated policy that a line of revisions started from. It is named, so that nobody has to walk through thousands
    of revisions; where retention has deleted it, the oldest that is left stands for it."""
    while policy.revision:
        found = _named(reader, policy, policy.gated_id) or _named(reader, policy, policy.parent_id)
        if found is None:
            break
        policy = found
    return policy


def told_serving(reader: Reader, pointer: Pointer | None) -> str:
    """Which policy the change feed names as serving where a campaign's pointer is: the one that was put into service,
    since revisions take its place without an entry; where the feed forgot that, the gated one of their line."""
    if pointer is None:
        return COLD_POLICY
    serving = policy_of(reader, pointer)
    if serving is None:
        return pointer.policy_id
    gated_id = gated_of(reader, serving).policy_id
    for newest in reader.policy_changes(pointer.workspace_id, limit=1, campaign_id=pointer.campaign_id):
        told = reader.policy(pointer.workspace_id, newest.policy_id or COLD_POLICY)
        if told is not None and gated_of(reader, told).policy_id == gated_id:
            return told.policy_id
    return gated_id


def line_of(reader: Reader, policy: Policy) -> list[Policy]:
    """A policy and what it revises, newest first; the gated policy that this line of revisions started from is the
    last. One read a revision: for canaries, whose lines are short."""
    line = [policy]
    while line[-1].revision and (parent := _named(reader, policy, line[-1].parent_id)) is not None:
        line.append(parent)
    return line


def members(reader: Reader, gated: Policy, rows: Iterable[Logged]) -> list[Policy]:
    """The policies of a gated one's line, itself among them, that some of the rows were decided under."""
    names = {row.decision.policy_id for row in rows}
    found = [reader.policy(gated.workspace_id, name) for name in sorted(names - {gated.policy_id})]
    revisions = [one for one in found if one is not None and one.gated_id == gated.policy_id]
    return [gated, *revisions] if gated.policy_id in names else revisions


def origins_of(policy: Policy, gated: Policy) -> dict[str, str]:
    """The artifacts of a policy, each with that of the retrain that it came from."""
    pairs = zip(following(policy, gated), gated.mixture, strict=True)
    return {one.artifact_id: of.artifact_id for one, of in pairs if one.artifact_id and of.artifact_id}


def following(policy: Policy, gated: Policy) -> tuple[Component, ...]:
    """The components of a revision that follow those of its gated ancestor: all, or what shares the traffic with it."""
    return policy.mixture[-len(gated.mixture) :]


def _named(reader: Reader, policy: Policy, name: str | None) -> Policy | None:
    return None if name is None else reader.policy(policy.workspace_id, name)
