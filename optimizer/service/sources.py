"""Webhook sources: put, deleted, found by the id in the address that a vendor calls."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

from optimizer.errors import Conflict, Gone, NotFound
from optimizer.service.versions import check_version
from optimizer.service.webhooks.vendors import require_setup
from optimizer.service.wiring import Services
from storage.errors import AlreadyExists
from storage.port import Writer
from storage.webhooks import Vendor, WebhookSource


def put_source(services: Services, source: WebhookSource, if_match: int | None = None) -> tuple[WebhookSource, bool]:
    """Stores a source; True when it is new. Its version and times are set here.

    Raises:
        Invalid: what the vendor's signatures can't be checked with.
        Conflict: the id is taken, by whom isn't said.
        PreconditionFailed: ``if_match`` (0 = none yet, None = whichever) is not the stored version.
    """
    require_setup(source.vendor, source.secrets, source.topic_arns)
    now = services.clock()

    def work(writer: Writer) -> tuple[WebhookSource, bool]:
        stored = writer.webhook_source(source.source_id)
        if stored is not None and stored.workspace_id != source.workspace_id:
            raise _taken(source.source_id)
        is_new = stored is None or stored.deleted
        check_version("webhook source", source.source_id, 0 if stored is None or is_new else stored.version, if_match)
        newer = replace(
            source,
            version=1 if stored is None else stored.version + 1,
            created_at=now if stored is None or is_new else stored.created_at,
            updated_at=now,
        )
        writer.put_webhook_source(newer)
        return newer, is_new

    try:
        return services.store.write(work)
    except AlreadyExists:
        raise _taken(source.source_id) from None


def delete_source(services: Services, workspace_id: str, source_id: str, if_match: int | None = None) -> None:
    """Deletes a source with its secrets; its address takes nothing any more, and its id stays this workspace's."""
    now = services.clock()

    def work(writer: Writer) -> None:
        stored = writer.webhook_source(source_id)
        if stored is None or stored.deleted or stored.workspace_id != workspace_id:
            raise NotFound(f"no webhook source {source_id!r} in this workspace")
        check_version("webhook source", source_id, stored.version, if_match)
        gone = replace(stored, secrets=(), topic_arns=(), deleted=True, version=stored.version + 1, updated_at=now)
        writer.put_webhook_source(gone)

    services.store.write(work)


def source_of(services: Services, workspace_id: str, source_id: str) -> WebhookSource:
    """A workspace's source (``NotFound`` where there is none)."""
    with services.store.read() as reader:
        stored = reader.webhook_source(source_id)
    if stored is None or stored.deleted or stored.workspace_id != workspace_id:
        raise NotFound(f"no webhook source {source_id!r} in this workspace")
    return stored


def called_source(services: Services, vendor: Vendor, source_id: str) -> WebhookSource:
    """The source whose address a vendor calls (``NotFound`` where there is none of this vendor, ``Gone`` where there
    was one)."""
    with services.store.read() as reader:
        stored = reader.webhook_source(source_id)
    if stored is None or stored.vendor != vendor:
        raise NotFound(f"no webhook source {source_id!r} of {vendor}")
    if stored.deleted:
        raise Gone(f"webhook source {source_id!r} of {vendor} was deleted")
    return stored


def fingerprint(services: Services, secret: str) -> str:
    """What may be shown of a secret: enough to tell two apart; keyed, so that a weak one can't be guessed."""
    return hmac.new(services.salt, secret.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:12]


def _taken(source_id: str) -> Conflict:
    return Conflict(
        f"the id {source_id!r} is taken; ids of webhook sources are unique in the whole installation",
        code="id_taken",
        errors={"path.source_id": ["Taken; choose another, such as a random one."]},
    )
