"""Changes of a recipient: what a request tells, what a refusal records. Pure functions on records."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from optimizer.bandit.consent import agreed
from optimizer.service.cells import CHANNELS, OBJECT_VALUES, values_in
from optimizer.service.requests import RecipientPatch
from storage.port import Writer
from storage.records import Attribute, AttributeType, Consent, JsonObject, Recipient, Suppression

#: How the source of a refusal begins that an event recorded.
EVENT_SOURCE = "event:"
#: Names in a workspace's registry up to which those are listed that nobody declared. Each new one moves the set-up's
#: version and has the registry read again, 5 µs of CPU a name: a decision that tells one took 1.5 ms with an empty
#: registry, 11 with 2,000 names and 55 with 10,000 (SQLite). Names that never repeat would have no end.
LISTED = 2_000


def unknown(workspace_id: str, recipient_id: str) -> Recipient:
    """A recipient of whom nothing is stored (version 0)."""
    return Recipient(workspace_id=workspace_id, recipient_id=recipient_id)


def patched(recipient: Recipient, patch: RecipientPatch | None) -> Recipient:
    """The recipient with what a request tells of it; a recorded refusal of a channel stays a refusal.

    A record holds no more than a PUT of it may: what is told now, then of what was known as much as there is room for.
    """
    if patch is None:
        return recipient
    attributes, channels = recipient.attributes, recipient.channels
    if patch.attributes:
        attributes = _roomed({**attributes, **patch.attributes}, patch.attributes)
    if patch.channels:
        channels = _consented(channels, patch.channels)
    return Recipient(
        recipient.workspace_id,
        recipient.recipient_id,
        recipient.version,
        patch.timezone or recipient.timezone,
        attributes,
        channels,
        recipient.suppressed,
        recipient.updated_at,
        recipient.changed_after,
    )


def learned(recipient: Recipient, patch: RecipientPatch) -> Recipient:
    """As ``patched``, for what is told again and again: null forgets an attribute, and a recipient that is full keeps
    what is known rather than taking more."""
    told = {**recipient.attributes, **patch.attributes}
    kept = _roomed({name: value for name, value in told.items() if value is not None}, ())
    return replace(patched(recipient, replace(patch, attributes={})), attributes=kept)


def _roomed(attributes: JsonObject, first: Iterable[str]) -> JsonObject:
    """As many attributes as a record has room for, those named ``first`` before the others."""
    sizes = {name: values_in(value) for name, value in attributes.items()}
    if sum(sizes.values()) <= OBJECT_VALUES:
        return attributes
    kept: set[str] = set()
    left = OBJECT_VALUES
    for name in dict.fromkeys((*first, *attributes)):
        if sizes[name] <= left:
            kept.add(name)
            left -= sizes[name]
    return {name: value for name, value in attributes.items() if name in kept}


def _consented(known: Mapping[str, Consent], told: Mapping[str, Consent]) -> Mapping[str, Consent]:
    """What a recipient said of each channel. No refusal is left out for want of room: who loses one is written to."""
    merged = {**known, **{name: one for name, one in told.items() if not one.state or _open(known, name)}}
    left = CHANNELS - sum(not one.state for one in merged.values())
    agreed = [name for name in dict.fromkeys((*told, *merged)) if merged[name].state]
    if len(agreed) <= left:
        return merged
    dropped = set(agreed[max(left, 0) :])
    return {name: one for name, one in merged.items() if name not in dropped}


def _open(known: Mapping[str, Consent], channel: str) -> bool:
    return channel not in known or known[channel].state


def same(one: Recipient, other: Recipient) -> bool:
    """Whether two states differ in nothing but version and time of change."""
    return (
        one.timezone == other.timezone
        and one.attributes == other.attributes
        and one.channels == other.channels
        and one.suppressed == other.suppressed
        and (one.workspace_id, one.recipient_id) == (other.workspace_id, other.recipient_id)
    )


def refused(recipient: Recipient, channel: str, category: str, *, source: str, at: datetime) -> Recipient:
    """The recipient with a refusal of this channel and category recorded: once for each type of event, since a
    complaint stays where an unsubscription is taken back, and with the last time it was told, since what is taken back
    is what was refused before. A caller's own entry of the same is not enough: it goes with the next PUT that leaves it
    out."""
    # The same event may have refused more while its message wasn't known.
    others = [s for s in recipient.suppressed if s.source != source]
    alike = (channel, category, _event_type(source))
    known = [s for s in others if by_event(s) and _kind(s) == alike]
    if any(s.at is None or s.at >= at for s in known):
        return replace(recipient, suppressed=tuple(others))
    refusal = Suppression(channel=channel, category=category, source=source, at=at)
    return replace(recipient, suppressed=(*(s for s in others if s not in known), refusal))


def narrows(before: Recipient, after: Recipient) -> bool:
    """Whether a record may close something that it left open before: asked of every row of an import, so that only
    these have what is reserved for them read."""
    if before.channels != after.channels:
        named = before.channels.keys() | after.channels.keys()
        if any(not agreed(after, name) and agreed(before, name) for name in named):
            return True
    known = {(one.channel, one.category) for one in before.suppressed}
    return any((one.channel, one.category) not in known for one in after.suppressed)


def record_refusal(
    writer: Writer, stored: Recipient, channel: str, category: str, *, source: str, at: datetime, now: datetime
) -> None:
    """Stores what an event refuses (see ``refused``).

    The mark of the last change stays where it was, since the event has one of its own: else whoever unsubscribes would
    make it unknown in which zone and by which consents all their messages were sent. It moves where an earlier refusal
    goes, as it does once the message is known that one was about.
    """
    changed = refused(stored, channel, category, source=source, at=at)
    if same(stored, changed):
        return
    newer = following(stored, changed, now)
    if {_kind(s) for s in stored.suppressed} <= {_kind(s) for s in changed.suppressed}:
        newer = replace(newer, changed_after=stored.changed_after if stored.version else 0)
    writer.put_recipient(newer)


def _kind(refusal: Suppression) -> tuple[str, str, str]:
    return refusal.channel, refusal.category, _event_type(refusal.source)


def store(writer: Writer, stored: Recipient, changed: Recipient, now: datetime) -> Recipient:
    """Writes ``changed`` as the next version of ``stored`` if they differ; returns what is stored afterwards."""
    if same(stored, changed):
        return stored
    newer = following(stored, changed, now)
    writer.put_recipient(newer)
    return newer


def following(stored: Recipient, changed: Recipient, now: datetime | None) -> Recipient:
    """``changed`` as the next version of ``stored``."""
    return Recipient(
        changed.workspace_id,
        changed.recipient_id,
        stored.version + 1,
        changed.timezone,
        changed.attributes,
        changed.channels,
        changed.suppressed,
        now,
        _changed_after(stored, changed),
    )


def _changed_after(stored: Recipient, changed: Recipient) -> int:
    """The mark of the last change of what rules go by, -1 = this one: a nightly sync of attributes doesn't keep the
    audit from telling which consents a message went by."""
    alike = (
        stored.timezone == changed.timezone
        and stored.channels == changed.channels
        and stored.suppressed == changed.suppressed
        and stored.attributes.get("country") == changed.attributes.get("country")
    )
    return stored.changed_after if alike else -1


def replaced(stored: Recipient | None, new: Recipient, now: datetime) -> Recipient:
    """The next version of a recipient whom ``new`` replaces; ``stored`` itself where that changes nothing."""
    if stored is None:
        return Recipient(
            new.workspace_id, new.recipient_id, 1, new.timezone, new.attributes, new.channels, new.suppressed, now
        )
    changed = kept_refusals(stored, new)
    return stored if same(stored, changed) else following(stored, changed, now)


def kept_refusals(stored: Recipient, new: Recipient) -> Recipient:
    """``new`` in place of ``stored``, with the refusals that events recorded: a CRM's PUT knows nothing of them, and an
    entry of its own, which it may take back, doesn't stand for one. Of entries that are alike one is kept, or the list
    would grow with every PUT of a CRM that gives back what it read without sources."""
    told = {(s.channel, s.category, s.source) for s in new.suppressed}
    recorded = [s for s in stored.suppressed if by_event(s) and (s.channel, s.category, s.source) not in told]
    return replace(new, suppressed=(*dict.fromkeys(new.suppressed), *recorded)) if recorded else new


def _event_type(source: str | None) -> str:
    """The type in ``event:<type>:<id>``, which is what stands there where an event recorded a refusal."""
    return (source or "").removeprefix(EVENT_SOURCE).partition(":")[0]


def by_event(refusal: Suppression) -> bool:
    """Whether an event recorded it: then no PUT takes it back."""
    return (refusal.source or "").startswith(EVENT_SOURCE)


def attribute_type(value: Any) -> AttributeType | None:
    """The type that a value shows at first sight; None where it shows none (null, nested)."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        if len(value) > 80:
            return "text"
        return "timestamp" if _is_timestamp(value) else "category"
    return None


def _is_timestamp(value: str) -> bool:
    if len(value) < len("2026-03-02") or value[4:5] != "-":
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def sight(
    writer: Writer,
    workspace_id: str,
    known: Mapping[str, Attribute],
    attributes: Iterable[Mapping[str, Any]],
    private: Collection[str] = (),
) -> None:
    """Lists attributes that the registry hasn't seen, with the type of their first value; ``private`` ones as sensitive
    and not for the model.

    Once there are ``LISTED``, only private ones are: what the registry doesn't know is used by the model, typed by its
    values at each training.
    """
    full = len(known) >= LISTED
    fresh: dict[str, AttributeType] = {}
    for values in attributes:
        for name, value in values.items():
            if name not in known and name not in fresh and (not full or name in private):
                kind = attribute_type(value)
                if kind is not None:
                    fresh[name] = kind
    if not fresh:
        return
    stored = {a.name for a in writer.attributes(workspace_id)}
    for name, kind in fresh.items():
        secret = name in private
        if name not in stored and (secret or len(stored) < LISTED):
            stored.add(name)
            writer.put_attribute(
                Attribute(workspace_id=workspace_id, name=name, type=kind, use_in_model=not secret, sensitive=secret)
            )


def consents(channels: Mapping[str, bool]) -> dict[str, Consent]:
    """Plain yes-and-no answers as consents."""
    return {name: Consent(state=state) for name, state in channels.items()}
