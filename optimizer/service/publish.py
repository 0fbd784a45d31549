"""Publishing a policy: one transaction that stores the artifact, the policy and its verdict, and moves the pointer.

The pointer moves by compare-and-set on the generation that the verdict was made against; if another move came in
between, nothing is published and the run says so. Prices are no such move: they follow what is left every minute, and a
run that takes longer would never publish anything; what it publishes has the newest ones. A run that has lost its lease
was ended by whoever took that (see ``runs``), and publishes nothing any more.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime

from optimizer.bandit.tolls import prices_of, with_prices
from optimizer.errors import Conflict
from optimizer.service.ids import COLD_POLICY, fresh
from optimizer.service.learning import loadable
from optimizer.service.served import told_serving
from optimizer.service.wiring import Services
from storage.errors import VersionConflict
from storage.policies import Artifact, Component, Pointer, Policy
from storage.port import Reader, Writer
from storage.records import JsonObject

#: Components that weigh less than this are dropped from a mixture when a new one joins it.
LEAST_WEIGHT = 0.02
#: A mixture never has more components than this; the lightest goes.
MOST_COMPONENTS = 3


def artifact_of(workspace_id: str, blob: bytes, feature_hash: str, now: datetime) -> Artifact:
    """A trained blob as a record; its id is its checksum, so the same model is stored once."""
    checksum = hashlib.sha256(blob).digest()
    return Artifact(
        workspace_id=workspace_id,
        artifact_id="art_" + checksum.hex()[:32],
        created_at=now,
        checksum=checksum,
        feature_hash=feature_hash,
        blob=blob,
    )


def mixture(incumbent: tuple[Component, ...], artifact_id: str, alpha: float) -> tuple[Component, ...]:
    """(1 − α) x incumbent + α x candidate, pruned to few components; weights sum to 1."""
    if alpha >= 1.0:
        return (Component(1.0, artifact_id),)
    parts = [Component((1 - alpha) * c.weight, c.artifact_id) for c in incumbent if c.artifact_id != artifact_id]
    parts = sorted((p for p in parts if p.weight >= LEAST_WEIGHT), key=lambda p: -p.weight)[: MOST_COMPONENTS - 1]
    held = sum(p.weight for p in parts)
    scaled = [Component(p.weight * (1 - alpha) / held, p.artifact_id) for p in parts]
    return (*scaled, Component(alpha if scaled else 1.0, artifact_id))


def publish(
    services: Services,
    artifacts: list[Artifact],
    policy: Policy,
    expected: Pointer | None,
    now: datetime,
    *,
    over_prices: bool = True,
) -> Policy:
    """Stores ``artifacts`` and ``policy`` and makes it the one that its campaign serves.

    Args:
        services: the wired service.
        artifacts: the new artifacts among the policy's components.
        policy: the policy, its verdict included.
        expected: the pointer that the policy was judged against (None = none yet).
        now: the time of publishing.
        over_prices: whether it may follow a policy that differs from the expected one in its prices alone.

    Raises:
        VersionConflict: the pointer has moved since; nothing was stored.
        Conflict: the run that made it is over; nothing was stored.
    """

    def work(writer: Writer) -> Policy:
        live, before = replace(policy, status="live"), expected
        _require_going(writer, live)
        if over_prices and before is not None and (repriced := _repriced(writer, before)) is not None:
            before, serving = repriced
            numbers = with_prices(live.exploration, prices_of(serving.exploration))
            live = replace(live, parent_id=serving.policy_id, exploration=numbers)
        for artifact in artifacts:
            writer.put_artifact(artifact)
        writer.add_policy(live)
        generation = before.generation + 1 if before is not None else 1
        writer.move_pointer(Pointer(live.workspace_id, live.campaign_id, live.policy_id, generation, now))
        if before is not None and before.policy_id != COLD_POLICY:
            # What a gated policy replaced stays, to go back to.
            superseded_at = now if live.revision else None
            writer.set_policy_status(live.workspace_id, before.policy_id, "retired", superseded_at=superseded_at)
        if not live.revision:
            writer.add_change(
                live.workspace_id,
                "promoted",
                now,
                campaign_id=live.campaign_id,
                policy_id=live.policy_id,
                replaced_id=told_serving(writer, before),
            )
        return live

    return services.store.write(work)


def _repriced(reader: Reader, expected: Pointer) -> tuple[Pointer, Policy] | None:
    """Where prices alone were published since a pointer was read: the present one, and what it names. Each move since
    must have been a repricing of what served before it."""
    pointer = reader.pointer(expected.workspace_id, expected.campaign_id)
    if pointer is None or pointer.generation <= expected.generation:
        return None
    serving = policy = reader.policy(pointer.workspace_id, pointer.policy_id)
    for _ in range(pointer.generation - expected.generation):
        if policy is None or not policy.verdict.get("repriced"):
            return None
        policy = reader.policy(pointer.workspace_id, policy.parent_id) if policy.parent_id is not None else None
    if serving is None or policy is None or policy.policy_id != expected.policy_id:
        return None
    return pointer, serving


def rolled_back(services: Services, serving: Pointer, to: str, now: datetime, reason: str) -> tuple[str, str]:
    """Takes the serving policy back: its campaign serves ``to`` again, and the change feed says why.

    Args:
        services: the wired service.
        serving: the pointer as it was read; the move is a compare-and-set on it.
        to: a stored policy, or the cold start. Where it can't be loaded, the nearest before it that can is served.
        now: the time of the move.
        reason: with its numbers.

    Returns:
        What came of it, and why: ``rolled_back``, or ``superseded`` where the pointer has moved since.
    """
    with services.store.read() as reader:
        to, told = loadable(reader, serving.workspace_id, to)
    reason = "; ".join(filter(None, (reason, told)))

    def work(writer: Writer) -> None:
        writer.move_pointer(Pointer(serving.workspace_id, serving.campaign_id, to, serving.generation + 1, now))
        writer.set_policy_status(serving.workspace_id, serving.policy_id, "retired", superseded_at=now)
        if to != COLD_POLICY:
            writer.set_policy_status(serving.workspace_id, to, "live")
        writer.add_change(
            serving.workspace_id,
            "rolled_back",
            now,
            campaign_id=serving.campaign_id,
            policy_id=to,
            replaced_id=told_serving(writer, serving),
            detail=reason,
        )

    try:
        services.store.write(work)
    except VersionConflict:
        return "superseded", "the campaign's policy was moved during the look"
    return "rolled_back", reason


def reject(services: Services, policy: Policy) -> Policy:
    """Stores a rejected candidate with its verdict but without its model: it will never be served.

    Raises:
        Conflict: the run that made it is over; nothing was stored.
    """
    rejected = replace(policy, status="rejected", mixture=())

    def work(writer: Writer) -> None:
        _require_going(writer, rejected)
        writer.add_policy(rejected)

    services.store.write(work)
    return rejected


def _require_going(writer: Writer, policy: Policy) -> None:
    run = None if policy.run_id is None else writer.training_run(policy.workspace_id, policy.run_id)
    if run is not None and run.status != "running":
        raise Conflict(
            f"training run {run.run_id} stood still for so long that it was taken for dead; it publishes nothing more",
            code="training",
        )


def new_policy(
    workspace_id: str,
    campaign_id: str,
    now: datetime,
    parts: tuple[Component, ...],
    *,
    parent: Pointer | None,
    exploration: JsonObject,
    verdict: JsonObject,
    run_id: str | None,
    gated_id: str | None = None,
) -> Policy:
    """A candidate policy's record; with ``gated_id`` (see ``Policy``) that of a revision."""
    return Policy(
        workspace_id=workspace_id,
        policy_id=fresh("pol"),
        campaign_id=campaign_id,
        created_at=now,
        mixture=parts,
        parent_id=parent.policy_id if parent is not None else COLD_POLICY,
        run_id=run_id,
        revision=gated_id is not None,
        gated_id=gated_id,
        exploration=exploration,
        verdict=verdict,
    )
