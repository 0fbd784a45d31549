"""Providers' message ids, in the one form in which a confirm and a webhook meet.

A send call and the webhooks about the same message don't always spell its id the same way:

* SendGrid answers ``X-Message-Id: ABC``; its events say ``sg_message_id: ABC.filter0001…`` or ``ABC.recvd-…``. An id of
  today has 22 characters and no dot; those of the Event Webhook Reference have dots: ``14c5d75ce93.dfd.64b469``, as in
  the ``smtp-id`` beside them, before ``.filter0001.16648.5515E0B88.0``.
* Mailgun answers ``{"id": "<ABC@domain>"}``; its events say ``message-id: ABC@domain``.
"""

from __future__ import annotations

import re
from typing import get_args

from storage.webhooks import Vendor

_VENDORS = frozenset(get_args(Vendor)) - {"standard"}
#: SendGrid's own id, where a suffix follows it.
_SENDGRID = re.compile(r"[A-Za-z0-9_-]{22}(?=\.)|.+?(?=\.(?:filter|recvd))")


def normalised(provider: str | None, message_id: str | None) -> tuple[str | None, str | None]:
    """Provider and message id as they are stored; those of vendors that nothing is known of stay as they are."""
    if provider is None or provider.lower() not in _VENDORS:
        return provider, message_id
    provider = provider.lower()
    if message_id is None:
        return provider, None
    if provider == "sendgrid":
        own = _SENDGRID.match(message_id)
        return provider, message_id if own is None else own.group()
    if provider == "mailgun":
        return provider, message_id.removeprefix("<").removesuffix(">") or message_id
    return provider, message_id
