"""The records of outgoing webhooks: where changes are pushed to, and how far that is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from storage.log import ChangeKind


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where changes of these kinds go. ``secrets`` sign them, the newest first (``whsec_`` and base64)."""

    workspace_id: str
    endpoint_id: str
    url: str
    secrets: tuple[str, ...]
    kinds: tuple[ChangeKind, ...]
    created_at: datetime
    updated_at: datetime
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far pushing to an endpoint is: every change up to ``position`` was taken or is not of its kinds.

    ``failures`` counts attempts that failed in a row, ``failing_since`` is the first of them; ``next_at`` is when the
    next one is due (None = at once). ``stopped`` says why there is none any more.
    """

    workspace_id: str
    endpoint_id: str
    position: int
    delivered: int = 0
    failures: int = 0
    failing_since: datetime | None = None
    next_at: datetime | None = None
    last_at: datetime | None = None
    last_status: int | None = None
    last_error: str | None = None
    stopped: str | None = None
