"""What every vendor's address does: finds the source, has the delivery checked and read, stores it, counts, answers.

Once a delivery is signed the answer is 2xx or 503: what can't be used of it would be no better the next time, so it is
counted and not asked for again; what can't be stored is. A delivery that isn't signed is 401, leaves nothing behind but
a count and a line in the log, and nothing of it is in either.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

from flask import abort, current_app, g, request

from optimizer.errors import Forged, Gone, TooLarge
from optimizer.service.ingest import ingest
from optimizer.service.sources import called_source
from optimizer.service.webhooks.certificates import Certificates
from optimizer.service.webhooks.delivery import Batch, Delivery
from optimizer.service.webhooks.vendors import VENDORS
from optimizer.web import metrics
from optimizer.web.operation import Call
from storage.webhooks import Vendor, WebhookSource

log = logging.getLogger("sendtide.webhooks")

#: The status on which a vendor stops sending what it was refused; the others know none, and get 404. (Mailgun's
#: "Webhooks", Postmark's "Webhooks overview", the specification of Standard Webhooks.)
STOPS: dict[Vendor, int] = {"mailgun": 406, "postmark": 403, "standard": 410}
FORM = "application/x-www-form-urlencoded"


def receive(call: Call, vendor: Vendor) -> dict[str, Any]:
    """Takes a delivery; returns what became of it, as ``WebhookOut``.

    Raises:
        NotFound: the address has no source of this vendor.
        HTTPException: it had one that was deleted, and the vendor knows a status that makes it stop.
        Forged: its vendor did not sign it.
        StoreUnavailable, Unreachable: nothing was recorded; to be sent again.
    """
    try:
        source = called_source(call.services, vendor, call.path["source_id"])
    except Gone as error:
        if vendor in STOPS:
            abort(STOPS[vendor], error.detail)
        raise
    g.workspace_id = source.workspace_id
    counted = metrics.of(current_app)
    try:
        delivery = _delivery(call, source)
        batch = VENDORS[vendor].read(delivery)
        if len(batch.items) > call.holder.settings.max_batch_rows:
            raise TooLarge(f"the batch has {len(batch.items)} events; allowed: {call.holder.settings.max_batch_rows}")
        if batch.confirm_url is not None:
            delivery.certificates.fetch(batch.confirm_url)
            log.info("subscription confirmed", extra={"vendor": vendor, "source": source.source_id})
        report = ingest(call.services, source.workspace_id, batch.items, token=batch.token)
    except Forged as error:
        counted.count_forged(vendor)
        call.services.intake.count(source.workspace_id, vendor, {"forged": 1})
        log.warning("webhook refused", extra={"vendor": vendor, "source": source.source_id, "reason": error.detail})
        raise
    counted.count_webhook(vendor, report, batch.unknown)
    call.services.intake.report(source.workspace_id, vendor, report, batch.unknown)
    _tell_of_rejected(source, batch, [one.detail for one in report.rejected])
    return {
        "accepted": report.accepted,
        "duplicates": report.duplicates,
        "unmatched": report.unmatched,
        "rejected": len(report.rejected),
    }


def _delivery(call: Call, source: WebhookSource) -> Delivery:
    certificates: Certificates = current_app.extensions["sendtide_certificates"]
    return Delivery(
        source=source,
        headers={name.lower(): value for name, value in request.headers.items()},
        raw=call.raw,
        form=call.media == FORM,
        urls=(_called_url(call),),
        query=request.args.to_dict(),
        now=call.services.clock(),
        certificates=certificates,
    )


def _called_url(call: Call) -> str:
    """The address as the vendor wrote it: what is in front of us may have called us by another."""
    written = str(request.environ.get("RAW_URI") or "")
    if not written.startswith("/"):
        query = request.query_string.decode("latin-1")
        written = quote(request.path) + (f"?{query}" if query else "")
    return (call.holder.settings.public_url or request.host_url.rstrip("/")) + written


def _tell_of_rejected(source: WebhookSource, batch: Batch, details: list[str]) -> None:
    if details:
        log.warning(
            "events of a webhook can't be used",
            extra={
                "vendor": source.vendor,
                "source": source.source_id,
                "rejected": len(details),
                "of": len(batch.items),
                "first": details[0][:200],
            },
        )
