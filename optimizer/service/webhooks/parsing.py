"""Reading what vendors write: JSON of any quality, times, ids. One bad element is ``Invalid`` and spoils no other."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import orjson

from optimizer.bandit.rewards import CLOCK_SKEW
from optimizer.errors import Forged, Invalid
from optimizer.service import moments
from optimizer.service.jsontext import deeper
from optimizer.service.requests import RejectedEvent, VendorEvent
from storage.records import JsonObject

#: No control characters (C0, DEL, C1), as in every id of ours.
_ID = re.compile(r"[^\u0000-\u001f\u007f-\u009f\ufffd]{1,256}")
_LONGEST_EVENT_ID = 200
#: Digits of a whole number of 64 bits, or of a sign and one of 63.
_LONGEST_WHOLE = 20
#: Levels of objects and lists in what is read. orjson reads 1,024, and what stores and reports words fewer.
DEEPEST = 100
#: Bytes of one event's words that are kept whole; of longer ones long texts and lists are cut.
_WORDS_BYTES = 16 * 1024
_CUT_TEXT, _CUT_LIST, _CUT_DEPTH = 200, 10, 6


def parse(raw: bytes) -> Any:
    """The JSON value of ``raw``; broken UTF-8 and lone surrogates, which a recipient's mail client can cause, are
    replaced by U+FFFD and lose nothing else. A number beyond 64 bits is the nearest float, null where there is none.

    Raises:
        Invalid: it is not JSON.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as strict:
        try:
            return _mended(json.loads(raw.decode("utf-8", "replace"), parse_int=_whole))
        except (ValueError, RecursionError):
            raise Invalid(f"the body is not JSON: {strict}", code="unreadable") from None


def _whole(digits: str) -> int | float:
    """A whole number, as orjson reads it and can write it again."""
    value = int(digits) if len(digits) <= _LONGEST_WHOLE else None
    return value if value is not None and -(2**63) <= value < 2**64 else float(digits)


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_mended(one) for one in value]
    if isinstance(value, dict):
        return {_mended(name): _mended(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def members(value: Any, what: str) -> dict[str, Any]:
    """``value`` as an object (``Invalid`` when it is none, or nested deeper than whatever reads it can follow)."""
    if not isinstance(value, dict):
        found = "missing" if value is None else f"is a {type(value).__name__}"
        raise Invalid.field(what, f"{found}; it must be an object", code="unreadable")
    if deeper(value, DEEPEST):
        raise Invalid.field(what, f"nested too deeply; allowed: {DEEPEST} levels", code="unreadable")
    return value


def below(value: Any, *path: str) -> Any:
    """What lies at a path of objects; None where it ends early."""
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def text(value: Any, longest: int = 2048) -> str:
    """A string, cut; empty for everything else."""
    return value[:longest] if isinstance(value, str) else ""


def identifier(value: Any) -> str | None:
    """``value`` where it can be an id of ours, else None."""
    return value if isinstance(value, str) and _ID.fullmatch(value) is not None else None


def event_type(vendor: str, name: str) -> str:
    """The type of an event that nobody here knows: the vendor's name for it behind the vendor's."""
    return identifier(f"{vendor}.{name}"[:256]) or f"{vendor}.unnamed"


def event_id(vendor: str, *parts: str) -> str:
    """An event's id of its vendor's own facts; hashed where it would be long or odd, or where other parts would give
    the same: only the last one may hold what parts are joined by."""
    joined = ":".join((vendor, *parts))
    plain = not any(":" in part for part in parts[:-1])
    if plain and len(joined) <= _LONGEST_EVENT_ID and identifier(joined) is not None:
        return joined
    return f"{vendor}:#{content_hash(parts)}"


def content_hash(value: Any) -> str:
    """A hash of a JSON value, whatever the order of its members."""
    return hashlib.blake2b(msgspec.json.encode(value, order="sorted"), digest_size=16).hexdigest()


def unix_time(value: Any, field: str, now: datetime) -> datetime:
    """A time in seconds since 1970, as a number or as text. One that lies ahead of ``now`` by more than a clock may be
    wrong is taken for ``now``: a vendor's clock must not lose us an unsubscribe."""
    try:
        seconds = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
        return _no_later(datetime.fromtimestamp(seconds, UTC), field, now)
    except (ValueError, OverflowError, OSError):
        raise _no_time(field, value, "seconds since 1970") from None


def iso_time(value: Any, field: str, now: datetime) -> datetime:
    """A time as ISO 8601 writes it, without an offset in UTC; otherwise as ``unix_time``."""
    try:
        at = moments.as_utc(value, UTC)
    except ValueError:
        raise _no_time(field, value, "an ISO 8601 time") from None
    return _no_later(at, field, now)


def _no_later(at: datetime, field: str, now: datetime) -> datetime:
    if at.year < 2000:
        raise _no_time(field, at.isoformat(), "a time since 2000")
    return now if at > now + CLOCK_SKEW else at


def _no_time(field: str, value: Any, allowed: str) -> Invalid:
    return Invalid.field(field, f"{str(value)[:80]!r} is not {allowed}", code="bad_time")


def require_fresh(stamp: str, now: datetime, longest: timedelta) -> None:
    """``Forged`` unless ``stamp``, in seconds since 1970, is at most ``longest`` ago and not ahead."""
    try:
        age = now - datetime.fromtimestamp(float(stamp), UTC)
    except (ValueError, OverflowError, OSError):
        raise Forged("the signature's time can't be read") from None
    if not -CLOCK_SKEW <= age <= longest:
        raise Forged(f"it was signed {age.total_seconds():.0f} s ago; allowed: up to {longest.total_seconds():.0f}")


def base64_bytes(value: str) -> bytes | None:
    """The bytes of base64 text, None where it is none."""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None


def each(elements: Iterable[Any], read: Callable[[dict[str, Any]], VendorEvent]) -> list[VendorEvent | RejectedEvent]:
    """Reads elements one by one; what can't be read is rejected in its place."""
    found: list[VendorEvent | RejectedEvent] = []
    for index, element in enumerate(elements):
        try:
            found.append(read(members(element, "event")))
        except Invalid as error:
            found.append(RejectedEvent(index, error.code, error.detail))
    return found


def kept(words: JsonObject) -> JsonObject:
    """A vendor's words as they are stored: whole, or with long texts and lists cut."""
    if len(msgspec.json.encode(words)) <= _WORDS_BYTES:
        return words
    return {name: _cut(value, _CUT_DEPTH) for name, value in list(words.items())[:200]}


def _cut(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value[:_CUT_TEXT]
    if isinstance(value, list):
        return [_cut(one, depth - 1) for one in value[:_CUT_LIST]] if depth else []
    if isinstance(value, dict):
        return {k[:_CUT_TEXT]: _cut(v, depth - 1) for k, v in list(value.items())[:50]} if depth else {}
    return value
