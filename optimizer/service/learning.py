"""Learning from outside: ask for a training run, move a campaign to another policy, take the last move back."""

from __future__ import annotations

from optimizer.errors import BadArtifact, Conflict, NotFound
from optimizer.service.ids import COLD_POLICY, derived, fresh, no_policy
from optimizer.service.served import gated_of, policy_of, told_serving
from optimizer.service.serving import load_policy
from optimizer.service.wiring import Services
from storage.errors import VersionConflict
from storage.log import ChangeKind
from storage.policies import Pointer, Policy, TrainingRun
from storage.port import Reader, Writer


def queue_training(
    services: Services,
    workspace_id: str,
    campaign_id: str | None,
    idempotency_key: str | None = None,
    trigger: str = "api",
) -> TrainingRun:
    """Queues a retrain for the scheduler; the same idempotency key gives the same run. ``trigger``: by whom."""
    run_id = derived("run", services.salt, workspace_id, idempotency_key) if idempotency_key else fresh("run")

    def work(writer: Writer) -> TrainingRun:
        if campaign_id is not None and writer.campaign(workspace_id, campaign_id) is None:
            raise NotFound(f"no campaign {campaign_id!r} in this workspace")
        known = writer.training_run(workspace_id, run_id)
        if known is not None:
            if known.campaign_id != campaign_id:
                raise Conflict(
                    f"Idempotency-Key {idempotency_key!r} was used for another request", code="request_id_reused"
                )
            return known
        run = TrainingRun(
            workspace_id=workspace_id,
            run_id=run_id,
            kind="retrain",
            status="queued",
            created_at=services.clock(),
            campaign_id=campaign_id,
            trigger=trigger,
        )
        writer.put_training_run(run)
        return run

    return services.store.write(work)


def promote(services: Services, workspace_id: str, policy_id: str, by: str = "") -> Policy:
    """Makes a stored policy the one its campaign serves, whatever the gate said; logged as a change, ``by`` whom.

    Raises:
        NotFound: no such policy.
        Conflict: code ``no_model``, its model is not kept or can't be loaded; code ``moved``, the campaign's policy
            moved meanwhile.
    """
    with services.store.read() as reader:
        require_model(reader, _stored(reader, workspace_id, policy_id))

    def work(writer: Writer) -> Policy:
        policy = _stored(writer, workspace_id, policy_id)
        _move(services, writer, policy.campaign_id, workspace_id, policy_id, "promoted", by)
        return _stored(writer, workspace_id, policy_id)

    return services.store.write(work)


def require_model(reader: Reader, policy: Policy) -> None:
    """Refuses what could not decide: a rejected candidate (``publish.reject``), of which only the verdict is kept, and
    a policy that no worker could load.

    Raises:
        Conflict: code ``no_model``.
    """
    if not policy.mixture:
        raise Conflict(
            f"policy {policy.policy_id!r} has no model: that of a rejected candidate is not kept, so it can't be put "
            "into service",
            code="no_model",
        )
    try:
        load_policy(reader, policy.workspace_id, policy.policy_id, {})
    except BadArtifact as fault:
        raise Conflict(
            f"policy {policy.policy_id!r} can't be put into service: {fault.detail}", code="no_model"
        ) from fault


def rollback(
    services: Services, workspace_id: str, campaign_id: str, by: str = "", *, expected: str | None = None
) -> Policy | None:
    """Goes back to the gated policy that the current one replaced; None = to the cold start.

    Refreshed revisions are skipped: they carry the policy that is being taken back. So is what can't be loaded.

    Args:
        services: the wired service.
        workspace_id: whose campaign it is.
        campaign_id: whose policy is taken back.
        by: who asks, for the change feed.
        expected: the policy that is meant, or one of its line (None = whichever serves).

    Raises:
        Conflict: code ``nothing_to_roll_back``, the campaign serves its cold start; code ``moved``, another policy than
            the expected one serves, or the campaign's policy moved meanwhile.
    """

    def work(writer: Writer) -> Policy | None:
        pointer = writer.pointer(workspace_id, campaign_id)
        if expected is not None:
            require_serving(writer, workspace_id, pointer, expected)
        if pointer is None or pointer.policy_id == COLD_POLICY:
            raise Conflict(
                f"campaign {campaign_id!r} serves its cold start: nothing to roll back", code="nothing_to_roll_back"
            )
        earlier, told = loadable(writer, workspace_id, predecessor(writer, workspace_id, pointer.policy_id))
        _move(services, writer, campaign_id, workspace_id, earlier, "rolled_back", "; ".join(filter(None, (by, told))))
        return None if earlier == COLD_POLICY else _stored(writer, workspace_id, earlier)

    return services.store.write(work)


def require_serving(reader: Reader, workspace_id: str, pointer: Pointer | None, policy_id: str) -> None:
    """Refuses to take back a policy that its campaign doesn't serve. One of the same line does: refreshes and prices
    publish revisions while somebody reads a page, and what is taken back is what all of them came from.

    Raises:
        Conflict: code ``moved``.
    """
    meant = reader.policy(workspace_id, policy_id)
    serving = None if pointer is None else policy_of(reader, pointer)
    lines = {None if one is None else gated_of(reader, one).policy_id for one in (meant, serving)}
    if None in lines or len(lines) > 1:
        raise Conflict(
            f"policy {policy_id!r} doesn't serve (any more): look again at the list of policies", code="moved"
        )


def predecessor(reader: Reader, workspace_id: str, policy_id: str) -> str:
    """The policy that was replaced when the gated ancestor of ``policy_id`` was published.

    One without a model can't serve, so what it had replaced is meant; the cold start where retention deleted it.
    """
    policy = reader.policy(workspace_id, policy_id)
    policy = None if policy is None else gated_of(reader, policy)
    while policy is not None and policy.parent_id is not None:
        earlier = reader.policy(workspace_id, policy.parent_id)
        if earlier is not None and earlier.mixture and not policy.revision:
            return earlier.policy_id
        policy = earlier
    return COLD_POLICY


def loadable(reader: Reader, workspace_id: str, policy_id: str) -> tuple[str, str]:
    """The policy, or the nearest one before it that can be loaded, and what is to be said of those that can't.

    Workers keep what they serve where they can't load what comes next: a rollback to that would take nothing back.
    """
    told = ""
    while policy_id != COLD_POLICY:
        try:
            load_policy(reader, workspace_id, policy_id, {})
            break
        except BadArtifact as fault:
            told = f"{told}{policy_id} can't be loaded ({fault.detail}), so it is passed over; "
            policy_id = predecessor(reader, workspace_id, policy_id)
    return policy_id, told.removesuffix("; ")


def _move(
    services: Services, writer: Writer, campaign_id: str, workspace_id: str, policy_id: str, kind: ChangeKind, by: str
) -> None:
    now = services.clock()
    pointer = writer.pointer(workspace_id, campaign_id)
    if pointer is not None and pointer.policy_id == policy_id:
        return
    generation = pointer.generation + 1 if pointer is not None else 1
    try:
        writer.move_pointer(Pointer(workspace_id, campaign_id, policy_id, generation, now))
    except VersionConflict as race:
        raise Conflict("the campaign's policy was moved at the same time; look again and retry", code="moved") from race
    if pointer is not None and pointer.policy_id != COLD_POLICY:
        writer.set_policy_status(workspace_id, pointer.policy_id, "retired", superseded_at=now)
    if policy_id != COLD_POLICY:
        writer.set_policy_status(workspace_id, policy_id, "live")
    replaced_id = told_serving(writer, pointer)
    writer.add_change(
        workspace_id, kind, now, campaign_id=campaign_id, policy_id=policy_id, replaced_id=replaced_id, detail=by
    )


def _stored(reader: Reader, workspace_id: str, policy_id: str) -> Policy:
    policy = reader.policy(workspace_id, policy_id)
    if policy is None:
        raise no_policy(policy_id)
    return policy
