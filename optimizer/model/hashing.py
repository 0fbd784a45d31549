"""Stable hashing of words and categories into a few signed buckets; the same on every machine and in every process."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+", re.UNICODE)
#: Words of a text that are read; later ones change a message's gist little and cost time.
MAX_WORDS = 200


#: Longer texts (what somebody wrote, an address with its query) are seldom the same twice and are not remembered.
LONGEST_KEPT = 100


def hashed(text: str) -> int:
    """64 bits of a text; the same on every machine and in every process."""
    return _kept(text) if len(text) <= LONGEST_KEPT else _digest(text)


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")


#: Some 20 MiB when it is full.
_kept = lru_cache(maxsize=65_536)(_digest)


def signed_bucket(token: str, buckets: int) -> tuple[int, float]:
    """The bucket in ``[0, buckets)`` and the sign of a token (feature hashing, Weinberger et al. 2009)."""
    digest = hashed(token)
    return (digest >> 1) % buckets, 1.0 if digest & 1 else -1.0


def hash_tokens(tokens: list[tuple[str, float]], buckets: int) -> NDArray[np.float64]:
    """Weighted tokens summed into signed buckets: shape (buckets,)."""
    out = np.zeros(buckets)
    for token, weight in tokens:
        bucket, sign = signed_bucket(token, buckets)
        out[bucket] += sign * weight
    return out


def text_tokens(text: str) -> list[tuple[str, float]]:
    """The words and word pairs of a text, with repetitions, each with weight 1."""
    words = [word.lower() for word in _WORD.findall(text)[:MAX_WORDS]]
    return [(word, 1.0) for word in words] + [(f"{a} {b}", 1.0) for a, b in pairwise(words)]


def text_vector(text: str, buckets: int) -> NDArray[np.float64]:
    """Hashed words and word pairs of a text, scaled to unit length (zero for a text without words)."""
    vector = hash_tokens(text_tokens(text), buckets)
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm > 0 else vector
