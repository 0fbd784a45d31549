"""What PUT, PATCH and DELETE of versioned documents share: preconditions, merge patches, races."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import orjson
from marshmallow import Schema

from optimizer.errors import NotFound, PreconditionFailed
from optimizer.web.merge_patch import merged
from optimizer.web.operation import ORJSON, Call
from optimizer.web.validation import load
from storage.port import Reader

T = TypeVar("T")

#: How often a merge patch without ``If-Match`` is made anew when someone else wrote in between.
_ATTEMPTS = 8


def expected_version(call: Call, version: Callable[[Reader], int]) -> int | None:
    """The version that this write must find (None: whichever); reads it only where the request has preconditions."""
    preconditions = call.preconditions
    if not preconditions.given:
        return None
    with call.services.store.read() as reader:
        return preconditions.expected(version(reader))


def patch(
    call: Call,
    schema: Schema,
    shown: Callable[[Reader], tuple[dict[str, Any], int] | None],
    put: Callable[[Any, int], T],
    what: str,
) -> T:
    """Applies the request's merge patch to the document as a GET shows it, and puts the result.

    Args:
        call: the request, whose body is the patch.
        schema: what the merged document must satisfy: that of a PUT.
        shown: the document and its version, None when there is none.
        put: stores the loaded document if that version is still the stored one.
        what: the thing, for the error that there is none.
    """
    for attempt in range(_ATTEMPTS):
        with call.services.store.read() as reader:
            found = shown(reader)
        if found is None:
            raise NotFound(f"no {what} in this workspace")
        document, version = found
        call.preconditions.expected(version)
        loaded = load(schema, merged(orjson.loads(orjson.dumps(document, option=ORJSON)), call.document))
        try:
            return put(loaded, version)
        except PreconditionFailed:
            if call.preconditions.given or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")
