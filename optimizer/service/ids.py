"""Ids: prefixed, and a keyed hash where the same question must get the same id again."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence

import numpy as np

from optimizer.errors import NotFound

#: The policy of a campaign that has none yet: its cold start. It has no row in the store.
COLD_POLICY = "pol_cold"
#: The policy that imported history was logged under.
IMPORTED_POLICY = "pol_imported"
_NOT_STORED = {
    COLD_POLICY: "it is what decides until a campaign's first policy is published, by chance",
    IMPORTED_POLICY: "it stands for whatever decided what was imported",
}


#: All pairs of letters of base32 (RFC 4648) in lower case; the standard library's encoder takes ten times as long.
_PAIRS = [one + other for one in "abcdefghijklmnopqrstuvwxyz234567" for other in "abcdefghijklmnopqrstuvwxyz234567"]


_LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz234567", dtype=np.uint8)
#: What each bit of a letter counts.
_PLACES = np.array([16, 8, 4, 2, 1], dtype=np.uint8)


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
    digest = hashlib.blake2b(key=key[:64], digest_size=16)
    digest.update(_framed([part.encode() for part in parts]))
    return f"{prefix}_{_text(digest.digest())}"


def derived_many(key: bytes, common: Sequence[str], rows: Iterable[Sequence[bytes]]) -> list[str]:
    """``derived`` without a prefix for many: each with the parts ``common`` and then those of its row, as UTF-8."""
    begun = hashlib.blake2b(key=key[:64], digest_size=16)
    begun.update(_framed([part.encode() for part in common]))
    digests = []
    for row in rows:
        digest = begun.copy()
        digest.update(_framed(row))
        digests.append(digest.digest())
    bits = np.zeros((len(digests), 26 * 5), dtype=np.uint8)
    bits[:, :128] = np.unpackbits(np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 16), axis=1)
    letters = _LETTERS[bits.reshape(-1, 26, 5) @ _PLACES].tobytes().decode()
    return ["_" + letters[start : start + 26] for start in range(0, len(letters), 26)]


def _framed(parts: Sequence[bytes]) -> bytes:
    """The parts, each behind its length, so that no two lists of parts are the same bytes."""
    return b"".join([framed for part in parts for framed in (len(part).to_bytes(4, "big"), part)])


def decision_id(salt: bytes, workspace_id: str, request_id: str) -> str:
    """A decision's id is a keyed hash of its workspace and request id, so a retry, a batch and a re-run agree."""
    return derived("dec", salt, workspace_id, request_id)


def no_policy(policy_id: str) -> NotFound:
    """The error of whoever asks for a policy that is not stored."""
    why = _NOT_STORED.get(policy_id)
    return NotFound(
        f"no policy {policy_id!r} in this workspace" if why is None else f"{policy_id} is not stored: {why}"
    )
