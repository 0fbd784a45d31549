"""Keys: who may call the API and look at the console; making one, and ending one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response, request

from optimizer.errors import Conflict, Invalid, NotFound
from optimizer.service import setup
from optimizer.service.cells import ID_LENGTH
from optimizer.web.console.pages import Visit, console, note, see
from storage.records import ApiKey


@console.page("/keys", scope="admin")
def keys(visit: Visit) -> Response:
    """Every key of the workspace, those that still open something first, the newest of them first."""
    return _listed(visit, revoked=request.args.get("done") == "revoked")


@console.action("/keys")
def make_key(visit: Visit) -> Response:
    """Makes a key and shows its secret on the answer, which is the only place where it ever stands."""
    name, scopes = request.form.get("name", "").strip(), request.form.getlist("scopes")
    try:
        made, secret = setup.create_key(visit.services, visit.workspace_id, name, scopes)
    except Invalid as fault:
        return _listed(visit, 422, errors=fault.errors, name=name, scopes=scopes)
    note(made_key=made.key_id)
    return visit.show("key_made.html", made=made, secret=secret)


@console.page("/keys/<ended_key>/revoke", scope="admin")
def confirm_revoke(visit: Visit, ended_key: str) -> Response:
    """Asks whether it is meant, and says what ends with it."""
    known = _known(visit)
    found = _unrevoked(known, ended_key)
    others = [key for key in known if key.revoked_at is None and key.key_id != ended_key and key.may("admin")]
    return visit.show("confirm_revoke.html", key=found, own=ended_key == visit.key.key_id, last=not others)


@console.action("/keys/<ended_key>/revoke")
def revoke_key(visit: Visit, ended_key: str) -> Response:
    """Ends the key at once. Whoever ends their own is signed out by it."""
    _unrevoked(_known(visit), ended_key)
    setup.revoke_key(visit.services, visit.workspace_id, ended_key)
    return see("keys", done="revoked")


def _listed(
    visit: Visit,
    status: int = 200,
    *,
    revoked: bool = False,
    errors: Mapping[str, Sequence[str]] | None = None,
    name: str = "",
    scopes: Sequence[str] = (),
) -> Response:
    """The list with the form under it, which holds what was typed when it was refused."""
    known = sorted(_known(visit), key=lambda key: key.created_at, reverse=True)
    given: dict[str, Any] = {"name": name, "scopes": scopes, "longest_name": ID_LENGTH}
    return visit.show(
        "keys.html",
        status,
        rows=sorted(known, key=lambda key: key.revoked_at is not None),
        all_scopes=setup.SCOPES,
        errors=errors or {},
        notice=visit.language("keys.revoked_notice") if revoked else None,
        **given,
    )


def _known(visit: Visit) -> Sequence[ApiKey]:
    with visit.services.store.read() as reader:
        return list(reader.keys(visit.workspace_id))


def _unrevoked(known: Sequence[ApiKey], key_id: str) -> ApiKey:
    found = next((key for key in known if key.key_id == key_id), None)
    if found is None:
        raise NotFound(f"no key {key_id!r} in this workspace")
    if found.revoked_at is not None:
        raise Conflict(f"the key {key_id!r} was revoked already", code="revoked")
    return found
