"""Configuration, learning settings, model and log of the loop."""

from __future__ import annotations

from flask import Response, request

from optimizer.service.personalizer import apprentice, evaluations, learning, logs, models
from optimizer.service.personalizer import loop as loops
from optimizer.service.personalizer.loop import Loop
from optimizer.web.compat.personalizer import bodies, shapes
from optimizer.web.compat.personalizer.routes import Call, answer, done, route


def _service(call: Call, loop: Loop) -> Response:
    return answer(shapes.service(loop, apprentice.get(call.services, call.workspace_id), call.version))


@route(("GET",), "/configurations/service", "read")
def get_service(call: Call) -> Response:
    """The configuration."""
    return _service(call, loops.get(call.services, call.workspace_id))


@route(("PUT", "PATCH"), "/configurations/service", "admin")
def put_service(call: Call) -> Response:
    """Changes the configuration."""
    changes = bodies.loop_changes(call.raw())
    return _service(call, loops.change(call.services, call.workspace_id, changes))


def _policy(loop: Loop) -> Response:
    return answer({"name": loop.policy_name, "arguments": loop.arguments})


@route(("GET",), "/configurations/policy", "read")
def get_policy(call: Call) -> Response:
    """The learning settings."""
    return _policy(loops.get(call.services, call.workspace_id))


@route(("PUT", "PATCH"), "/configurations/policy", "admin")
def put_policy(call: Call) -> Response:
    """Changes the learning settings."""
    told = bodies.read(call.raw(), bodies.PolicyIn, "InvalidPolicyContract")
    return _policy(loops.set_policy(call.services, call.workspace_id, told.name, told.arguments))


@route(("DELETE",), "/configurations/policy", "admin")
def reset_policy(call: Call) -> Response:
    """Back to the learning settings that every loop begins with."""
    return _policy(loops.reset_policy(call.services, call.workspace_id))


@route(("POST",), "/configurations/applyFromEvaluation", "admin")
def apply_from_evaluation(call: Call) -> Response:
    """Takes the learning settings of an evaluation's policy. Azure took its model, too; here none is kept."""
    told = bodies.read(call.raw(), bodies.ReferenceIn, "InvalidRequest")
    evaluations.apply(call.services, call.workspace_id, told.evaluation_id, told.policy_name)
    return done()


@route(("GET",), "/model", "admin")
def get_model(call: Call) -> Response:
    """The model as a file."""
    signed = request.args.get("signed", "false").lower() == "true"
    raw = models.export(call.services, call.workspace_id, signed=signed)
    return Response(raw, 200, content_type="application/octet-stream")


@route(("PUT",), "/model", "admin")
def put_model(call: Call) -> Response:
    """Replaces the model by one of a file."""
    models.take_in(call.services, call.workspace_id, call.raw(call.holder.settings.max_batch_bytes))
    return done()


@route(("DELETE",), "/model", "admin")
def reset_model(call: Call) -> Response:
    """Forgets what was learned."""
    learning.reset(call.services, call.workspace_id)
    return done()


@route(("GET",), "/model/properties", "read")
def get_model_properties(call: Call) -> Response:
    """When the model was made and changed."""
    found = models.properties(call.services, call.workspace_id)
    return answer({} if found is None else {"creationTime": found[0], "lastModifiedTime": found[1]})


@route(("GET",), "/logs/properties", "read")
def get_log_properties(call: Call) -> Response:
    """The span of the log."""
    start, end = logs.span(call.services, call.workspace_id)
    return answer({"dateRange": {"from": start, "to": end}})


@route(("DELETE",), "/logs", "admin")
def delete_logs(call: Call) -> Response:
    """Deletes the log."""
    logs.delete(call.services, call.workspace_id)
    return done()


@route(("GET",), "/status", "read")
def get_status(_: Call) -> Response:
    """That the API is there."""
    return answer({"service": "personalizer", "apiStatus": "Valid", "apiStatusMessage": ""})
