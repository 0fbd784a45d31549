"""Recipients and the attribute registry."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import unquote

from flask import Response, current_app, request

from optimizer.errors import Invalid, NotFound
from optimizer.service import erasing, exports, setup
from optimizer.service.changing import change_recipient
from optimizer.service.recipients import LISTED
from optimizer.web import body, examples, render
from optimizer.web.operation import Answer, Call, Operations, Told
from optimizer.web.paging import sliced
from optimizer.web.schemas.body import PageQuery
from optimizer.web.schemas.recipients import (
    AttributeIn,
    AttributeOut,
    AttributesPage,
    KeptRecipientIn,
    RecipientExportOut,
    RecipientIn,
    RecipientOut,
    RecipientRow,
    RecipientsIn,
    RecipientsOut,
    attribute_of,
    recipient_of,
)
from optimizer.web.validation import load
from optimizer.web.versions import expected_version, patched
from storage.port import Reader
from storage.records import Recipient

api = Operations("recipients", "Recipients")
_SCHEMA, _KEPT = RecipientIn(), KeptRecipientIn()
_ROW = RecipientRow()
_PATH = "/v1/recipients/{recipient_id}"
#: Endpoints, as Flask names them.
_READ, _EXPORT = "recipients.get_recipient", "recipients.export_recipient"


@api.operation(
    "PUT",
    _PATH,
    "Create or replace a recipient",
    body=RecipientIn,
    answers={200: RecipientOut, 201: RecipientOut},
    scope="admin",
    preconditions=True,
    etag=True,
    example=examples.RECIPIENT,
)
def put_recipient(call: Call) -> Answer:
    """Replaces what is stored, but for the refusals that events recorded: a system that knows nothing of them can't
    take them back."""
    expected = expected_version(call, lambda reader: _version(reader, call))
    stored, created = setup.put_recipient(call.services, _made(call, call.loaded), expected)
    return Answer(render.recipient(stored), 201 if created else 200, etag=stored.version)


@api.operation(
    "PATCH",
    _PATH,
    "Change a recipient",
    body=RecipientIn,
    media=(body.MERGE_PATCH, body.JSON),
    answers={200: RecipientOut},
    scope="admin",
    preconditions=True,
    etag=True,
    problems=(404,),
    example={"attributes": {"plan": "free"}, "channels": {"push": None}},
)
def patch_recipient(call: Call) -> Answer:
    """A JSON Merge Patch (RFC 7386) on the document as GET shows it."""

    recipient_id = call.path["recipient_id"]
    schema = _SCHEMA if {"channels", "suppressed"} & call.document.keys() else _KEPT
    with call.services.store.read() as reader:
        before = reader.recipient(call.workspace_id, recipient_id)
    of = patched(call, schema, before, render.recipient, f"recipient {recipient_id!r}")
    stored = change_recipient(call.services, call.workspace_id, recipient_id, lambda found: _made(call, of(found)))
    return Answer(render.recipient(stored), etag=stored.version)


@api.operation("GET", _PATH, "Read a recipient", answers={200: RecipientOut}, scope="read", etag=True, problems=(404,))
def get_recipient(call: Call) -> Answer:
    """What is stored of the person. An id that ends in `/export` is written with `%2F`."""
    with call.services.store.read() as reader:
        stored = reader.recipient(call.workspace_id, call.path["recipient_id"])
    if stored is None:
        raise NotFound(f"no recipient {call.path['recipient_id']!r} in this workspace")
    if call.preconditions.unchanged(stored.version):
        return Answer(status=304, etag=stored.version)
    return Answer(render.recipient(stored), etag=stored.version)


@api.operation(
    "DELETE",
    _PATH,
    "Erase a recipient",
    answers={204: Told(description="Erased.")},
    scope="admin",
    preconditions=True,
    problems=(404,),
)
def erase_recipient(call: Call) -> Answer:
    """Attributes, contexts, what vendors said and every id of the person go; what was decided and what came of it stays
    in reports, under a random pseudonym. What is reserved is called off. A keyed hash of the id remembers the refusal:
    nobody is written to, and nothing is stored of what is still reported, until a PUT, a batch or an import of
    recipients takes the person up again. Doing it again changes nothing."""
    expected = expected_version(call, lambda reader: _version(reader, call))
    erasing.erase(call.services, call.workspace_id, call.path["recipient_id"], expected)
    return Answer(status=204)


@api.operation(
    "GET",
    f"{_PATH}/export",
    "Export a recipient",
    answers={200: RecipientExportOut},
    scope="admin",
    problems=(404,),
)
def export_recipient(call: Call) -> Answer:
    """Everything that is stored of the person, for their right of access."""
    return Answer(exports.of_recipient(call.services, call.workspace_id, call.path["recipient_id"]))


@api.before_request
def _read_whose_id_ends_like_the_export() -> Response | None:
    """``GET /v1/recipients/a%2Fexport`` reads the recipient ``a/export``: routes are told apart by the unescaped path,
    in which that slash is like any other."""
    if request.endpoint != _EXPORT or request.view_args is None:
        return None
    written = str(request.environ.get("RAW_URI") or "/export").partition("?")[0]
    if unquote(written.rpartition("/")[2]) == "export":
        return None
    view = current_app.view_functions[_READ]
    return cast(Response, view(recipient_id=f"{request.view_args['recipient_id']}/export"))


@api.operation(
    "POST",
    "/v1/recipients/batch",
    "Create or replace many recipients",
    body=RecipientsIn,
    batch=True,
    rows="recipients",
    answers={200: RecipientsOut},
    scope="admin",
    example={"recipients": [{"recipient_id": "u1", **examples.RECIPIENT}]},
)
def put_recipients(call: Call) -> Answer:
    """Each row as by PUT, in one transaction; of a recipient named twice the last row holds. A bad row is listed in
    `rejected` and spoils no other."""
    now = call.services.clock()
    good, rejected = [], []
    for index, row in enumerate(call.loaded["recipients"]):
        try:
            loaded = load(_ROW, row, f"recipients.{index}.")
        except Invalid as error:
            rejected.append({"index": index, "code": error.code, "detail": error.detail, "errors": error.errors})
            continue
        made = recipient_of(loaded, workspace_id=call.workspace_id, recipient_id=loaded["recipient_id"], now=now)
        good.append(made)
    if good:
        setup.put_recipients(call.services, call.workspace_id, good)
    return Answer({"stored": len(good), "rejected": rejected})


@api.operation(
    "PUT",
    "/v1/attributes/{name}",
    "Declare an attribute",
    body=AttributeIn,
    answers={200: AttributeOut},
    scope="admin",
    example={"type": "number"},
)
def put_attribute(call: Call) -> Answer:
    """Its type, whether the model may use it, how long it is kept. An undeclared one is typed at first sight and
    listed, as long as the registry isn't full."""
    made = attribute_of(call.loaded, workspace_id=call.workspace_id, name=call.path["name"])
    return Answer(render.attribute(setup.put_attribute(call.services, made)))


@api.operation("GET", "/v1/attributes", "List attributes", query=PageQuery, answers={200: AttributesPage}, scope="read")
def list_attributes(call: Call) -> Answer:
    """The attribute registry by name, the undeclared ones too. Once it is `full`, new names are listed only if they are
    declared, or are traits by which Segment says who someone is; models use the others all the same, typed by their
    values at each training."""
    with call.services.store.read() as reader:
        stored = reader.attributes(call.workspace_id)
    items, cursor = sliced(stored, lambda a: a.name, limit=call.query["limit"], cursor=call.query["cursor"])
    page = render.page("attributes", [render.attribute(a) for a in items], cursor)
    return Answer({**page, "full": len(stored) >= LISTED})


def _made(call: Call, loaded: dict[str, Any]) -> Recipient:
    return recipient_of(
        loaded, workspace_id=call.workspace_id, recipient_id=call.path["recipient_id"], now=call.services.clock()
    )


def _version(reader: Reader, call: Call) -> int:
    stored = reader.recipient(call.workspace_id, call.path["recipient_id"])
    return stored.version if stored is not None else 0
