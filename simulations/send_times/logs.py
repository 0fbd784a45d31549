"""Two public logs of when people do things, and the cohorts that are compared, frozen here with their reasons.

``completejourney``: baskets of a grocer's households. ``enron``: e-mails that people of one company sent. Filters move
hit rates by .04, so what counts is fixed before anything is fitted, and no option changes it:

* An event is a basket, and an e-mail whatever the number of its recipients (one row of the file each).
* A history is cut in the middle by number, the odd event to the first half: the past a service has, and what came then.
* Households count from 20 baskets on and people from 50 e-mails on: at least 10 and 25 events to learn from, and
  not many fewer people than have any history (936 of 2,377 and 90 of 181).
* What is true of people in general is learned from the first halves of the cohort, by every way of choosing.
* Clocks are as the files have them, and so are their faults: nobody's own clock is known. The baskets are in UTC, and
  where the clocks of New York changed in 2017 they move by an hour; so a second table has them in New York's time.
  In the e-mails some people's clocks jump by hours within the year 2001.
* Everyone weighs the same, whatever the number of their events.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.localtime import zone
from optimizer.errors import ConfigError, Invalid

Ints = NDArray[np.int64]

#: Least events of a history.
BASKETS, MAILS = 20, 50
#: Where the households live: the clock changes of the file are those of the east of the United States.
HOUSEHOLDS = "America/New_York"


@dataclass(frozen=True)
class Histories:
    """What n people did when.

    Attributes:
        name: of the log.
        first, second: the halves of each history: (k,) local seconds each, ascending.
    """

    name: str
    first: tuple[Ints, ...]
    second: tuple[Ints, ...]

    def __len__(self) -> int:
        return len(self.first)

    def earlier(self) -> Histories:
        """The first halves cut once more: where settings are chosen, out of sight of the second halves."""
        return Histories(self.name, *_halves(self.first))


def logs(data: Path) -> list[Histories]:
    """The cohorts of every table, from the folder that holds both logs.

    Raises:
        ConfigError: a file is missing.
        Invalid: a row can't be read; names its line and what is allowed.
    """
    households, baskets = _baskets(data)
    senders, mails = _mails(data)
    return [
        histories("completejourney", households, baskets, BASKETS),
        histories("enron", senders, mails, MAILS),
        histories("completejourney, New York's time", households, in_zone(baskets, HOUSEHOLDS), BASKETS),
    ]


def histories(name: str, person: Ints, at: Ints, least: int) -> Histories:
    """The histories of everyone with at least so many events, of people (m,) and moments (m,)."""
    order = np.lexsort((at, person))
    starts = np.flatnonzero(np.diff(person[order], prepend=-1))
    return Histories(name, *_halves([one for one in np.split(at[order], starts[1:]) if len(one) >= least]))


def in_zone(at: Ints, name: str) -> Ints:
    """Instants (m,) on the wall clocks of a zone."""
    there = zone(name)
    return np.array([second + there.offset(second) for second in at.tolist()], dtype=np.int64)


def _halves(whole: Sequence[Ints]) -> tuple[tuple[Ints, ...], tuple[Ints, ...]]:
    middle = [(len(one) + 1) // 2 for one in whole]
    return (
        tuple(one[:cut] for one, cut in zip(whole, middle, strict=True)),
        tuple(one[cut:] for one, cut in zip(whole, middle, strict=True)),
    )


def _baskets(data: Path) -> tuple[Ints, Ints]:
    """Household and moment of every basket, once."""
    seen: dict[str, tuple[int, int]] = {}
    columns = ("household_id", "basket_id", "transaction_timestamp")
    for line, (household, basket, at) in _rows(data, "completejourney/transactions_sample.csv.gz", columns):
        seen[basket] = (_number(household, line, columns[0]), _moment(at, line, columns[2]))
    person, moment = np.array(list(seen.values()), dtype=np.int64).reshape(-1, 2).T
    return person, moment


def _mails(data: Path) -> tuple[Ints, Ints]:
    """Sender and moment of every e-mail, once; an e-mail to several people has several rows."""
    columns = ("from", "time")
    rows = {
        (_number(sender, line, columns[0]), _moment(at, line, columns[1]))
        for line, (sender, at) in _rows(data, "enron_times/enron_times.csv.gz", columns)
    }
    person, moment = np.array(sorted(rows), dtype=np.int64).reshape(-1, 2).T
    return person, moment


def _rows(data: Path, place: str, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Line number and wanted columns of every row."""
    path = data / place
    if not path.is_file():
        raise ConfigError(f"--data {data}: has no {place}", errors={"data": [f"no {place}"]})
    with gzip.open(path, "rb") as packed:
        table = csv.DictReader(io.TextIOWrapper(packed, encoding="utf-8", newline=""))
        missing = [column for column in columns if column not in (table.fieldnames or ())]
        if missing:
            raise Invalid.field(f"line 1.{missing[0]}", f"is no column of {place}; its columns: {table.fieldnames}")
        for line, row in enumerate(table, start=2):
            yield line, [row[column] for column in columns]


def _number(text: str, line: int, column: str) -> int:
    try:
        return int(text)
    except (TypeError, ValueError):
        raise Invalid.field(f"line {line}.{column}", f"{text!r}; allowed: a whole number") from None


def _moment(text: str, line: int, column: str) -> int:
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
    except (TypeError, ValueError):
        raise Invalid.field(f"line {line}.{column}", f"{text!r}; allowed: a date and time") from None
