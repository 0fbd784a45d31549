"""What PUT, PATCH and DELETE of versioned documents share: preconditions, merge patches, races."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import orjson
from marshmallow import Schema

from optimizer.errors import NotFound
from optimizer.web.merge_patch import merged
from optimizer.web.operation import ORJSON, Call
from optimizer.web.validation import load
from storage.port import Reader


class Versioned(Protocol):
    """A record that has a version."""

    @property
    def version(self) -> int:
        """Grows with every change."""


S = TypeVar("S", bound=Versioned)
#: The loaded document that a merge patch makes of a record.
Patch = Callable[[S], Any]


def expected_version(call: Call, version: Callable[[Reader], int]) -> int | None:
    """The version that this write must find (None: whichever); reads it only where the request has preconditions."""
    preconditions = call.preconditions
    if not preconditions.given:
        return None
    with call.services.store.read() as reader:
        return preconditions.expected(version(reader))


def patched(
    call: Call, schema: Schema, before: S | None, document: Callable[[S], dict[str, Any]], what: str
) -> Patch[S]:
    """Applies the request's merge patch to a stored record as a GET shows it.

    What is returned gives the patched and loaded document of the record that a write finds: the one that was made
    here, outside of the transaction, or one made anew where somebody wrote in between.

    Args:
        call: the request, whose body is the patch.
        schema: what the merged document must satisfy: that of a PUT.
        before: the record that was read, None when there is none.
        document: the document of a record.
        what: the thing, for the error that there is none.
    """
    if before is None:
        raise NotFound(f"no {what} in this workspace")

    preconditions = call.preconditions  # read here: a write may run in another thread than its request

    def made(record: S) -> Any:
        preconditions.expected(record.version)
        shown = orjson.loads(orjson.dumps(document(record), option=ORJSON))
        return load(schema, merged(shown, call.document))

    ready = made(before)
    return lambda found: ready if found == before else made(found)
