"""The Hillstrom e-mail experiment: 64,000 customers, each sent one of two e-mails or none at random (1/3 each).

Source: K. Hillstrom, "The MineThatData E-Mail Analytics And Data Mining Challenge", 2008. The file is read from where
it lies; nothing of it is kept in the project.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import ConfigError, Invalid
from storage.records import JsonObject

#: What a customer was assigned, in the order of ``Customers.assigned``; None = no e-mail.
ARMS: tuple[str | None, ...] = ("mens", "womens", None)
ARM_NAMES = ("Mens E-Mail", "Womens E-Mail", "No E-Mail")
#: The probability of each assignment, by the design of the experiment.
PROPENSITY = 1 / 3

_PLACES = ("hillstrom/hillstrom.csv.gz", "hillstrom.csv.gz", "hillstrom/hillstrom.csv", "hillstrom.csv")
_NUMBERS = ("recency", "history")
_SWITCHES = ("mens", "womens", "newbie")
_WORDS = ("history_segment", "zip_code", "channel")


@dataclass(frozen=True)
class Customers:
    """n customers of the experiment.

    Attributes:
        contexts: what is known of each before the e-mail.
        assigned: (n,) int64 index into ``ARMS``: what each was sent.
        visit: (n,) float64, 1 where the customer came to the site in the two weeks after.
    """

    contexts: Sequence[JsonObject]
    assigned: NDArray[np.int64]
    visit: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.contexts)

    def take(self, index: NDArray[np.int64]) -> Customers:
        """The customers at ``index``, in that order."""
        return Customers([self.contexts[i] for i in index.tolist()], self.assigned[index], self.visit[index])

    def shuffled(self, rng: np.random.Generator) -> Customers:
        """The same customers with their outcomes dealt out anew: nothing that was sent can have mattered."""
        return replace(self, visit=rng.permutation(self.visit))


def load(data: Path) -> Customers:
    """Reads the experiment.

    Args:
        data: the file itself, the folder that holds it, or the folder above.

    Raises:
        ConfigError: there is no such file.
        Invalid: a row can't be read; names its line, the column and what is allowed.
    """
    path = _find(data)
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    rows = csv.DictReader(io.StringIO(text, newline=""))
    parsed = [_parse(row, line) for line, row in enumerate(rows, start=2)]
    if not parsed:
        raise Invalid(f"{path}: has no rows")
    return Customers(
        contexts=[context for context, _, _ in parsed],
        assigned=np.array([arm for _, arm, _ in parsed], dtype=np.int64),
        visit=np.array([visit for _, _, visit in parsed], dtype=np.float64),
    )


def _find(data: Path) -> Path:
    if data.is_file():
        return data
    for place in _PLACES:
        if (data / place).is_file():
            return data / place
    raise ConfigError(f"--data {data}: holds none of {', '.join(_PLACES)}", errors={"data": ["no Hillstrom file"]})


def _parse(row: dict[str, str | Any], line: int) -> tuple[JsonObject, int, int]:
    def refuse(column: str, allowed: str) -> Invalid:
        return Invalid.field(f"line {line}.{column}", f"{row.get(column)!r}; allowed: {allowed}")

    context: dict[str, Any] = {}
    for column in _NUMBERS:
        try:
            context[column] = float(row[column])
        except (KeyError, TypeError, ValueError):
            raise refuse(column, "a number") from None
    for column in (*_SWITCHES, "visit"):
        if row.get(column) not in ("0", "1"):
            raise refuse(column, "0 or 1")
    context.update({column: row[column] == "1" for column in _SWITCHES})
    for column in _WORDS:
        if not row.get(column):
            raise refuse(column, "a word")
        context[column] = row[column]
    if row.get("segment") not in ARM_NAMES:
        raise refuse("segment", ", ".join(ARM_NAMES))
    return context, ARM_NAMES.index(row["segment"]), int(row["visit"])
