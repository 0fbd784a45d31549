"""Our estimators agree with those of vw-estimators, which is asked here, and of obp, whose answers for rows of a shop's
log with true propensities are kept in ``data``: it asks for versions of Python that are older than ours.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from estimators.bandits import cressieread, gaussian
from estimators.bandits import ips as vw_ips
from estimators.bandits import snips as vw_snips
from numpy.typing import NDArray
from scipy.stats import beta

from optimizer.bandit.cressieread import Bounds, cressie_read, cressie_read_interval, student_quantile
from optimizer.bandit.ope import direct, doubly_robust, importance_weight, ips, snips, switch_dr

DATA = Path(__file__).parent / "data"


class Table(NamedTuple):
    """A log and what a policy would have done, ``(rows,)`` each."""

    propensity: NDArray[np.float64]
    target: NDArray[np.float64]
    reward: NDArray[np.float64]
    bounds: Bounds

    @property
    def weight(self) -> NDArray[np.float64]:
        return importance_weight(self.target, self.propensity)

    def tell(self, estimator: Any) -> Any:
        """One of vw-estimators' once it has seen all rows."""
        for row in np.column_stack([self.propensity, self.reward, self.target]).tolist():
            estimator.add_example(*row)
        return estimator


def made_up(seed: int, rows: int, bounds: Bounds, rewarded: float = 0.4) -> Table:
    """A policy that never does what a third of the log's rows did; a share ``rewarded`` of rows has a reward, any
    within the bounds where these aren't 0 and 1."""
    rng = np.random.default_rng(seed)
    low, high = bounds.reward
    amount = np.full(rows, high) if (low, high) == (0.0, 1.0) else rng.uniform(low, high, rows)
    return Table(
        propensity=rng.uniform(0.05, 1.0, rows),
        target=rng.uniform(0.0, 1.0, rows) * (rng.random(rows) < 2 / 3),
        reward=amount * (rng.random(rows) < rewarded),
        bounds=bounds,
    )


BINARY = Bounds((0.0, 1.0), (0.0, 20.0))
TABLES = {
    "clicks": made_up(0, 40, BINARY),
    "weights without a bound": made_up(1, 40, Bounds((0.0, 1.0))),
    "amounts": made_up(2, 25, Bounds((-1.0, 5.0), (0.0, 40.0))),
    "few clicks": made_up(3, 400, BINARY, rewarded=0.02),
    "nothing clicked": made_up(4, 30, BINARY, rewarded=0.0),
    "all clicked": made_up(5, 30, BINARY, rewarded=1.0),
    "the log's own policy, nearly": (clicks := made_up(6, 60, BINARY))._replace(target=clicks.propensity * 0.99),
}
ONE_ROW = Table(np.array([0.51]), np.array([0.977]), np.array([1.0]), Bounds((0.0, 1.0)))

each_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
each_error = pytest.mark.parametrize("error", [0.05, 0.01])


@pytest.mark.parametrize("table", [*TABLES.values(), ONE_ROW], ids=[*TABLES.keys(), "one row"])
def test_values_agree(table: Table) -> None:
    found = (
        ips(table.reward, table.weight).value,
        snips(table.reward, table.weight).value,
        cressie_read(table.reward, table.weight, table.bounds),
    )
    theirs = (vw_ips.Estimator(), vw_snips.Estimator(), cressieread.Estimator(*table.bounds.weight))
    assert found == pytest.approx([table.tell(estimator).get() for estimator in theirs], rel=1e-10, abs=1e-12)


@each_table
@each_error
def test_normal_intervals_agree(table: Table, error: float) -> None:
    found = ips(table.reward, table.weight, level=1 - error)
    theirs = table.tell(gaussian.Interval()).get(error)
    assert (found.low, found.high) == pytest.approx(theirs, rel=1e-10, abs=1e-12)


@each_table
@each_error
def test_cressie_read_intervals_agree(table: Table, error: float) -> None:
    """Not on the table of one row: where the discriminant is 0 theirs moves an end by 1.4e-9, its own tolerance."""
    found = cressie_read_interval(table.reward, table.weight, table.bounds, 1 - error)
    theirs = table.tell(cressieread.Interval(*table.bounds.weight, *table.bounds.reward)).get(error)
    assert found == pytest.approx(theirs, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize(
    ("freedom", "level", "quantile"),
    [
        (1, 0.95, 12.706204736174694),
        (2, 0.95, 4.302652729749462),
        (3, 0.99, 5.840909309733355),
        (10, 0.95, 2.228138851986274),
        (400, 0.99, 2.5881760800347395),
        (401, 0.99, 2.588145151766536),
        (1_000_000, 0.95, 1.959966356814107),
    ],
)
def test_students_quantile(freedom: int, level: float, quantile: float) -> None:
    """Against scipy.stats.t 1.17."""
    assert student_quantile(level, freedom) == pytest.approx(quantile, rel=1e-10)


def test_an_interval_without_any_reward_is_no_point() -> None:
    weight = np.tile([0.5, 1.5], 50)
    low, high = cressie_read_interval(np.zeros(100), weight, Bounds((0.0, 1.0), (0.0, 10.0)))
    assert low == 0.0
    assert 0.01 < high < 1.0


def test_a_reward_without_spread_is_known() -> None:
    weight = np.tile([0.5, 1.5], 2_000)
    low, high = cressie_read_interval(np.full(4_000, 0.5), weight, Bounds((0.0, 1.0), (0.0, 4.0)))
    assert low < 0.5 < high
    assert high - low < 0.02


def test_coverage_is_at_least_what_is_stated() -> None:
    """400 logs of 300 rows with a value of .2: at a true coverage of .95 fewer than 367 covered have a probability of
    .004 (binomial), and the seed is fixed."""
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        taken = rng.random(300) < 0.25  # the logged action is the policy's in a quarter of the rows
        reward = (rng.random(300) < np.where(taken, 0.2, 0.6)).astype(float)
        low, high = cressie_read_interval(reward, np.where(taken, 4.0, 0.0), Bounds((0.0, 1.0), (0.0, 4.0)))
        covered += low <= 0.2 <= high
    assert covered >= 367


@pytest.mark.parametrize(("rewarded", "of"), [(0, 3), (3, 3), (1, 2), (45, 50), (49, 50), (7, 3_000)])
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_what_a_log_tells_of_the_policy_that_made_it_is_clopper_and_pearsons(
    rewarded: int, of: int, level: float
) -> None:
    """Not a point either where nothing was rewarded, or all was."""
    reward = np.repeat([2.0, -1.0], [rewarded, of - rewarded])
    error = (1 - level) / 2
    low = beta.ppf(error, rewarded, of - rewarded + 1) if rewarded else 0.0
    high = beta.ppf(1 - error, rewarded + 1, of - rewarded) if rewarded < of else 1.0
    found = cressie_read_interval(reward, np.ones(of), Bounds((-1.0, 2.0)), level)
    assert found == pytest.approx((3 * low - 1, 3 * high - 1), rel=1e-10)
    assert found[0] < found[1]


def test_of_the_policy_that_made_the_log_coverage_is_at_least_what_is_stated() -> None:
    """300 logs of 50 rows with a value of .9: at a true coverage of .95 fewer than 274 covered have a probability of
    .003 (binomial), and the seed is fixed."""
    rng = np.random.default_rng(9)
    covered = 0
    for _ in range(300):
        low, high = cressie_read_interval((rng.random(50) < 0.9).astype(float), np.ones(50), Bounds((0.0, 1.0)))
        covered += low <= 0.9 <= high
    assert covered >= 274


def test_of_the_policy_that_made_the_log_rewards_that_are_alike_leave_room_for_others() -> None:
    """Others are seldom, not impossible: one of them comes in 1,000 rows nearly surely where they are 1 in 271."""
    low, high = cressie_read_interval(np.full(1_000, 0.25), np.ones(1_000), Bounds((0.0, 1.0)))
    assert (low, high) == pytest.approx((0.25 - 0.25 / 271.6, 0.25 + 0.75 / 271.6), rel=1e-5)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (((1.0, 0.0), (0.0, 5.0)), "reward"),
        (((0.0, math.inf), (0.0, 5.0)), "reward"),
        (((0.0, 1.0), (1.0, 5.0)), "weight"),
        (((0.0, 1.0), (-1.0, 5.0)), "weight"),
        (((0.0, 1.0), (0.0, 1.0)), "weight"),
    ],
)
def test_bounds_that_cannot_be_are_refused(
    bounds: tuple[tuple[float, float], tuple[float, float]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Bounds(*bounds)


@pytest.mark.parametrize(
    ("reward", "weight", "message"),
    [
        ([2.0], [1.0], "reward: row 0 is 2.0"),
        ([1.0], [9.0], "weight: row 0 is 9.0"),
        ([float("nan")], [1.0], "reward: row 0"),
        ([], [], "n at least 1"),
        ([1.0], [1.0, 1.0], "shape"),
    ],
)
def test_rows_outside_their_bounds_are_refused(reward: list[float], weight: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cressie_read_interval(reward, weight, Bounds((0.0, 1.0), (0.0, 5.0)))


def test_estimates_of_a_real_log_agree_with_obps() -> None:
    """3,000 views of a shop's items, 29 clicked: what showing all items alike would have been worth."""
    log = json.loads((DATA / "obp.json").read_text(encoding="utf-8"))
    theirs = log["estimate"]
    reward = np.zeros(len(log["item"]))
    reward[log["clicked"]] = 1.0
    weight = importance_weight(np.full(reward.size, 1 / log["items"]), log["propensity"])
    predicted = np.array(log["predicted"])
    q_logged, q_policy = predicted[log["item"]], np.full(reward.size, predicted.mean())
    assert ips(reward, weight).value == pytest.approx(theirs["ips"], rel=1e-10)
    assert snips(reward, weight).value == pytest.approx(theirs["snips"], rel=1e-10)
    assert direct(q_policy).value == pytest.approx(theirs["direct"], rel=1e-10)
    assert doubly_robust(reward, weight, q_logged, q_policy).value == pytest.approx(theirs["doubly_robust"], rel=1e-10)
    for threshold, value in theirs["switch_dr"].items():
        found = switch_dr(reward, weight, q_logged, q_policy, float(threshold))
        assert found.value == pytest.approx(value, rel=1e-10)
