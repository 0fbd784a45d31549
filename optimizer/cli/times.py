"""Times on the command line: RFC 3339, or a date, which is its midnight; in UTC unless it says otherwise."""

from __future__ import annotations

from datetime import UTC, datetime

from optimizer.errors import Invalid


def time_of(flag: str, text: str | None) -> datetime | None:
    """The time that a flag names; None = it wasn't given.

    Raises:
        Invalid: it is no time.
    """
    from optimizer.service import moments

    try:
        return None if text is None else moments.within(text, UTC)
    except ValueError:
        allowed = "an RFC 3339 time or a date, in UTC unless it says otherwise, from 1970 to 2200"
        raise Invalid.field(flag, f"{text!r:.80} must be {allowed}") from None
