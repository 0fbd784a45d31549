"""Two made-up audiences for a Personalizer client. What a round holds is the same whoever plays it.

- ``shop``: ten products with features, four of which matter; the chance of a purchase is logistic in interactions of
  context and product, of a context with a product's own id, and in a wave over age.
- ``news``: up to fifty articles a round out of a pool that changes all the time, so that ids come and go and features
must
  carry what was learned; tastes for topics, for video by device, for what is fresh.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Round:
    """A round: what is known, what may be shown, and the chance of a reward of 1 for each (K,)."""

    context: dict[str, Any]
    ids: tuple[str, ...]
    features: tuple[dict[str, Any], ...]
    chance: NDArray[np.float64]


class Audience(Protocol):
    """Rounds without end; the first action of each is what the application would show by itself."""

    def rounds(self) -> Iterator[Round]:
        """The rounds of this audience; always the same ones."""


class _Tastes:
    """Effects, drawn when they are first asked for."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._known: dict[tuple[Any, ...], float] = {}

    def __call__(self, scale: float, *of: Any) -> float:
        if of not in self._known:
            self._known[of] = scale * float(self._rng.normal())
        return self._known[of]


def logistic(score: float) -> float:
    """1 / (1 + exp(-score))."""
    return float(1.0 / (1.0 + np.exp(-score)))


class Shop:
    """See the module."""

    _CONTEXT: ClassVar[dict[str, tuple[str, ...]]] = {
        "device": ("mobile", "desktop", "tablet"),
        "segment": ("new", "casual", "loyal", "vip"),
        "daypart": ("morning", "noon", "evening", "night"),
        "country": ("DE", "FR", "US", "GB", "IN"),
        "browser": ("a", "b", "c", "d"),
    }
    _CATEGORIES = ("sport", "tech", "food", "home")

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([1, seed])
        self._taste = _Tastes(np.random.default_rng([2, seed]))
        self._products = [
            {
                "category": str(self._rng.choice(self._CATEGORIES)),
                "tone": str(self._rng.choice(("fun", "formal", "plain"))),
                "price": round(float(self._rng.uniform(5, 200)), 2),
            }
            for _ in range(10)
        ]

    def rounds(self) -> Iterator[Round]:
        """See ``Audience``."""
        ids = tuple(f"product-{n}" for n in range(len(self._products)))
        while True:
            context = {name: str(self._rng.choice(values)) for name, values in self._CONTEXT.items()}
            person = {**context, "age": int(self._rng.integers(18, 80))}
            chance = np.array([logistic(self._score(person, n)) for n in range(len(ids))])
            yield Round({"user": person}, ids, tuple(self._products), chance)

    def _score(self, person: dict[str, Any], n: int) -> float:
        product, taste = self._products[n], self._taste
        wave = np.sin(person["age"] / 10 + self._CATEGORIES.index(product["category"]))
        return float(
            -1.0
            + taste(0.5, "id", n)
            + taste(0.3, product["category"])
            + taste(0.8, person["segment"], product["category"])
            + taste(0.5, person["device"], product["tone"])
            + taste(0.5, person["daypart"], n)
            + 0.8 * wave
        )


class News:
    """See the module."""

    _TOPICS = ("sport", "politics", "tech", "health", "travel", "culture", "money", "crime", "food", "science")
    _POOL, _SHOWN, _EVERY = 60, 50, 50

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([3, seed])
        self._taste = _Tastes(np.random.default_rng([4, seed]))
        self._pool = {n: self._article() for n in range(self._POOL)}
        self._next = self._POOL

    def _article(self) -> dict[str, Any]:
        rng = self._rng
        return {
            "topic": str(rng.choice(self._TOPICS)),
            "source": str(rng.choice(tuple("ABCDEFGH"))),
            "words": int(rng.integers(100, 3000)),
            "video": bool(rng.random() < 0.3),
            "hours": round(float(rng.exponential(10)), 1),
            "appeal": float(rng.normal() * 0.4),  # nobody but the reader knows it
        }

    def rounds(self) -> Iterator[Round]:
        """See ``Audience``."""
        number = 0
        while True:
            number += 1
            if number % self._EVERY == 0:
                del self._pool[min(self._pool)]
                self._pool[self._next] = self._article()
                self._next += 1
            yield self._round()

    def _round(self) -> Round:
        rng = self._rng
        reader = {
            "favourite": str(rng.choice(self._TOPICS)),
            "second": str(rng.choice(self._TOPICS)),
            "device": str(rng.choice(("mobile", "desktop", "tablet"))),
            "daypart": str(rng.choice(("morning", "noon", "evening"))),
            "visits": int(rng.poisson(6)),
            "plan": str(rng.choice(tuple("abcdefgh"))),
        }
        shown = rng.permutation(sorted(self._pool))[: self._SHOWN].tolist()
        articles = [self._pool[n] for n in shown]
        features = tuple({k: v for k, v in article.items() if k != "appeal"} for article in articles)
        chance = np.array([logistic(self._score(reader, article)) for article in articles])
        return Round({"reader": reader}, tuple(f"article-{n}" for n in shown), features, chance)

    def _score(self, reader: dict[str, Any], article: dict[str, Any]) -> float:
        taste = self._taste
        score = -2.8 + article["appeal"] - 0.04 * article["hours"]
        score += taste(0.3, "topic", article["topic"]) + taste(0.3, "source", article["source"])
        score += 1.6 * (article["topic"] == reader["favourite"]) + 0.8 * (article["topic"] == reader["second"])
        score += taste(0.5, reader["device"], article["video"]) + taste(0.5, reader["daypart"], article["topic"])
        return float(score - 0.4 * (reader["device"] == "mobile" and article["words"] > 1500))


def audience(kind: str, seed: int) -> Audience:
    """The audience of that name."""
    return Shop(seed) if kind == "shop" else News(seed)
