"""Sessions that were ended: see ``storage.sessions``."""

from __future__ import annotations

from datetime import datetime

from storage.codec import to_micros
from storage.sql.tables import Tables


class SessionReader(Tables):
    """Queries on ended sessions."""

    def session_ended(self, session: str) -> bool:
        """See ``storage.sessions``."""
        return self._row("SELECT 1 FROM ended_sessions WHERE session = ?", (session,)) is not None


class SessionWriter(SessionReader):
    """Changes of ended sessions."""

    def end_session(self, session: str, until: datetime, now: datetime) -> None:
        """See ``storage.sessions``."""
        self._query("DELETE FROM ended_sessions WHERE until < ?", (to_micros(now),))
        self._upsert("ended_sessions", {"session": session}, {"until": to_micros(until)})
