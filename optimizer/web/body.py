"""Reads request bodies: content type, size, UTF-8, JSON. What can't be read is 400, 413 or 415 and never a 5xx."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import islice
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


#: Held while a large body is made into objects.
_LARGE = threading.Lock()


@contextmanager
def in_turn(raw: bytes, small: int) -> Iterator[None]:
    """A block that makes objects of a body and checks them: one at a time in this process where the body has more than
    ``small`` bytes, since objects may take 24 times its bytes until they are refused (33 MB of ``{},`` take 0.8 GB)."""
    with _LARGE if len(raw) > small else nullcontext():
        yield


#: A line from its first character that is no space.
_ROW = re.compile(rb"\S[^\n]*")


def lines(raw: bytes, most: int) -> list[bytes]:
    """The lines of an NDJSON body that are not blank.

    Raises:
        TooLarge: there are more than ``most``; the rest is not looked at.
    """
    found = [row[0] for row in islice(_ROW.finditer(raw), most + 1)]
    if len(found) > most:
        raise TooLarge(f"the batch has at least {len(found)} rows; allowed: {most}")
    return found


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
