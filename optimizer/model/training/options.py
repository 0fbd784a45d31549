"""The few numbers of training that ``sendtide tune`` may move; everything else is fixed or learned from the rows."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace

from optimizer.errors import Invalid
from storage.records import JsonObject

#: What each number may be, both ends included. The search keeps to it, and so does what is stored.
RANGES: dict[str, tuple[float, float]] = {
    "shape": (1.0, 12.0),
    "rate": (0.001, 0.1),
    "decay": (0.001, 0.5),
    "margin": (0.0, 3.0),
}

#: Shape and rate where nothing is known yet, and the rows from which on the options' own hold.
WIDE, SETTLED = (1.0, 0.006), 3_000


@dataclass(frozen=True)
class TrainOptions:
    """How a model is trained. The width of exploration is not among them: an off-policy value can't see what it earns.

    Attributes:
        shape, rate: of the Gamma prior on the prior precisions, from ``SETTLED`` rows on; see ``at``. A small rate lets
            a block of weights that is noise be shrunk away. Chosen among six pairs on Hillstrom and three synthetic
            worlds; on 100 Hillstrom samples of 2,000 rows drawn afterwards the cross-fitted gain had a median z of 3.4,
            against 1.9 with (2, .2).
        decay: weight decay of the network.
        margin: paired z of the held-out likelihood from which an encoder's columns are let in; twice that for a
            network's (``gate.NETWORK_SURER``).

    Raises:
        Invalid: a number outside its range in ``RANGES``.
    """

    shape: float = 3.0
    rate: float = 0.01
    decay: float = 0.02
    margin: float = 1.0

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and low <= value <= high):
                raise Invalid.field(f"training.{name}", f"{value!r} is not allowed: expected {low:g} to {high:g}")

    def at(self, rows: int) -> TrainOptions:
        """The options for so many known outcomes: with few of them the prior on the precisions is wider.

        Features that matter a little can't be told from noise by some hundred rows; left out, they are neither used nor
        explored. In two worlds of 504 actions that had no part in choosing it among eight, the greedy choice after 800,
        1,600, 2,400 and 4,000 random rows went .33, .54, .66 and .74 of the way to the oracle with the wide prior, and
        .34, .51, .61 and .75 with the narrow one.
        """
        part = min(1.0, rows / SETTLED)
        shape, rate = (first + part * (last - first) for first, last in zip(WIDE, (self.shape, self.rate), strict=True))
        return replace(self, shape=shape, rate=rate)

    def of_differences(self) -> TrainOptions:
        """The options for what has become different since a change, however few rows tell of it: most has not.

        Chosen on ten audiences; on twenty others, whose liking of two messages by age turned round while all else
        stayed, a model lost .0062 and .0038 nats a row after 500 and 2,000 rows since with these, .0091 and .0043 with
        ``at`` (a refreshed one .0169 and .0051); where nothing had changed a false alarm cost .0003, .0027 with ``at``.
        Where all tastes swap these are dearer at first: on eight logs the greedy choice went .177 and .635 of the way
        to the oracle after 300 and 1,000 rows since, .240 and .668 with ``at``, and .820 for .815 after 2,500.
        """
        return replace(self, rate=max(RANGES["rate"][0], self.rate / 2.0))

    @classmethod
    def from_json(cls, told: JsonObject) -> TrainOptions:
        """Stored options; what is not stored has its default, and a number that this release doesn't know is left."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in told.items() if name in known})

    def to_json(self) -> dict[str, float]:
        """What ``from_json`` reads."""
        return asdict(self)


DEFAULTS = TrainOptions()

#: By how much rows have outgrown what a model was learned from.
OUTGROWN = 1.5


def learned_from(meta: JsonObject) -> int:
    """The rows that a stored model's features and precisions were learned from, by its artifact's meta; of one from
    before models knew, the rows that it knows now."""
    return int(meta.get("learned", meta["rows"]))


def outgrown(rows: int, learned: int) -> bool:
    """Whether so many rows are worth learning features and precisions anew.

    Which features matter is seen little by little. In two worlds of 504 actions a model of 675 rows that went on with
    the precisions of that time was .79 of the way to the oracle after 10,000 decisions, where one that learned them
    anew was at .87 and .93.
    """
    return rows >= OUTGROWN * learned
