"""Whom nobody may bring back by accident: people who were erased, known by a keyed hash of their id alone.

The hash names a record of its own among the recipients, which holds what they refused and nothing else. Until somebody
puts the person back on purpose (``PUT /v1/recipients/{id}``, a batch, an import of recipients), nothing about them is
stored and nothing decided: a stale list must not write to them, a late report must not make a profile anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from optimizer.errors import Invalid
from optimizer.service.ids import derived
from optimizer.service.recipients import EVENT_SOURCE, following, unknown
from storage.port import Reader, Writer
from storage.records import ANY, Recipient, Suppression

#: Source of the refusal of everything that an erasure is.
ERASURE = "erasure"
#: What is left of the source of a refusal that an event recorded: the event's own id may name the person.
_BY_AN_EVENT = f"{EVENT_SOURCE}erased"
_FLAG = "erased_in:"
#: What the ids begin with under which something is stored of erased people.
NAMELESS = "erased"
#: A random one of an erasure, or a ``grave_id``.
_PSEUDONYM = re.compile(rf"{NAMELESS}_(?:[a-z2-7]{{20}}|[a-z2-7]{{26}})")
CODE = "erased"


def is_pseudonym(recipient_id: str) -> bool:
    """Whether an id is one that an erasure made: no person is called so."""
    return _PSEUDONYM.fullmatch(recipient_id) is not None


def grave_id(salt: bytes, workspace_id: str, recipient_id: str) -> str:
    """Under which id the record lies that remembers an erased person."""
    return derived(NAMELESS, salt, workspace_id, "recipient", recipient_id)


def hidden_message_id(salt: bytes, workspace_id: str, provider: str, message_id: str) -> str:
    """What stands in place of a provider's message id in a decision of an erased person."""
    return derived("msg", salt, workspace_id, "message", provider, message_id)


def any_erased(reader: Reader, workspace_id: str) -> bool:
    """Whether anybody of the workspace was ever erased: else there is nobody to look for."""
    return reader.meta(_FLAG + workspace_id) is not None


def graves(reader: Reader, salt: bytes, workspace_id: str, recipient_ids: Iterable[str]) -> dict[str, Recipient]:
    """What is remembered of those of the given people who were ever erased, by their id."""
    if not any_erased(reader, workspace_id):
        return {}
    names = {grave_id(salt, workspace_id, one): one for one in recipient_ids}
    return {names[hashed]: grave for hashed, grave in reader.recipients(workspace_id, list(names)).items()}


def gone(reader: Reader, salt: bytes, workspace_id: str, recipient_ids: Iterable[str]) -> set[str]:
    """Those of the given people who were erased and not put back since."""
    found = graves(reader, salt, workspace_id, recipient_ids)
    return found.keys() - reader.recipients(workspace_id, list(found)).keys() if found else set()


def refusal(recipient_id: str) -> Invalid:
    """The answer to whoever names a person who is gone."""
    told = f"{recipient_id!r} was erased; PUT /v1/recipients/{{id}} takes the person up again"
    return Invalid.field("recipient_id", told, code=CODE)


def bury(writer: Writer, salt: bytes, person: Recipient, now: datetime) -> None:
    """Remembers what a person refused, who is erased now: all of it, and by the erasure everything."""
    stored = graves(writer, salt, person.workspace_id, [person.recipient_id]).get(person.recipient_id)
    hashed = grave_id(salt, person.workspace_id, person.recipient_id)
    grave = stored or unknown(person.workspace_id, hashed)
    refused = {(ANY, ANY, ERASURE): Suppression(source=ERASURE, at=now)}
    # A record has what was remembered since the person was put back, but for what they have taken back meanwhile.
    for one in person.suppressed if person.version else grave.suppressed:
        source = _BY_AN_EVENT if (one.source or "").startswith(EVENT_SOURCE) else None
        if source is not None:
            refused[one.channel, one.category, source] = replace(one, source=source)
    buried = replace(grave, suppressed=tuple(refused.values()))
    writer.put_recipient(following(grave, buried, now))
    writer.put_meta(_FLAG + person.workspace_id, "yes")
