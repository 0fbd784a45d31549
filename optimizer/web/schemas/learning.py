"""Training runs, policies, changes, the workspace and its keys."""

from __future__ import annotations

from typing import Final, get_args

from marshmallow import fields

from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Body, PageQuery, Shown, moment, page_of, state
from optimizer.web.schemas.containers import Many
from optimizer.web.schemas.fields import Choice, Flag, Id, Number, Text, Whole
from storage.log import ChangeKind
from storage.policies import PolicyStatus, RunStatus
from storage.records import Mode, Scope

#: Which two policies a change names.
SERVES: Final = "The policy that serves from then on; `pol_cold`: the cold start."
REPLACED: Final = (
    "The policy that went out of service by it, by the id under which it was put into service: revisions of it may "
    "have served since. `pol_cold`: the cold start. null: the change is not of policies, or is of an earlier version."
)


class TrainingRunIn(Body):
    """What to retrain."""

    campaign_id = Id("Left out: every campaign.", load_default=None, allow_none=True)


class TrainingRunsQuery(PageQuery):
    """Which training runs."""

    status = Choice(get_args(RunStatus), load_default=None)


class TrainingRunOut(Shown):
    """One retrain or refresh: when, of what, how it ended."""

    run_id = Id(required=True)
    kind = state(("retrain", "refresh"))
    status = state(get_args(RunStatus))
    campaign_id = Id(required=True, allow_none=True)
    trigger = Text(required=True)
    created_at = moment()
    started_at = moment(known=False)
    finished_at = moment(known=False)
    verdict = fields.Dict(required=True, metadata={"description": "What the gate found."})
    error = Text(longest=10_000, required=True, allow_none=True)


TrainingRunsPage = page_of(TrainingRunOut, "training_runs")


class PoliciesQuery(PageQuery):
    """Which policies."""

    campaign_id = Id(load_default=None)


class ComponentOut(Shown):
    """A part of a policy's mixture."""

    weight = Number(minimum=0, maximum=1, required=True)
    artifact_id = Id("null: the campaign's cold start.", required=True, allow_none=True)


class PolicyOut(Shown):
    """A campaign's policy: a mixture of models, and what the gate found."""

    policy_id = Id(required=True)
    campaign_id = Id(required=True)
    status = state(get_args(PolicyStatus))
    created_at = moment()
    mixture = fields.List(fields.Nested(ComponentOut), required=True)
    parent_id = Id(required=True, allow_none=True)
    run_id = Id(required=True, allow_none=True)
    revision = Flag("A refresh of the policy that it came from.", required=True)
    exploration = fields.Dict(required=True)
    verdict = fields.Dict(required=True)


PoliciesPage = page_of(PolicyOut, "policies")


class RollbackIn(Body):
    """Whose policy to roll back."""

    campaign_id = Id(required=True)
    policy_id = Id("The policy that is taken back; left out: whichever serves.", load_default=None)


class RollbackOut(Shown):
    """What a campaign serves after a rollback."""

    campaign_id = Id(required=True)
    policy = fields.Nested(PolicyOut, required=True, allow_none=True, metadata={"description": "null: the cold start."})


class ChangesQuery(Body):
    """Which changes."""

    after = Whole("Those after this position.", maximum=limits.POSITION, load_default=0, textual=True)
    limit = Whole("How many at most.", minimum=1, maximum=limits.PAGE_MAX, load_default=limits.PAGE, textual=True)


class ChangeOut(Shown):
    """An entry of the change feed."""

    position = Whole(minimum=1, maximum=limits.POSITION, required=True)
    kind = state(get_args(ChangeKind))
    at = moment()
    decision_id = Id(required=True, allow_none=True)
    campaign_id = Id(required=True, allow_none=True)
    policy_id = Id(SERVES + " null: the change is not of policies.", required=True, allow_none=True)
    replaced_id = Id(REPLACED, required=True, allow_none=True)
    detail = Text(longest=10_000, required=True)


class ChangesOut(Shown):
    """Changes in order; ask again with `after`."""

    changes = fields.List(fields.Nested(ChangeOut), required=True)
    after = Whole("The position to go on from.", maximum=limits.POSITION, required=True)


class WorkspaceIn(Body):
    """The switch over all campaigns of the workspace; the stricter of the two modes wins."""

    mode = Choice(get_args(Mode), required=True)


class WorkspaceOut(Shown):
    """A tenant."""

    workspace_id = Id(required=True)
    name = Text(required=True)
    mode = state(get_args(Mode))
    version = Whole(minimum=1, maximum=2**31, required=True)
    created_at = moment()


class KeyIn(Body):
    """A key to make."""

    name = Text("What it is for: printable characters, not only spaces.", shortest=1, required=True)
    scopes = Many(
        Choice(get_args(Scope)),
        "`admin` implies all, `feedback` implies `track`.",
        shortest=1,
        longest=5,
        unique=True,
        required=True,
    )


class KeyOut(Shown):
    """An API key, without its secret."""

    key_id = Id(required=True)
    name = Text(required=True)
    scopes = fields.List(Choice(get_args(Scope)), required=True)
    created_at = moment()
    revoked_at = moment(known=False)


class NewKeyOut(KeyOut):
    """An API key with its secret, which is shown this once."""

    secret = Text(required=True)


KeysPage = page_of(KeyOut, "keys")


class PolicyStatusOut(Shown):
    """What this process serves for a campaign."""

    workspace_id = Id(required=True)
    campaign_id = Id(required=True)
    policy_id = Id(required=True)
    generation = Whole(maximum=limits.POSITION, required=True)
    fault = Text("Why a newer policy isn't served.", longest=10_000, required=True, allow_none=True)


class ReadyOut(Shown):
    """Ready: the store can be read and takes writes."""

    status = state(("ready",))
    served = Whole("Campaigns that this process serves.", maximum=limits.POSITION, required=True)
    faults = Whole("Those of them whose newest policy can't be loaded.", maximum=limits.POSITION, required=True)
    policies = fields.List(
        fields.Nested(PolicyStatusOut),
        required=True,
        metadata={"description": "Those of the key's workspace; empty without a key."},
    )


class HealthOut(Shown):
    """The process is alive."""

    status = state(("ok",))
