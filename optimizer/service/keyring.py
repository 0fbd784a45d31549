"""Looks up who calls: the key of a secret. Keys are not kept: one that is revoked is refused from then on.

Callers that come at the same time share a read that begins after all of them came, which tells as much as one of their
own. On PostgreSQL, reads of their own were a fifth of what a decision cost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from optimizer.service.together import Together
from storage.port import Store
from storage.records import ApiKey

#: Callers that share a read at most.
_MOST = 64


class KeyRing:
    """The keys of one store. Threads share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._together = Together(self._read, _MOST)

    def __call__(self, secret: str) -> ApiKey | None:
        """The key of a secret, revoked or not; None = unknown. Looked up by hash, so no comparison leaks a prefix.

        Raises:
            StoreUnavailable: it can't be looked up now.
        """
        return self._together(hash_secret(secret))

    def _read(self, hashes: Sequence[bytes]) -> list[ApiKey | None]:
        with self._store.read() as reader:
            found = {one: reader.key_by_hash(one) for one in set(hashes)}
        return [found[one] for one in hashes]


def hash_secret(secret: str) -> bytes:
    """SHA-256 of a secret. Secrets carry 256 random bits, so no slow password hash is needed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
