"""Fetching what a signature needs from a vendor's own servers, and keeping it."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime, timedelta
from http.client import HTTPException
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import load_pem_x509_certificate

from optimizer.errors import Forged, Unreachable

Get = Callable[[str], bytes]

TIMEOUT_SECONDS = 5.0
_LARGEST = 64 * 1024
#: How long a certificate is used before it is fetched again, and how many are kept.
_KEPT = timedelta(hours=24)
_MOST = 16


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An allowed host must not be able to send us to one that isn't."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follows nothing."""
        return


def get(url: str) -> bytes:
    """The body at an https address that the caller has checked.

    Raises:
        Forged: the server says that there is no such thing.
        Unreachable: it doesn't answer, or is in trouble.
    """
    if not url.startswith("https://"):
        raise ValueError(f"only https is fetched, not {url!r}")
    try:
        with urllib.request.build_opener(_NoRedirect).open(url, timeout=TIMEOUT_SECONDS) as answer:
            raw: bytes = answer.read(_LARGEST)
            return raw
    except urllib.error.HTTPError as error:
        if error.code < 500:
            raise Forged(f"{url[:200]} answers {error.code}") from error
        raise Unreachable(f"{url[:200]} answers {error.code}") from error
    except (OSError, HTTPException) as error:
        raise Unreachable(f"{url[:200]} can't be reached: {error}") from error


class Certificates:
    """Public keys of certificates by address. Safe between threads."""

    def __init__(self, fetch: Get = get) -> None:
        """``fetch`` gets an address's body."""
        self.fetch = fetch
        self._lock = threading.Lock()
        self._known: dict[str, tuple[RSAPublicKey, datetime]] = {}

    def key(self, url: str, now: datetime) -> RSAPublicKey:
        """The key of the certificate at ``url``, which the caller has checked.

        Raises:
            Forged: what lies there is no certificate that holds now.
            Unreachable: it can't be fetched.
        """
        with self._lock:
            known = self._known.get(url)
        if known is not None and now < known[1]:
            return known[0]
        key, ends = _read(self.fetch(url), now)
        with self._lock:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[url] = key, min(ends, now + _KEPT)
        return key


def _read(pem: bytes, now: datetime) -> tuple[RSAPublicKey, datetime]:
    try:
        certificate = load_pem_x509_certificate(pem)
        key = certificate.public_key()
    except ValueError as error:
        raise Forged("the signing certificate can't be read") from error
    if not isinstance(key, RSAPublicKey):
        raise Forged("the signing certificate has no RSA key")
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise Forged("the signing certificate doesn't hold now")
    return key, certificate.not_valid_after_utc
