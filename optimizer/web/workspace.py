"""The workspace's switch and its keys."""

from __future__ import annotations

from optimizer.errors import NotFound
from optimizer.service import setup
from optimizer.web import render
from optimizer.web.operation import Answer, Call, Operations
from optimizer.web.paging import sliced
from optimizer.web.schemas.body import PageQuery
from optimizer.web.schemas.learning import KeyIn, KeysPage, NewKeyOut, WorkspaceIn, WorkspaceOut
from optimizer.web.versions import expected_version
from storage.port import Reader

api = Operations("workspace", "Workspace")


@api.operation("GET", "/v1/workspace", "Read the workspace", answers={200: WorkspaceOut}, scope="read", etag=True)
def get_workspace(call: Call) -> Answer:
    """The workspace of the key."""
    with call.services.store.read() as reader:
        stored = reader.workspace(call.workspace_id)
    if stored is None:
        raise NotFound(f"no workspace {call.workspace_id!r}")
    if call.preconditions.unchanged(stored.version):
        return Answer(status=304, etag=stored.version)
    return Answer(render.workspace(stored), etag=stored.version)


@api.operation(
    "PUT",
    "/v1/workspace",
    "Switch the whole workspace",
    body=WorkspaceIn,
    answers={200: WorkspaceOut},
    scope="admin",
    preconditions=True,
    etag=True,
    example={"mode": "baseline_only"},
)
def put_workspace(call: Call) -> Answer:
    """Sets the mode over all campaigns; of this and a campaign's own the stricter wins."""
    expected = expected_version(call, lambda reader: _version(reader, call))
    stored = setup.set_mode(call.services, call.workspace_id, call.loaded["mode"], expected)
    return Answer(render.workspace(stored), etag=stored.version)


@api.operation("GET", "/v1/keys", "List keys", query=PageQuery, answers={200: KeysPage}, scope="admin")
def list_keys(call: Call) -> Answer:
    """All keys, oldest first, revoked ones included; never a secret."""
    with call.services.store.read() as reader:
        stored = reader.keys(call.workspace_id)
    items, cursor = sliced(
        stored,
        lambda k: f"{k.created_at.isoformat(timespec='microseconds')} {k.key_id}",
        limit=call.query["limit"],
        cursor=call.query["cursor"],
    )
    return Answer(render.page("keys", [render.key(k) for k in items], cursor))


@api.operation(
    "POST",
    "/v1/keys",
    "Make a key",
    body=KeyIn,
    answers={201: NewKeyOut},
    scope="admin",
    repeats=True,
    example={"name": "shop", "scopes": ["decide", "feedback"]},
)
def create_key(call: Call) -> Answer:
    """The secret is in this answer and nowhere else; only its hash is stored."""
    key, secret = setup.create_key(call.services, call.workspace_id, call.loaded["name"], call.loaded["scopes"])
    return Answer({**render.key(key), "secret": secret}, 201, headers={"Cache-Control": "no-store"})


@api.operation("DELETE", "/v1/keys/{key_id}", "Revoke a key", answers={204: None}, scope="admin", problems=(404,))
def revoke_key(call: Call) -> Answer:
    """It ends at once; revoking it again changes nothing."""
    setup.revoke_key(call.services, call.workspace_id, call.path["key_id"])
    return Answer(status=204)


def _version(reader: Reader, call: Call) -> int:
    stored = reader.workspace(call.workspace_id)
    return stored.version if stored is not None else 0
