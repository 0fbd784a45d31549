"""``sendtide keys``: API keys of a workspace."""

from __future__ import annotations

import click

from optimizer.cli.call import Call, command, option
from optimizer.cli.group import EXIT_CODES


@click.group(epilog=EXIT_CODES)
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command(epilog=EXIT_CODES)
@option("--name", required=True, help="What the key is for; shown in lists.")
@option(
    "--scopes",
    required=True,
    help="Comma-separated: decide, feedback, track (Segment SDKs alone), read, admin (implies all).",
)
@command()
def create(call: Call, name: str, scopes: str) -> None:
    """Make a key and print its secret once, alone on standard output. Only its hash is stored."""
    from optimizer.service.setup import create_key

    with call.services(create=True) as services:
        wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
        key, secret = create_key(services, call.workspace, name, wanted)
    call.answer(
        {"key_id": key.key_id, "name": key.name, "scopes": key.scopes, "workspace": call.workspace, "secret": secret},
        secret,
    )
    if not call.as_json:
        call.note(f"key {key.key_id} for workspace {call.workspace}; the secret above is not shown again")


@keys.command(name="list", epilog=EXIT_CODES)
@command()
def list_(call: Call) -> None:
    """List the keys of a workspace; secrets can't be shown."""
    with call.services() as services, services.store.read() as reader:
        known = reader.keys(call.workspace)
    rows = [
        {
            "key_id": key.key_id,
            "name": key.name,
            "scopes": key.scopes,
            "created_at": key.created_at,
            "revoked_at": key.revoked_at,
        }
        for key in known
    ]
    call.answer(
        {"keys": rows},
        *(
            f"{key.key_id}  {'revoked' if key.revoked_at else 'active '}  {','.join(key.scopes)}  {key.name}"
            for key in known
        ),
    )


@keys.command(epilog=EXIT_CODES)
@click.argument("key_id", metavar="KEY_ID")
@command()
def revoke(call: Call, key_id: str) -> None:
    """End a key at once."""
    from optimizer.service.setup import revoke_key

    with call.services() as services:
        key = revoke_key(services, call.workspace, key_id)
    call.answer({"key_id": key.key_id, "revoked_at": key.revoked_at}, f"key {key.key_id} is revoked")
