"""A loop without HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from optimizer.config import Settings
from optimizer.model.adf import Action
from optimizer.service import setup
from optimizer.service.personalizer import feedback, ranking
from optimizer.service.personalizer.learning import LoopLearner
from optimizer.service.personalizer.ranking import RankRequest, Slot
from optimizer.service.wiring import Services, open_services
from storage.ranks import Rank, RankModel
from tests.web.conftest import StillClock

ACTIONS = tuple(Action(name, ({"topic": name},)) for name in "abc")


@dataclass
class Bench:
    """Services, a clock, a learner."""

    services: Services
    clock: StillClock
    learner: LoopLearner = field(default_factory=LoopLearner)
    count: int = 0

    def rank(self, likes: str = "a") -> Rank:
        self.count += 1
        request = RankRequest(ACTIONS, (Slot(""),), ({"likes": likes},), f"e{self.count}")
        return ranking.rank(self.services, "w", request)

    def play(self, rounds: int) -> float:
        """Ranks and rewards at once: 1 where the reader gets what they like. The share of that."""
        earned = 0.0
        for n in range(rounds):
            likes = "abc"[n % 3]
            rank = self.rank(likes)
            reward = float(rank.actions[rank.slots[0].chosen].id == likes)
            feedback.reward(self.services, "w", rank.event_id, [("", reward)])
            self.clock.forward(seconds=1)
            earned += reward
        return earned / rounds

    def learn(self) -> bool:
        return self.learner.refresh(self.services, "w")

    @property
    def stored(self) -> RankModel | None:
        with self.services.store.read() as reader:
            return reader.rank_model("w")


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    clock = StillClock()
    services = open_services(Settings(database=database), clock, "loop-tests", watch=False)
    setup.ensure_workspace(services, "w")
    yield Bench(services, clock)
    services.close()
