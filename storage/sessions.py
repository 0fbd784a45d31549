"""Sessions of the console that were ended before their time. Those that run out by themselves leave nothing here."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class SessionQueries(Protocol):
    """Part of ``storage.port.Reader``."""

    def session_ended(self, session: str) -> bool:
        """Whether this session was ended. ``session`` is a name that opens nothing, such as a hash."""


class SessionChanges(SessionQueries, Protocol):
    """Part of ``storage.port.Writer``."""

    def end_session(self, session: str, until: datetime, now: datetime) -> None:
        """Ends a session for good; its name is kept ``until`` it would have run out, others that have are forgotten."""
