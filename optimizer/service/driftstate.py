"""What is known of a campaign's drift after a look: kept with the run as JSON, and read by whoever tells of alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from optimizer.bandit.drift import Detectors
from optimizer.bandit.evidence import Replays
from optimizer.service.featureblocks import Block
from storage.records import JsonObject

#: An alarm ends after this many rows without another.
QUIET_ROWS = 1_000


@dataclass(frozen=True)
class Alarm:
    """Something has changed.

    Attributes:
        what: the detector.
        noticed: time of the look, in epoch seconds; changed: estimated time of the change.
        row: the row, counted from the first that was ever compared (drawn, for propensities), at which it crossed;
            latest: at which it last did.
        figure: what was compared with ``limit``.
    """

    what: str
    noticed: float
    changed: float
    row: int
    latest: int
    figure: float
    limit: float


@dataclass(frozen=True)
class Drift:
    """What is known of a campaign after a look.

    Attributes:
        detectors: of calibration and propensities.
        centres: outcome -> (count, sum) of predicted logits so far.
        block: the feature block that is being filled.
        matured: (time, decision id) of the last row that was compared with its prediction.
        decided: the same of the last row whose draw and context were looked at.
        since: decisions older than this have all been seen.
        rows: rows compared with their predictions so far; drawn: rows whose draws were looked at.
        replays: how their propensities replay; more of them off than rounding explains is an alarm at once.
        alarms: those that stand.
        changed: estimated time of the last change of outcomes (see ``footing``, ``forgetting``); None = none.
        features: feature -> (stability index, limit) in the last full block.
    """

    detectors: Detectors
    block: Block
    centres: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    matured: tuple[float, str] = (0.0, "")
    decided: tuple[float, str] = (0.0, "")
    since: float = 0.0
    rows: int = 0
    drawn: int = 0
    replays: Replays = field(default_factory=Replays)
    alarms: tuple[Alarm, ...] = ()
    changed: float | None = None
    features: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def raised(self) -> bool:
        """Whether exploration is raised: outcomes or features have changed. Broken propensities need a repair."""
        return any(not alarm.what.startswith("propensities") for alarm in self.alarms)

    @property
    def miscalibrated(self) -> bool:
        """Whether outcomes still come otherwise than predicted."""
        return any(alarm.what.startswith("calibration") for alarm in self.alarms)

    def to_json(self) -> dict[str, Any]:
        """For the run's verdict; ``from_json`` gives an equal one."""
        return {**asdict(self), "block": self.block.to_json()}

    def told(self) -> dict[str, Any]:
        """What people are told of the alarms that stand."""
        return {
            "alarms": [
                {**asdict(alarm), "noticed": _moment(alarm.noticed), "changed": _moment(alarm.changed)}
                for alarm in self.alarms
            ],
            "changed": None if self.changed is None else _moment(self.changed),
        }

    @classmethod
    def from_json(cls, data: JsonObject) -> Drift:
        """What ``to_json`` wrote."""
        d = data["detectors"]
        detectors = Detectors(tuple(d["names"]), tuple(d["value"]), tuple(d["since"]), float(d["limit"]))
        return cls(
            **{
                **data,
                "detectors": detectors,
                "block": Block.from_json(data["block"]),
                "centres": {name: (int(n), float(total)) for name, (n, total) in data["centres"].items()},
                "matured": _key(data["matured"]),
                "decided": _key(data["decided"]),
                "replays": Replays.from_json(data.get("replays")),
                "alarms": tuple(Alarm(**alarm) for alarm in data["alarms"]),
                "features": {name: (float(x), float(y)) for name, (x, y) in data.get("features", {}).items()},
            }
        )


def quiet_left(alarm: Alarm, state: Drift) -> int | None:
    """How many more rows an alarm stands unless it is heard again, at least 0; None = it ends with a feature block.

    Rows are counted as the alarm counts them: draws for propensities, else rows compared with their predictions.
    """
    if alarm.what.startswith("features"):
        return None
    count = state.drawn if alarm.what.startswith("propensities") else state.rows
    return max(0, QUIET_ROWS - (count - alarm.latest))


def _key(pair: Sequence[Any]) -> tuple[float, str]:
    return float(pair[0]), str(pair[1])


def _moment(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat()
