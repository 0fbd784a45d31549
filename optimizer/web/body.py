"""Reads request bodies: content type, size, UTF-8, JSON. What can't be read is 400, 413 or 415 and never a 5xx."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any

import orjson
from flask import request
from gunicorn.http.errors import ParseException

from optimizer.errors import TooLarge, Unreadable, UnsupportedMedia

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
NDJSON = "application/x-ndjson"


def check_type(allowed: Collection[str]) -> str:
    """The media type of the body.

    Raises:
        UnsupportedMedia: it is none of ``allowed``, another charset than UTF-8, or compressed.
    """
    given = request.mimetype
    listed = ", ".join(allowed)
    if given not in allowed:
        raise UnsupportedMedia(
            f"Content-Type is {given or 'missing'!r:.100}; allowed: {listed}",
            errors={"header.Content-Type": [f"Must be one of: {listed}."]},
        )
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMedia(f"charset is {charset!r:.100}; allowed: utf-8")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("Content-Encoding is set; allowed: none (send the body uncompressed)")
    return given


#: What the server raises when the chunks that a body comes in are malformed; it closes the connection by itself.
Malformed = ParseException


def malformed(error: Exception) -> Unreadable:
    """The caller's error that a ``Malformed`` is."""
    return Unreadable(f"the body is not in chunks as HTTP/1.1 has them: {error!s:.100}")


#: What is taken at a time of a body that nobody wants.
_PIECE = 1 << 16


def read(limit: int) -> bytes:
    """The whole body, of at most ``limit`` bytes; where its length is told, a longer one is refused unread.

    Raises:
        TooLarge: it is longer.
        Unreadable: its chunks are malformed.
    """
    length = request.content_length
    if length is not None and length > limit:
        raise TooLarge(f"the body has {length} bytes; allowed: {limit}")
    # Werkzeug cuts a body of untold length off at its maximum without a word: one byte more shows that it was longer.
    request.max_content_length = limit + 1
    try:
        raw = request.get_data(cache=False)
    except Malformed as error:
        raise malformed(error) from None
    if len(raw) > limit:
        raise TooLarge(f"the body has more than {limit} bytes; allowed: {limit}")
    return raw


def leave_none(limit: int) -> None:
    """Takes what is unread of a body that was meant to be read, of at most ``limit`` bytes.

    A server that answers and doesn't know where the next request begins must close the connection; gunicorn does so
    where more than 64 KiB are unread, and who then sends the next request on it learns nothing but that.
    """
    if (request.content_length or 0) <= limit:
        with suppress(Malformed):  # then the connection is closed whatever we do
            while request.stream.read(_PIECE):
                pass


def parse(raw: bytes) -> Any:
    """The JSON value of ``raw``. NaN, infinities, lone surrogates, broken UTF-8 and nesting over 1,024 are refused."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"the body is not JSON: {error}") from None


def parse_object(raw: bytes) -> dict[str, Any]:
    """As ``parse``, and it must be an object."""
    return as_object(parse(raw))


def as_object(value: Any) -> dict[str, Any]:
    """The body's JSON value, which must be an object."""
    if not isinstance(value, dict):
        raise Unreadable(f"the body must be a JSON object, not {_NAMES.get(type(value), 'a number')}")
    return value


_NAMES = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
