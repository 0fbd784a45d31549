"""Whether tastes act through variants' features: where these tell more than names do, or a variant has few rows."""

from __future__ import annotations

import dataclasses

import pytest

from optimizer.model.examples import Examples
from optimizer.model.inference import RewardModel
from optimizer.model.training.evaluate import training_basis
from optimizer.model.training.train import refresh, train
from optimizer.model.variantbasis import tastes_pay
from storage.records import VariantStatus
from tests.model.conftest import campaign, made_up


def _rows(status: VariantStatus) -> Examples:
    """Rows of one campaign; of its three variants, which differ in one direction, two have rows, the third is so."""
    owner = campaign()
    *others, last = owner.variants
    owner = dataclasses.replace(owner, variants=(*others, dataclasses.replace(last, status=status)))
    examples = made_up(400, 1, owner=owner)
    return examples.take(examples.campaign == 0)


def _blocks(blob: bytes) -> set[str]:
    """What acts through features in a model's message heads."""
    return {b.segment for b in RewardModel.load(blob).message.layout.blocks if b.unit == "feature"}


@pytest.mark.parametrize(
    ("width", "rows", "pays"),
    [
        (5, [100] * 6, False),  # five directions tell six variants apart, and no more than their names do
        (4, [100] * 6, True),  # four leave something out: what variants share is worth a place
        (5, [100] * 5 + [20], True),  # one has few rows
        (5, [100] * 5 + [25], False),
        (5, [100] * 5 + [0], True),  # one has none yet
        (0, [100], False),
    ],
)
def test_where_tastes_act_through_features(width: int, rows: list[int], pays: bool) -> None:
    assert tastes_pay(width, rows) is pays


def test_a_variant_without_rows_counts_while_it_may_be_sent() -> None:
    assert training_basis(_rows("active")).tastes
    assert not training_basis(_rows("paused")).tastes


@pytest.mark.parametrize(("status", "through"), [("active", {"one", "plain", "time"}), ("paused", {"one"})])
def test_a_refresh_keeps_what_acts_through_features(status: VariantStatus, through: set[str]) -> None:
    trained = train(_rows(status), attributes=(), seed=1, network=False, calibrated=False)
    assert _blocks(trained.blob) == through
    later = _rows("paused" if status == "active" else "active")
    assert _blocks(refresh(trained.blob, later).blob) == through
