"""Policies: what the gate said of each, one beside another, and moving a campaign to one or back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response, request

from optimizer.errors import Invalid
from optimizer.service import learning
from optimizer.service.card import card
from optimizer.service.feedback import all_campaigns
from optimizer.service.freshreports import Fresh
from optimizer.service.ids import COLD_POLICY, no_policy
from optimizer.web.console.pages import Visit, console, see
from optimizer.web.paging import own_cursor
from storage.policies import Policy

_ROWS = 50
#: Policies that one is offered for comparison with, the newest.
_COMPARED = 500
_REFRESH_SECONDS = 15
#: Features of a card that are shown.
_FEATURES = 10


@console.page("/policies")
def policies(visit: Visit) -> Response:
    """Every policy, the newest first; refreshed revisions are left out unless they serve."""
    campaign_id = request.args.get("campaign_id", "").strip() or None
    with own_cursor(), visit.services.store.read() as reader:
        page = reader.policies(
            visit.workspace_id,
            limit=_ROWS,
            cursor=request.args.get("cursor") or None,
            campaign_id=campaign_id,
            revisions=False,
        )
        pointers = [p for p in reader.pointers() if p.workspace_id == visit.workspace_id]
        names = {c.campaign_id: c.name or c.campaign_id for c in all_campaigns(reader, visit.workspace_id)}
    return visit.show(
        "policies.html",
        rows=page.items,
        cursor=page.cursor,
        campaign_id=campaign_id,
        names=names,
        serving=[p for p in pointers if p.policy_id != COLD_POLICY],
    )


@console.page("/policies/<policy_id>")
def policy(visit: Visit, policy_id: str) -> Response:
    """One policy: its verdict, its card, and what can be done with it."""
    found = _stored(visit, policy_id)
    fresh = _card(visit, policy_id)
    with visit.services.store.read() as reader:
        pointer = reader.pointer(visit.workspace_id, found.campaign_id)
        changes = reader.policy_changes(visit.workspace_id, limit=100, policy_id=policy_id)
        others = reader.policies(
            visit.workspace_id, limit=_COMPARED, campaign_id=found.campaign_id, revisions=False
        ).items
    return visit.show(
        "policy.html",
        refresh_seconds=_REFRESH_SECONDS,
        policy=found,
        cold=COLD_POLICY,
        serves=pointer is not None and pointer.policy_id == policy_id,
        conditions=_conditions(found),
        card=fresh.report,
        pending=fresh.pending,
        features=_features(fresh.report),
        changes=changes,
        others=[one for one in others if one.policy_id != policy_id],
        done=request.args.get("done", ""),
    )


@console.page("/policies/compare")
def compare(visit: Visit) -> Response:
    """Two policies side by side."""
    both = [_stored(visit, request.args.get(name, "")) for name in ("a", "b")]
    if both[0].campaign_id != both[1].campaign_id:
        raise Invalid("policies of two campaigns can't be compared: they decide different questions")
    cards = [_card(visit, one.policy_id) for one in both]
    told = [{c["name"]: c for c in _conditions(one)} for one in both]
    features = [{f["feature"]: f["share"] for f in _features(one.report)} for one in cards]
    return visit.show(
        "compare.html",
        refresh_seconds=_REFRESH_SECONDS,
        both=both,
        cards=[one.report for one in cards],
        pending=any(one.pending for one in cards),
        conditions=[(name, told[0].get(name), told[1].get(name)) for name in dict.fromkeys([*told[0], *told[1]])],
        features=[
            (name, features[0].get(name), features[1].get(name)) for name in dict.fromkeys([*features[0], *features[1]])
        ],
    )


@console.page("/policies/<policy_id>/promote", scope="admin")
def confirm_promote(visit: Visit, policy_id: str) -> Response:
    """Asks whether it is meant."""
    found = _stored(visit, policy_id)
    with visit.services.store.read() as reader:
        learning.require_model(reader, found)
    return visit.show("confirm_policy.html", policy=found, action="promote", to=None)


@console.action("/policies/<policy_id>/promote")
def promote(visit: Visit, policy_id: str) -> Response:
    """Puts a policy into service, whatever the gate said."""
    learning.promote(visit.services, visit.workspace_id, policy_id, visit.by)
    return see("policy", policy_id=policy_id, done="promoted")


@console.page("/policies/<policy_id>/roll-back", scope="admin")
def confirm_roll_back(visit: Visit, policy_id: str) -> Response:
    """Asks whether it is meant, and says what would serve then."""
    found = _stored(visit, policy_id)
    with visit.services.store.read() as reader:
        pointer = reader.pointer(visit.workspace_id, found.campaign_id)
        earlier = learning.predecessor(reader, visit.workspace_id, policy_id)
        earlier, _ = learning.loadable(reader, visit.workspace_id, earlier)
        learning.require_serving(reader, visit.workspace_id, pointer, policy_id)
    return visit.show("confirm_policy.html", policy=found, action="roll_back", to=earlier, cold=COLD_POLICY)


@console.action("/policies/<policy_id>/roll-back")
def roll_back(visit: Visit, policy_id: str) -> Response:
    """Takes the policy that serves back; refused when another serves by now."""
    found = _stored(visit, policy_id)
    learning.rollback(visit.services, visit.workspace_id, found.campaign_id, visit.by, expected=policy_id)
    return see("policy", policy_id=policy_id, done="rolled_back")


def _stored(visit: Visit, policy_id: str) -> Policy:
    with visit.services.store.read() as reader:
        found = reader.policy(visit.workspace_id, policy_id)
    if found is None:
        raise no_policy(policy_id)
    return found


def _card(visit: Visit, policy_id: str) -> Fresh:
    """The card, made behind the page's back: it scores a thousand decisions."""
    key = (visit.workspace_id, "card", policy_id)
    return visit.services.fresh.latest(key, visit.now, lambda: card(visit.services, visit.workspace_id, policy_id))


def _conditions(found: Policy) -> Sequence[Mapping[str, Any]]:
    """What the gate looked at, what failed at the front."""
    told: Sequence[Mapping[str, Any]] = found.verdict.get("conditions", ())
    return sorted(told, key=lambda one: bool(one["passed"]))


def _features(report: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    model = (report or {}).get("model")
    return () if model is None else tuple(model["importance"][:_FEATURES])
