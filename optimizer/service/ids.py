"""Ids: prefixed, and a keyed hash where the same question must get the same id again."""

from __future__ import annotations

import hashlib
import secrets

#: The policy of a campaign that has none yet: its cold start. It has no row in the store.
COLD_POLICY = "pol_cold"
#: The policy that imported history was logged under.
IMPORTED_POLICY = "pol_imported"


#: All pairs of letters of base32 (RFC 4648) in lower case; the standard library's encoder takes ten times as long.
_PAIRS = [one + other for one in "abcdefghijklmnopqrstuvwxyz234567" for other in "abcdefghijklmnopqrstuvwxyz234567"]


def _text(raw: bytes) -> str:
    """Base32 without padding."""
    bits = 8 * len(raw)
    pairs = -(-bits // 10)
    number = int.from_bytes(raw, "big") << (10 * pairs - bits)
    text = "".join([_PAIRS[number >> shift & 1023] for shift in range(10 * pairs - 10, -10, -10)])
    return text[: -(-bits // 5)]


def fresh(prefix: str) -> str:
    """A new random id, such as ``run_…`` (100 bits)."""
    return f"{prefix}_{_text(secrets.token_bytes(12))}"


def derived(prefix: str, key: bytes, *parts: str) -> str:
    """The id that belongs to ``parts`` under ``key``: the same parts always give the same id (128 bits)."""
    raw = [part.encode() for part in parts]
    content = b"".join([piece for one in raw for piece in (len(one).to_bytes(4, "big"), one)])
    return f"{prefix}_{_text(hashlib.blake2b(content, key=key[:64], digest_size=16).digest())}"


def decision_id(salt: bytes, workspace_id: str, request_id: str) -> str:
    """A decision's id is a keyed hash of its workspace and request id, so a retry, a batch and a re-run agree."""
    return derived("dec", salt, workspace_id, request_id)
