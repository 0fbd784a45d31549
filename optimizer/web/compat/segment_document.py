"""The Segment tracking API as the document tells it: its bodies are Segment's, so they are described in short."""

from __future__ import annotations

from typing import Any

from optimizer.web.schemas import limits

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_OBJECT: Json = {"type": "object"}
_COMMON: Json = {
    "userId": {**_TEXT, "description": "The recipient."},
    "anonymousId": {**_TEXT, "description": "The recipient where there is no `userId`: one of its own."},
    "messageId": {**_TEXT, "description": "The same again counts once."},
    "timestamp": {**_TEXT, "description": "When it happened, ISO 8601; corrected by `sentAt` for the clock's skew."},
    "sentAt": {**_TEXT, "description": "When it was sent, by the same clock."},
    "context": {**_OBJECT, "description": "`timezone` and `locale` are read."},
    "writeKey": {**_TEXT, "description": "Where there is no Authorization header."},
}
_CALLS: dict[str, tuple[str, str, Json]] = {
    "track": (
        "Something that a recipient did",
        "An event of that name: part of later decisions' history, and an outcome where a campaign's `event_mapping` "
        "says so. `properties.sendtide_decision_id` ties it to one decision. `resubscribed` takes no refusal back: it "
        "is kept as `segment.resubscribed`.",
        {"event": _TEXT, "properties": _OBJECT},
    ),
    "identify": (
        "What a recipient is like",
        "Traits become attributes, `address.city` those of objects; null forgets one. What tells who someone is "
        "(email, phone, names) is kept from the model. It grants nothing: a recorded refusal stays.",
        {"traits": _OBJECT},
    ),
    "page": ("A page that a recipient saw", "An event `page`.", {"name": _TEXT, "properties": _OBJECT}),
    "screen": ("A screen that a recipient saw", "An event `screen`.", {"name": _TEXT, "properties": _OBJECT}),
    "group": (
        "The group that a recipient belongs to",
        "The attributes `group_id` and `group.NAME`.",
        {"groupId": _TEXT, "traits": _OBJECT},
    ),
    "alias": (
        "Another id of a recipient",
        "It is recorded; neither history nor attributes of the two are merged.",
        {"previousId": _TEXT},
    ),
}
_SUCCESS: Json = {"type": "object", "required": ["success"], "properties": {"success": {"const": True}}}
_REJECTED: Json = {
    "type": "array",
    "description": "Messages that were refused; the others are stored.",
    "items": {
        "type": "object",
        "required": ["index", "code", "detail"],
        "properties": {"index": {"type": "integer"}, "code": _TEXT, "detail": _TEXT},
    },
}
_BATCH_ANSWER: Json = {**_SUCCESS, "properties": {**_SUCCESS["properties"], "rejected": _REJECTED}}
_REFUSAL: Json = {
    "type": "object",
    "required": ["success", "code", "message"],
    "properties": {"success": {"const": False}, "code": _TEXT, "message": _TEXT},
}
_REFUSALS: dict[str, str] = {
    "400": "Unreadable, invalid or too large; don't send it again.",
    "401": "No key, or one that is unknown or revoked.",
    "403": "The key lacks the scope.",
    "503": "Nothing was recorded, or, as `message` then says, all of it or nothing: send it again after `Retry-After` "
    "seconds; what is known counts once.",
}


def _operation(name: str, summary: str, about: str, body: Json, answer: Json) -> Json:
    said = {"application/json": {"schema": _REFUSAL}}
    content = {kind: {"schema": body} for kind in ("application/json", "text/plain")}
    return {
        "options": {
            "operationId": f"segment_{name}_options",
            "summary": "What a page may send",
            "description": "A browser asks so before it posts anything else than `text/plain`: any origin may.",
            "tags": ["Compatible"],
            "security": [],
            "responses": {"200": {"description": "Headers say what."}},
        },
        "post": {
            "operationId": f"segment_{name}",
            "summary": summary,
            "description": f"{about} Needs the scope `track`, which `feedback` implies.",
            "tags": ["Compatible"],
            "security": [{"writeKey": []}],
            "requestBody": {"required": True, "content": content},
            "responses": {
                "200": {"description": "Durably stored.", "content": {"application/json": {"schema": answer}}},
                **{status: {"description": text, "content": said} for status, text in _REFUSALS.items()},
            },
        },
    }


def _paths() -> dict[str, Json]:
    batch: Json = {
        "type": "object",
        "required": ["batch"],
        "properties": {
            "batch": {
                "type": "array",
                "maxItems": limits.SEGMENT_ROWS,
                "items": {"type": "object", "required": ["type"], "properties": {"type": {"enum": list(_CALLS)}}},
            },
            "sentAt": _COMMON["sentAt"],
            "context": _COMMON["context"],
            "writeKey": _COMMON["writeKey"],
        },
    }
    about = "As the SDKs send them, gzip or not; a bad message spoils no other."
    calls = {"batch": ("Many calls", about, batch, _BATCH_ANSWER)}
    for name, (summary, said, own) in _CALLS.items():
        calls[name] = (summary, said, {"type": "object", "properties": {**_COMMON, **own}}, _SUCCESS)
    found = {}
    for name, (summary, said, body, answer) in calls.items():
        found[f"/segment/v1/{name}"] = _operation(name, summary, said, body, answer)
        also = f"`/segment/v1/{name}`, as SDKs of apps and browsers call it."
        found[f"/segment/v1/{name[0]}"] = _operation(name[0], summary, also, body, answer)
    return found


#: Every path of the API, in the form of OpenAPI.
PATHS: dict[str, Json] = _paths()
