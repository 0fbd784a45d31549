"""Optimistic concurrency: a document's ``ETag`` is its version in quotes (RFC 9110, sections 8.8.3 and 13.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from werkzeug.datastructures import Headers

from optimizer.errors import PreconditionFailed

_TAG = re.compile(r'\s*(?:(W/)?"([^"]*)"|\*)\s*(?:,|$)')


def etag(version: int) -> str:
    """The entity tag of a version."""
    return f'"{version}"'


@dataclass(frozen=True, slots=True)
class Preconditions:
    """What a request expects of the stored version. Tags are compared strongly; one that isn't ours matches nothing."""

    if_match: str | None
    if_none_match: str | None

    @classmethod
    def of(cls, headers: Headers) -> Preconditions:
        """Those of a request."""
        return cls(headers.get("If-Match"), headers.get("If-None-Match"))

    @property
    def given(self) -> bool:
        """Whether there are any."""
        return self.if_match is not None or self.if_none_match is not None

    def expected(self, stored: int) -> int | None:
        """The version that a write must find, None for whichever.

        Args:
            stored: the version stored now, 0 for none.

        Raises:
            PreconditionFailed: the stored version is not one that the caller expects.
        """
        if not self.given:
            return None
        if self.if_match is not None and not (stored and _names(self.if_match, stored)):
            raise PreconditionFailed(
                f"If-Match is {self.if_match!r:.100}; the stored version is {etag(stored) if stored else 'none'}",
                errors={"header.If-Match": [f"Stored is {etag(stored) if stored else 'nothing'}."]},
            )
        if self.if_none_match is not None and stored and _names(self.if_none_match, stored):
            raise PreconditionFailed(
                f"If-None-Match is {self.if_none_match!r:.100}; version {etag(stored)} is stored",
                errors={"header.If-None-Match": [f"Stored is {etag(stored)}."]},
            )
        return stored

    def unchanged(self, stored: int) -> bool:
        """Whether a read may be answered with 304."""
        return self.if_none_match is not None and _names(self.if_none_match, stored, weak=True)


def _names(header: str, version: int, *, weak: bool = False) -> bool:
    at = 0
    while at < len(header):
        tag = _TAG.match(header, at)
        if tag is None:
            return False
        if tag.group(2) is None or (tag.group(2) == str(version) and (weak or tag.group(1) is None)):
            return True
        at = tag.end()
    return False
