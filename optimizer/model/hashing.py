"""Stable hashing of words and categories into a few signed buckets; the same on every machine and in every process."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from hashlib import blake2b
from itertools import pairwise
from unicodedata import category, normalize

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+", re.UNICODE)
#: Thai and Lao, Burmese, Khmer, kana, Chinese characters: written without spaces between words.
_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_PICTURE = "[\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff][\U0001f3fb-\U0001f3ff]*"
#: A flag, or pictures with their skin tones and joined to one.
_EMOJI = f"[\U0001f1e6-\U0001f1ff]{{2}}|{_PICTURE}(?:\u200d{_PICTURE})*"
#: Asks for a coloured picture where there are two: the same emoji to who reads it.
_COLOURED = "\ufe0f"
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


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What finds a run without spaces (its group), an emoji or a word; and each letter of a run.

    Marks are what combines with the letter before it, as vowels do in Hindi, and joiners of letters. Made when a text
    first needs them: it takes 70 ms. All marks lie in the first two planes but for those that choose a glyph's form.
    """
    signs = (re.escape(chr(c)) for c in range(0x20000) if category(chr(c)).startswith("M"))
    marks = "".join(signs) + "\u200c\u200d"
    run = f"([{_UNSPACED}][{_UNSPACED}{marks}]*)"
    word = f"[^\\W{_UNSPACED}](?:[^\\W{_UNSPACED}]|[{marks}])*"
    return re.compile(f"{run}|{_EMOJI}|{word}"), re.compile(f"[^{marks}][{marks}]*")


def words_of(text: str) -> list[str]:
    """The words of a text in any script, in order, in lower case; an emoji is one.

    A script without spaces between words gives pairs of letters instead. However a letter with an accent is stored, it
    is the same.
    """
    if text.isascii():
        return [word.lower() for word in _WORD.findall(text)]
    token, letter = _patterns()
    words: list[str] = []
    for match in token.finditer(normalize("NFC", text).replace(_COLOURED, "")):
        run = match[1]
        if run is None:
            words.append(match[0].lower())
        else:
            letters = letter.findall(run)
            words += map("".join, pairwise(letters)) if len(letters) > 1 else letters
    return words


def text_tokens(text: str) -> list[tuple[str, float]]:
    """The words and word pairs of a text, with repetitions, each with weight 1."""
    words = words_of(text)[:MAX_WORDS]
    return [(word, 1.0) for word in words] + [(f"{a} {b}", 1.0) for a, b in pairwise(words)]


def text_vector(text: str, buckets: int) -> NDArray[np.float64]:
    """Hashed words and word pairs of a text, scaled to unit length (zero for a text without words)."""
    vector = hash_tokens(text_tokens(text), buckets)
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm > 0 else vector
