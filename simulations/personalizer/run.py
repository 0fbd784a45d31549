"""One run: an audience, a player, a seed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson

from optimizer.config import Settings
from optimizer.service import setup
from optimizer.service.personalizer.arguments import DEFAULT_ARGUMENTS
from optimizer.service.personalizer.learning import LoopLearner
from optimizer.web import create_app
from simulations.baselines.vw import make_workspace, plain
from simulations.clock import SteppingClock
from simulations.personalizer.audiences import Round, audience

START = datetime(2026, 3, 2, 6, tzinfo=UTC)
#: Seconds between ranks, and between the scheduler's looks.
PACE = 1.0
LOOK = 5.0
#  Learning settings of the rivals. The second is the best of twelve by the sum of margins over 8,000 ranks on an
# audience  of each kind that isn't played here (seed 100): SquareCB with gamma 10, 100, 1000 and learning rates .1,
# .5, 2; epsilon
#: .05 with rates .1 and .5; a bag of five.
RIVALS = {
    "vw-default": DEFAULT_ARGUMENTS,
    "vw-squarecb": "--cb_explore_adf --squarecb --gamma_scale 100 --cb_type mtr -l 2 -q ::",
}


@dataclass(frozen=True)
class Outcome:
    """Mean chances of a run: of what was shown, of the first action, of the best; and of the last fifth of it."""

    audience: str
    player: str
    seed: int
    shown: float
    baseline: float
    best: float
    late: float
    late_best: float


class Player(Protocol):
    """Who chooses, and is told the reward."""

    def choose(self, number: int, asked: Round, u: float) -> int:
        """The place of an action; ``u`` in [0, 1) is the player's to draw with."""

    def learn(self, reward: float) -> None:
        """The reward of what was chosen last."""

    def close(self) -> None:
        """The run is over."""


def play(kind: str, name: str, seed: int, rounds: int, progress: Callable[[int], object] | None = None) -> Outcome:
    """Plays one run."""
    luck = np.random.default_rng([5, seed])
    shown, first, best = np.empty(rounds), np.empty(rounds), np.empty(rounds)
    player: Player = Service(seed) if name == "sendtide" else VowpalWabbit(RIVALS[name], seed)
    try:
        for number, asked in enumerate(islice(audience(kind, seed).rounds(), rounds)):
            place = player.choose(number, asked, float(luck.random()))
            shown[number], first[number], best[number] = asked.chance[place], asked.chance[0], asked.chance.max()
            player.learn(float(luck.random() < asked.chance[place]))
            if progress is not None and number % 100 == 0:
                progress(number)
    finally:
        player.close()
    late = slice(-max(rounds // 5, 1), None)
    means = [float(x.mean()) for x in (shown, first, best, shown[late], best[late])]
    return Outcome(kind, name, seed, *means)


class Service:
    """A client of the Personalizer routes, and the scheduler's part in their learning."""

    def __init__(self, seed: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sendtide-study-")
        self._clock = SteppingClock(START)
        database = f"sqlite:///{Path(self._folder.name)}/study.db"
        self._app = create_app(Settings(database=database), clock=self._clock, seed=seed)
        self._services = self._app.extensions["sendtide"].get()
        secret = setup.create_key(self._services, "default", "study", ["decide", "feedback"])[1]
        self._headers = {"Ocp-Apim-Subscription-Key": secret, "Content-Type": "application/json"}
        self._client = self._app.test_client()
        self._learner = LoopLearner()
        self._looked = 0.0
        self._event = ""

    def choose(self, number: int, asked: Round, u: float) -> int:  # noqa: ARG002  the event id seeds the choice
        """See ``Player``."""
        self._event = f"event-{number}"
        actions = [{"id": one, "features": [told]} for one, told in zip(asked.ids, asked.features, strict=True)]
        body = {"contextFeatures": [asked.context], "actions": actions, "eventId": self._event}
        return asked.ids.index(self._post("rank", body)["rewardActionId"])

    def learn(self, reward: float) -> None:
        """See ``Player``."""
        self._post(f"events/{self._event}/reward", {"value": reward})
        self._clock.advance(PACE)
        self._looked += PACE
        if self._looked >= LOOK:
            self._looked = 0.0
            self._learner.refresh(self._services, "default", due_only=True)

    def _post(self, path: str, body: Any) -> Any:
        answer = self._client.post(f"/personalizer/v1.0/{path}", data=orjson.dumps(body), headers=self._headers)
        if answer.status_code not in (201, 204):
            raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text}")
        return orjson.loads(answer.data) if answer.data else None

    def close(self) -> None:
        """See ``Player``."""
        self._app.extensions["sendtide"].close()
        self._folder.cleanup()


class VowpalWabbit:
    """Vowpal Wabbit, told every reward before the next round, which is sooner than Azure Personalizer told it."""

    def __init__(self, arguments: str, seed: int) -> None:
        self._vw = make_workspace(f"{arguments} --random_seed {seed} --quiet")
        self._last: tuple[list[str], int, float] | None = None

    def choose(self, number: int, asked: Round, u: float) -> int:  # noqa: ARG002  every player is told
        """See ``Player``."""
        lines = [f"shared |c {_text(next(iter(asked.context.values())))}"]
        # The id is a feature, too: the service sees it.
        lines += [f"|a id={plain(one)} {_text(told)}" for one, told in zip(asked.ids, asked.features, strict=True)]
        example = self._vw.parse(lines)
        p = np.asarray(self._vw.predict(example), np.float64).clip(0.0)
        self._vw.finish_example(example)
        p /= p.sum()
        place = min(int(p.cumsum().searchsorted(u, side="right")), len(p) - 1)
        self._last = (lines, place, float(p[place]))
        return place

    def learn(self, reward: float) -> None:
        """See ``Player``."""
        assert self._last is not None  # noqa: S101  a round was chosen in
        lines, place, p = self._last
        lines[place + 1] = f"0:{-reward:g}:{max(p, 1e-6):.8g} {lines[place + 1]}"
        example = self._vw.parse(lines)
        self._vw.learn(example)
        self._vw.finish_example(example)

    def close(self) -> None:
        """See ``Player``."""
        self._vw.finish()


def _text(features: dict[str, Any]) -> str:
    """Features as Personalizer gave them to Vowpal Wabbit: numbers as they are, the rest as categories."""
    return " ".join(
        f"{name}:{value}"
        if isinstance(value, int | float) and not isinstance(value, bool)
        else f"{name}={plain(str(value))}"
        for name, value in features.items()
    )
