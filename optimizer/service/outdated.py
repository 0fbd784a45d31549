"""Attribute values that may not be kept any longer: those of records that have not changed for ``retention_days``.

The store notes when a record changed, not when each of its values did. So a value goes once the whole record has stood
still for so long: it is at least that old. What is forgotten here is no change in this sense, or attributes with longer
times would wait for those with shorter ones. Contexts of decisions keep the values they were decided by, since without
them a decision could neither be replayed nor learned from; they go with the decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from optimizer.service.wiring import Services
from storage.port import Writer
from storage.records import JsonObject, Recipient

#: Records that are looked through, and at most written, at a time.
PAGE = 200


def forget_outdated(services: Services, workspace_id: str) -> int:
    """Takes outdated values from the records of a workspace; returns from how many records."""
    now = services.clock()
    with services.store.read() as reader:
        oldest = {
            one.name: now - timedelta(days=one.retention_days)
            for one in reader.attributes(workspace_id)
            if one.retention_days is not None
        }
    if not oldest:
        return 0
    forgotten, after = 0, ""
    while True:
        with services.store.read() as reader:
            page = reader.recipients_after(workspace_id, after, limit=PAGE)
        if not page:
            return forgotten
        after = page[-1].recipient_id
        concerned = [one.recipient_id for one in page if _kept(one, oldest) != one.attributes]
        if concerned:
            forgotten += _forget(services, workspace_id, concerned, oldest)


def _forget(services: Services, workspace_id: str, recipient_ids: list[str], oldest: Mapping[str, datetime]) -> int:
    def work(writer: Writer) -> int:
        changed = [
            replace(one, version=one.version + 1, attributes=_kept(one, oldest))
            for one in writer.recipients(workspace_id, recipient_ids).values()
            if _kept(one, oldest) != one.attributes
        ]
        writer.put_recipients(changed)
        return len(changed)

    return services.store.write(work, recipients=[(workspace_id, one) for one in recipient_ids])


def _kept(recipient: Recipient, oldest: Mapping[str, datetime]) -> JsonObject:
    """The attributes without those that are outdated; ``oldest``: by name, how long ago the last change may be."""
    at = recipient.updated_at
    if at is None:
        return recipient.attributes
    return {name: value for name, value in recipient.attributes.items() if name not in oldest or at >= oldest[name]}
