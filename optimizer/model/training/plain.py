"""A loop's learner: the linear model of ``adf``, and beside it a network where all actions are known by ids alone.

Which of the two serves is found out on the way: both foretell what each choice earns before they learn it, and the
network serves once it has clearly foretold better.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from optimizer.model.adf import AdfModel
from optimizer.model.artifact import unpack
from optimizer.model.plain import FEATURED, Plain, key_of, told
from optimizer.model.training.adf import AdfOptions, AdfRow, AdfTrainer
from storage.records import JsonObject

if TYPE_CHECKING:
    from optimizer.model.training.kway import KwayLearner

#: More actions than this are no plain problem; rows that are kept at most, the newer half stays.
MOST_ACTIONS, MOST_ROWS = 100, 50_000
#: Foretold rewards that the two are compared by: the latest, so many at least, and how sure it must be (z).
LATEST, LEAST, CLEAR = 5_000, 200, 1.0
#: By so much the root of the rows that are learned may grow at one fit, which bounds its time: steps go by that root. A
#: log of 50,000 rows that is read again is learned in five fits.
PACE = 50.0


class LoopTrainer(AdfTrainer):
    """Learns as rows come in. Not for use by two threads at once."""

    def __init__(
        self,
        options: AdfOptions | None = None,
        start: AdfModel | None = None,
        *,
        network: bool = True,
        plain: Plain | None = None,
    ) -> None:
        """See ``AdfTrainer``.

        Args:
            network: whether there may be one. plain: that serves until this trainer's own is ready and has been judged.
        """
        super().__init__(options, start)
        self._plain = PlainLearner(self.options.seed, applies=network)
        self._serving = plain
        self._fitted: AdfModel | None = None

    def remember(self, rows: Iterable[AdfRow]) -> None:
        """Takes in for the network alone what ``start`` has learned."""
        self._plain.add(rows)

    def add(self, rows: Iterable[AdfRow]) -> None:
        """Takes rows in; ``fit`` learns from them."""
        new = list(rows)
        if self._fitted is not None and self._plain.ready:
            latest = new[-LATEST:]
            self._plain.judge(latest, np.array([self._foretold(self._fitted, row) for row in latest]))
        self._plain.add(new)
        super().add(new)

    def fit(self, facts: JsonObject | None = None) -> AdfModel:
        """The model of all rows taken in so far."""
        self._fitted = model = super().fit(facts)
        own = self._plain.fit()
        if not self._plain.applies or (self._plain.ready and self._plain.judged):
            self._serving = own
        model.plain = self._serving
        return model

    def _foretold(self, model: AdfModel, row: AdfRow) -> float:
        columns, values, _ = self._encoded(row)
        return float(values @ model.means(columns))


class PlainLearner:
    """The network of a loop, as long as each row is of an action without features and of a reward in [0, 1]."""

    def __init__(self, seed: int, *, applies: bool = True) -> None:
        self.applies = applies
        self._seed = seed
        self._rows: list[tuple[dict[str, float | str | bool], int, float]] = []
        self._learner: KwayLearner | None = None
        self._place: dict[int, int] = {}
        self._learned = 0
        self._gains: deque[float] = deque(maxlen=LATEST)

    @property
    def ready(self) -> bool:
        """Whether it has learned all that it was told, so that it can be judged."""
        return self._learner is not None and self._learned == len(self._rows)

    @property
    def judged(self) -> bool:
        """Whether there is enough to tell by which of the two foretells better."""
        return len(self._gains) >= LEAST

    @property
    def better(self) -> bool:
        """Whether it has clearly foretold better than the linear model."""
        if not self.judged:
            return False
        gains = np.array(self._gains)
        return float(gains.mean()) > CLEAR * float(gains.std()) / math.sqrt(len(gains))

    def judge(self, rows: Sequence[AdfRow], foretold: NDArray[np.float64]) -> None:
        """Compares what the linear model has foretold of rows (n,), before either learns them, with its own."""
        known = [
            (i, row, place)
            for i, row in enumerate(rows)
            if row.weight == 1.0 and (place := self._place.get(key_of(row.action))) is not None
        ]
        if self._learner is None or not known:
            return
        scores = self._learner.scores([told(row.context) for _, row, _ in known])
        for score, (i, row, place) in zip(scores, known, strict=True):
            self._gains.append((float(foretold[i]) - row.reward) ** 2 - (float(score[place]) - row.reward) ** 2)

    def add(self, rows: Iterable[AdfRow]) -> None:
        """Takes rows in; those of part weight, of what nobody was shown, teach it nothing. One that isn't plain ends
        it."""
        for row in rows:
            if row.weight < 1.0:
                continue
            key = key_of(row.action)
            self.applies = self.applies and key != FEATURED and 0.0 <= row.reward <= 1.0
            if not self.applies:
                return self._forget(0)
            self._rows.append((told(row.context), key, row.reward))
        if len(self._rows) > MOST_ROWS:
            self._forget(MOST_ROWS // 2)
        return None

    def _forget(self, left: int) -> None:
        """Begins anew with the newest rows."""
        self._rows = self._rows[len(self._rows) - left :]
        self._learner, self._place, self._learned = None, {}, 0

    def fit(self) -> Plain | None:
        """What serves; None = the linear model does."""
        new = self._rows[self._learned : int((math.sqrt(self._learned) + PACE) ** 2)]
        for _, key, _ in new:
            self._place.setdefault(key, len(self._place))
        if len(self._place) > MOST_ACTIONS:
            self.applies = False
            self._forget(0)
        if len(self._place) < 2:
            return None
        if self._learner is None:
            self._learner = _learner(len(self._place), self._seed)
        elif len(self._place) > self._learner.actions:
            self._learner.admit(len(self._place) - self._learner.actions)
        self._learned += len(new)
        action = np.array([self._place[key] for _, key, _ in new], np.int64)
        self._learner.learn([context for context, _, _ in new], action, np.array([reward for *_, reward in new]))
        if not self.better:
            return None
        graph, _, meta = unpack(self._learner.export())
        return Plain(graph, {**meta, "keys": [*self._place]})


def _learner(actions: int, seed: int) -> KwayLearner:
    from optimizer.model.training.kway import KwayLearner  # brings ONNX's own library, which workers do without

    return KwayLearner(actions, seed=seed)
