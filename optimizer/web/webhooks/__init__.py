"""Vendors' webhooks over HTTP: the sources that are set up, and one address for each of them, one module a vendor."""

from __future__ import annotations

from collections.abc import Sequence

from optimizer.web.operation import Operations
from optimizer.web.webhooks import mailgun, postmark, sendgrid, ses, sources, standard, twilio

AREAS: Sequence[Operations] = (
    sources.api,
    sendgrid.api,
    mailgun.api,
    postmark.api,
    ses.api,
    twilio.api,
    standard.api,
)
