"""Rank, reward, activate; with and without slots."""

from __future__ import annotations

from flask import Response

from optimizer.service.personalizer import explaining, feedback, ranking
from optimizer.web.compat.personalizer import bodies, shapes
from optimizer.web.compat.personalizer.routes import Call, answer, done, route
from optimizer.web.compat.personalizer.versions import Version


@route(("POST",), "/rank", "decide")
def rank(call: Call) -> Response:
    """Chooses one of the actions."""
    made = ranking.rank(call.services, call.workspace_id, bodies.rank_request(call.raw()))
    explained = explaining.explanation(call.services, made) if call.version is Version.V2022 else None
    return answer(shapes.rank(made, explained), 201)


@route(("POST",), "/multislot/rank", "decide")
def rank_slots(call: Call) -> Response:
    """Chooses an action for each slot."""
    asked = bodies.multi_slot_request(call.raw())
    return answer(shapes.multi_slot(ranking.rank(call.services, call.workspace_id, asked)), 201)


@route(("POST",), "/events/<path:event_id>/reward", "feedback")
def reward(call: Call) -> Response:
    """Takes the reward of an event."""
    told = bodies.read(call.raw(), bodies.RewardIn, "InvalidRewardRequest")
    feedback.reward(call.services, call.workspace_id, call.path["event_id"], [("", told.value)])
    return done()


@route(("POST",), "/multislot/events/<path:event_id>/reward", "feedback")
def reward_slots(call: Call) -> Response:
    """Takes the rewards of an event's slots."""
    told = bodies.read(call.raw(), bodies.SlotRewardsIn, "InvalidRewardRequest")
    values = [(one.slot_id, one.value) for one in told.reward]
    feedback.reward(call.services, call.workspace_id, call.path["event_id"], values)
    return done()


@route(("POST",), "/events/<path:event_id>/activate", "feedback")
def activate(call: Call) -> Response:
    """Notes that a deferred event was shown."""
    feedback.activate(call.services, call.workspace_id, call.path["event_id"])
    return done()


@route(("POST",), "/multislot/events/<path:event_id>/activate", "feedback")
def activate_slots(call: Call) -> Response:
    """Notes that a deferred event of several slots was shown."""
    return activate(call)
