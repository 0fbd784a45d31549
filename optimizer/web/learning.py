"""Training runs, policies, the change feed."""

from __future__ import annotations

from optimizer.errors import Conflict, NotFound
from optimizer.service import learning
from optimizer.service.ids import no_policy
from optimizer.web import render
from optimizer.web.operation import Answer, Call, Operations, Told
from optimizer.web.paging import own_cursor
from optimizer.web.schemas.learning import (
    ChangesOut,
    ChangesQuery,
    PoliciesPage,
    PoliciesQuery,
    PolicyOut,
    RollbackIn,
    RollbackOut,
    TrainingRunIn,
    TrainingRunOut,
    TrainingRunsPage,
    TrainingRunsQuery,
)

api = Operations("learning", "Learn")


@api.operation(
    "POST",
    "/v1/training-runs",
    "Ask for a retrain",
    body=TrainingRunIn,
    body_optional=True,
    answers={202: Told(TrainingRunOut, "Queued; the scheduler takes it up.")},
    scope="admin",
    idempotency=True,
    problems=(404, 409),
    example={"campaign_id": None},
)
def queue_training(call: Call) -> Answer:
    """Train, evaluate off policy, gate, publish or reject. Ask for the run to see how it ended."""
    run = learning.queue_training(call.services, call.workspace_id, call.loaded["campaign_id"], call.idempotency_key)
    return Answer(render.training_run(run), 202, headers={"Location": f"/v1/training-runs/{run.run_id}"})


@api.operation(
    "GET",
    "/v1/training-runs",
    "List training runs",
    query=TrainingRunsQuery,
    answers={200: TrainingRunsPage},
    scope="read",
)
def list_training_runs(call: Call) -> Answer:
    """Newest first."""
    with own_cursor(), call.services.store.read() as reader:
        page = reader.training_runs(call.workspace_id, **call.query)
    return Answer(render.page("training_runs", [render.training_run(r) for r in page.items], page.cursor))


@api.operation(
    "GET",
    "/v1/training-runs/{run_id}",
    "Read a training run",
    answers={200: TrainingRunOut},
    scope="read",
    problems=(404,),
)
def get_training_run(call: Call) -> Answer:
    """When it ran, of what, how it ended."""
    with call.services.store.read() as reader:
        stored = reader.training_run(call.workspace_id, call.path["run_id"])
    if stored is None:
        raise NotFound(f"no training run {call.path['run_id']!r} in this workspace")
    return Answer(render.training_run(stored))


@api.operation("GET", "/v1/policies", "List policies", query=PoliciesQuery, answers={200: PoliciesPage}, scope="read")
def list_policies(call: Call) -> Answer:
    """Newest first."""
    with own_cursor(), call.services.store.read() as reader:
        page = reader.policies(call.workspace_id, **call.query)
    return Answer(render.page("policies", [render.policy(p) for p in page.items], page.cursor))


@api.operation(
    "GET", "/v1/policies/{policy_id}", "Read a policy", answers={200: PolicyOut}, scope="read", problems=(404,)
)
def get_policy(call: Call) -> Answer:
    """Its mixture, and the verdict of the gate with every condition's number."""
    with call.services.store.read() as reader:
        stored = reader.policy(call.workspace_id, call.path["policy_id"])
    if stored is None:
        raise no_policy(call.path["policy_id"])
    return Answer(render.policy(stored))


@api.operation(
    "POST",
    "/v1/policies/{policy_id}/promote",
    "Promote a policy",
    answers={200: PolicyOut},
    scope="admin",
    repeats=True,
    problems=(404, 409),
)
def promote_policy(call: Call) -> Answer:
    """Makes it the one that its campaign serves, whatever the gate said; every process serves it within seconds. 409
    with the code `no_model`: a rejected candidate, of which only the verdict is kept, or a model that can't be
    loaded."""
    policy = learning.promote(call.services, call.workspace_id, call.path["policy_id"], _by(call))
    return Answer(render.policy(policy))


@api.operation(
    "POST",
    "/v1/policies/rollback",
    "Roll back a campaign's policy",
    body=RollbackIn,
    answers={200: RollbackOut},
    scope="admin",
    repeats=True,
    problems=(404, 409),
    example={"campaign_id": "spring"},
)
def rollback_policy(call: Call) -> Answer:
    """Back to the policy that the current one had replaced when it was first published, whatever it was promoted over
    since; to the cold start where there was none. What can't be loaded is passed over. Each call goes a step farther
    back, unless `policy_id` names the one that is meant: 409 with the code `moved` where neither it nor a refreshed
    revision of it serves. Scheduled runs leave a campaign on its cold start until a run is asked for, a policy is
    promoted or the campaign is changed; around a baseline it may get a canary."""
    campaign_id = call.loaded["campaign_id"]
    with call.services.store.read() as reader:
        if reader.campaign(call.workspace_id, campaign_id) is None:
            raise NotFound(f"no campaign {campaign_id!r} in this workspace")
    policy = learning.rollback(
        call.services, call.workspace_id, campaign_id, _by(call), expected=call.loaded["policy_id"]
    )
    return Answer({"campaign_id": campaign_id, "policy": None if policy is None else render.policy(policy)})


def _by(call: Call) -> str:
    """Who asks, for the change feed."""
    return "" if call.key is None else f"key {call.key.key_id} ({call.key.name})"


@api.operation(
    "GET",
    "/v1/changes",
    "Read the change feed",
    query=ChangesQuery,
    answers={200: ChangesOut},
    scope="read",
    problems=(409,),
)
def list_changes(call: Call) -> Answer:
    """What was revoked, displaced, expired, promoted, rolled back, in order. Positions have no gaps that fill later.
    Entries go with the retention: `after` one that is gone gives what is left behind it. 409 with the code `ahead`:
    `after` is beyond the newest position, which the detail names, as when the database was restored."""
    after = call.query["after"]
    with call.services.store.read() as reader:
        newest = reader.newest_change(call.workspace_id)
        if after > newest:
            raise Conflict(
                f"after {after} is beyond the newest position, {newest}, as when the database was restored; "
                f"allowed: up to {newest}",
                code="ahead",
            )
        changes = reader.changes(call.workspace_id, after=after, limit=call.query["limit"])
    return Answer({"changes": [render.change(c) for c in changes], "after": changes[-1].position if changes else after})
