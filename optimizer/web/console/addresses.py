"""Ids within the addresses of pages: whatever an id says, the page that opens is that of its owner.

Browsers and proxies resolve ``..`` and ``.``, merge slashes, and some undo a quoting first. So what an id has of these
is quoted twice, and arrives here quoted once, as text without a slash.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

from werkzeug.routing import BaseConverter, UnicodeConverter

from optimizer.web.any_id import AnyId

_DOTS = (".", "..")


class _TwiceQuoted(BaseConverter):
    """Between an id and its part of a path."""

    def to_python(self, value: str) -> str:
        """The id; of ``value`` the server has undone one quoting."""
        return unquote(value)

    def to_url(self, value: Any) -> str:
        """The id's part of a path."""
        told = str(value)
        inner = told.replace(".", "%2E") if told in _DOTS else told.replace("%", "%25").replace("/", "%2F")
        return quote(inner, safe="")


class IdInPath(_TwiceQuoted, UnicodeConverter):
    """``<id:…>``: an id of ours, which holds no slash."""


class AnyIdInPath(_TwiceQuoted, AnyId):
    """``<any_id:…>``: an id of another system. A slash that somebody typed is one of the id."""
