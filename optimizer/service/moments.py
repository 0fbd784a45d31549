"""Times that callers, files and vendors tell, as aware UTC: what was told from outside goes through here.

``datetime`` reaches from the year 1 to 9999. At either end an offset leads out of it, and ``astimezone`` raises
``OverflowError`` then, which is no ``ValueError``. Here all that can be wrong with a time is a ``ValueError``.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

#: Times of requests and rows: from the first on, before the second.
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def as_utc(told: object, zone: tzinfo | None = None) -> datetime:
    """A time, or the ISO 8601 text of one, as UTC; one without an offset is of ``zone``.

    Of a local time that occurs twice in ``zone`` the first is meant; one that is skipped moves forward.

    Raises:
        ValueError: it is no time, says no offset while there is no ``zone``, or lies outside the calendar.
    """
    if isinstance(told, str):
        told = datetime.fromisoformat(told)
    if not isinstance(told, datetime):
        raise ValueError("it is no time")
    if told.tzinfo is None:
        if zone is None:
            raise ValueError("it says no offset")
        told = told.replace(tzinfo=zone)
    try:
        return told.astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC it lies outside the years 1 to 9999") from None


def within(told: object, zone: tzinfo | None = None) -> datetime:
    """``as_utc``, and from ``EARLIEST`` to before ``LATEST``; ``ValueError`` otherwise."""
    at = as_utc(told, zone)
    if not EARLIEST <= at < LATEST:
        raise ValueError(f"it lies outside the years {EARLIEST.year} to {LATEST.year}")
    return at
