"""The first start: a key and an example campaign, so that the first ``curl`` answers with a decision.

The arbiter imports this for its greeting, before it forks: so the service is imported only where it is used.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from optimizer.config import Settings
from optimizer.service.keyring import hash_secret
from storage.open import folder_of
from storage.records import Campaign, Channel, GroupShares, OutcomeWeight, Variant

if TYPE_CHECKING:
    from optimizer.service.wiring import Services

WORKSPACE = "default"
EXAMPLE = "welcome"
KEY_FILE = "first-key"


def key_path(settings: Settings, workspace_id: str = WORKSPACE) -> Path:
    """Where a workspace's first key lies, readable by its owner only."""
    return secret_path(settings, KEY_FILE, workspace_id)


def secret_path(settings: Settings, name: str, workspace_id: str) -> Path:
    """Where a secret lies: beside an embedded database, else in ``var``. Each workspace has a file of its own."""
    own = name if workspace_id == WORKSPACE else f"{name}-{_as_file_name(workspace_id)}"
    return folder_of(settings.database) / own


def _as_file_name(workspace_id: str) -> str:
    """A name for a file; small letters alone, since some file systems don't tell them from capitals."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", workspace_id)[:48]
    return plain if plain == workspace_id else f"{plain}-{hashlib.sha256(workspace_id.encode()).hexdigest()[:16]}"


def prepare(services: Services) -> None:
    """Makes the workspace, a first key and the example campaign, each only where it is missing."""
    from optimizer.service import setup

    setup.ensure_workspace(services, WORKSPACE)
    ensure_key(services)
    with services.store.read() as reader:
        known = reader.campaign(WORKSPACE, EXAMPLE)
    if known is None:
        setup.put_campaign(services, example(services))


def ensure_key(services: Services, workspace_id: str = WORKSPACE) -> None:
    """Makes a first key, unless the one that lies in its file holds for the workspace."""
    from optimizer.service import setup

    path = key_path(services.settings, workspace_id)
    with services.store.read() as reader:
        valid = {key.secret_hash for key in reader.keys(workspace_id) if key.revoked_at is None}
    if path.exists() and hash_secret(path.read_text(encoding="utf-8").strip()) in valid:
        return
    _, secret = setup.create_key(services, workspace_id, KEY_FILE, ["admin"])
    write_secret(path, secret)


def write_secret(path: Path, secret: str) -> None:
    """Writes a file that its owner alone can read. One that is there may hold the only copy of a secret, of another
    database for instance; so it stays, under the first name of ``NAME.1``, ``NAME.2`` and so on that is free."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        path.rename(next(other for n in itertools.count(1) if not (other := Path(f"{path}.{n}")).exists()))
    # Made with its mode, not changed to it: it is at no time readable by others.
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w", encoding="utf-8") as out:
        out.write(secret + "\n")


def example(services: Services) -> Campaign:
    """The campaign ``welcome``: two texts, e-mail or push, or nothing."""
    now = services.clock()
    return Campaign(
        workspace_id=WORKSPACE,
        campaign_id=EXAMPLE,
        name="Welcome",
        variants=(
            Variant(id="hello", text="Hello! Good to have you here."),
            Variant(id="tips", text="Three tips to start with."),
        ),
        channels=(Channel(id="email", cost=0.0004), Channel(id="push")),
        objective={
            "opened": OutcomeWeight(fixed=0.1),
            "clicked": OutcomeWeight(fixed=1.0),
            "unsubscribed": OutcomeWeight(fixed=-20.0),
        },
        attribution_hours={"opened": 48.0, "clicked": 72.0},
        # Nobody is left without a message here, so that the first curl shows one.
        groups=GroupShares(random=0.1),
        created_at=now,
        updated_at=now,
    )


def banner(settings: Settings) -> str:
    """What a person needs to know once the service listens."""
    base = settings.public_url or f"http://{settings.bind}"
    return f"""
Sendtide listens on {base}
  console   {base}/console
  API docs  {base}/docs
  first key {key_path(settings)} (admin; keep it or revoke it)

A first decision, from another terminal in this folder (`sendtide init` asks what you want and shows the rest):
  curl -s -X POST {base}/v1/decisions -H "Authorization: Bearer $(cat {key_path(settings)})" \\
    -H "Content-Type: application/json" -d '{{"campaign_id": "{EXAMPLE}", "recipient_id": "ada"}}'
"""
