"""Providers' message ids, in the one form in which a confirm and a webhook meet.

A send call and the webhooks about the same message don't always spell its id the same way:

* SendGrid answers ``X-Message-Id: ABC``; its events say ``sg_message_id: ABC.filter0001…``, with a suffix behind the
  first dot (Event Webhook Reference, "sg_message_id").
* Mailgun answers ``{"id": "<ABC@domain>"}``; its events say ``message-id: ABC@domain``.
"""

from __future__ import annotations

from typing import get_args

from storage.webhooks import Vendor

_VENDORS = frozenset(get_args(Vendor)) - {"standard"}


def normalised(provider: str | None, message_id: str | None) -> tuple[str | None, str | None]:
    """Provider and message id as they are stored; those of vendors that nothing is known of stay as they are."""
    if provider is None or provider.lower() not in _VENDORS:
        return provider, message_id
    provider = provider.lower()
    if message_id is None:
        return provider, None
    if provider == "sendgrid":
        return provider, message_id.partition(".")[0] or message_id
    if provider == "mailgun":
        return provider, message_id.removeprefix("<").removesuffix(">") or message_id
    return provider, message_id
