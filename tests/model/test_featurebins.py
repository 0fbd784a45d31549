"""How training rows fall into the bins of each feature, by campaign."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optimizer.model.columns import NumberColumn
from optimizer.model.examples import Examples
from optimizer.model.featurebins import MOST_ROWS, UNTOLD_ROWS, counts, expected_shares, own_counts
from optimizer.model.features import fit_spec
from optimizer.model.inference import RewardModel
from optimizer.model.training.train import refresh, train
from tests.model.conftest import made_up

ROWS = 2_000
TWO = made_up(ROWS, 5)
ONE = replace(TWO, campaigns=TWO.campaigns[:1], campaign=np.zeros(ROWS, np.int64))


def bare(examples: Examples, rows: int) -> Examples:
    """As if the first rows had been imported without contexts."""
    return replace(examples, contexts=[{}] * rows + list(examples.contexts[rows:]))


def test_counts_are_the_shares_that_columns_know_of_all_rows() -> None:
    for column in fit_spec(ONE.contexts, []).columns:
        assert counts(column, ONE.contexts) / ROWS == pytest.approx(expected_shares(column), abs=0.01)


def test_a_number_at_a_quantile_counts_in_both_bins_by_a_half() -> None:
    column = NumberColumn("x", 2.0, 1.0, (1.0, 2.0, 3.0), (0.0, 0.5, 1.0), (0.0,) * 4, 0.25)
    found = counts(column, [{"x": 1.0}, {"x": 2.0}, {"x": "3"}, {"x": 9.0}, {}])
    assert found.tolist() == [1.0, 1.5, 2.5]


def test_of_one_campaign_the_columns_say_it_all() -> None:
    assert own_counts(ONE, fit_spec(ONE.contexts, [])) is None
    few = bare(ONE, UNTOLD_ROWS // 2)
    assert own_counts(few, fit_spec(few.contexts, [])) is None


def test_a_campaign_that_does_not_send_a_feature_lacks_it_in_all_of_its_own_rows() -> None:
    rows = replace(
        TWO,
        contexts=[{**c, **({"cart": i % 50} if TWO.campaign[i] == 0 else {})} for i, c in enumerate(TWO.contexts)],
    )
    found = own_counts(rows, fit_spec(rows.contexts, []))
    assert found is not None
    sizes = np.bincount(TWO.campaign)
    assert found["spring"]["cart"][0] == 0.0
    assert sum(found["spring"]["cart"]) == sizes[0]
    assert found["autumn"]["cart"][0] == sum(found["autumn"]["cart"]) == sizes[1]


def test_rows_from_before_a_feature_was_sent_say_nothing_of_how_it_looks() -> None:
    late = bare(ONE, 1_500)
    found = own_counts(late, fit_spec(late.contexts, []))
    assert found is not None
    assert found["spring"]["plan"][0] == 0.0
    assert sum(found["spring"]["plan"]) == ROWS - 1_500


def test_of_a_long_log_some_rows_are_counted() -> None:
    longer = TWO.take(np.arange(30 * ROWS) % ROWS)
    found = own_counts(longer, fit_spec(TWO.contexts, []))
    assert found is not None
    assert sum(found["spring"]["age"]) == MOST_ROWS


def test_a_model_of_several_campaigns_keeps_them_through_refreshes() -> None:
    blob = train(TWO, attributes=(), seed=1, network=False).blob
    model = RewardModel.load(blob)
    own = model.own_counts("autumn")
    assert own is not None
    assert set(own) == {column.name for column in model.spec.columns}
    assert model.own_counts("nobody's") == {}
    assert RewardModel.load(refresh(blob, TWO).blob).own_counts("autumn") == own
    assert RewardModel.load(train(ONE, attributes=(), seed=1, network=False).blob).own_counts("spring") is None
