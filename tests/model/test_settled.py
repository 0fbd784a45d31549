"""What settled rows say is kept: a refresh that reads only the rows since comes to what all rows say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optimizer.bandit.actions import ActionSpace
from optimizer.model.artifact import pack, unpack
from optimizer.model.examples import Examples
from optimizer.model.inference import RewardModel
from optimizer.model.training.settled import Settled
from optimizer.model.training.train import Trained, follow, refresh, train
from tests.model.conftest import MONDAY, Maker, campaign

SETTLED, REFRESHED = 5_500, 6_000


@pytest.fixture(scope="module")
def log(make_examples: Maker) -> Examples:
    """Rows of which the last quarter comes after the refresh that settles some."""
    return make_examples(8_000, 3)


@pytest.fixture(scope="module")
def first(log: Examples) -> Trained:
    """The refresh of the whole log as it was then, which tells what its settled rows say."""
    blob = train(log.take(np.arange(SETTLED)), attributes=(), seed=1, network=False).blob
    return refresh(blob, log.take(np.arange(REFRESHED)), settled=SETTLED)


def told(trained: Trained) -> Settled:
    """What its settled rows say."""
    assert trained.settled is not None
    return trained.settled


def largest_difference(one: bytes, other: bytes, log: Examples) -> float:
    """Between the rewards that two models expect of all actions for some people, in posterior standard deviations."""
    local = MONDAY + 3_600 * np.arange(0, 168, 9)
    space = ActionSpace(("a", "b"), ("email", "sms"), local, local, True)
    models = RewardModel.load(one), RewardModel.load(other)
    found = []
    for row in models[0].embed(list(log.contexts[:20])):
        a, b = (model.score(row, space, campaign(), {}) for model in models)
        found.append(np.abs(a.reward - b.reward) / b.draws.std(axis=0))
    return float(np.max(found))


def test_the_rows_since_and_what_was_settled_come_to_what_all_rows_say(log: Examples, first: Trained) -> None:
    everything = refresh(first.blob, log)
    followed = follow(first.blob, told(first), log.take(np.arange(SETTLED, len(log))))
    assert largest_difference(first.blob, everything.blob, log) > 0.5  # the rows since do tell something
    assert largest_difference(followed.blob, everything.blob, log) < 0.05
    one, other = (unpack(trained.blob)[2] for trained in (followed, everything))
    assert (one["rows"], one["spec"], one["seed"]) == (other["rows"], other["spec"], other["seed"])
    assert one["width"] == pytest.approx(other["width"], rel=1e-9)
    for head, whole in zip(followed.report["heads"], everything.report["heads"], strict=True):
        assert all(head[what] == whole[what] for what in ("kind", "outcome", "rows", "positives"))


def test_with_the_rows_of_that_refresh_it_comes_to_the_same_again(log: Examples, first: Trained) -> None:
    again = follow(first.blob, told(first), log.take(np.arange(SETTLED, REFRESHED)))
    assert largest_difference(again.blob, first.blob, log) < 0.01


def test_what_has_been_settled_since_is_added(log: Examples, first: Trained) -> None:
    since = log.take(np.arange(SETTLED, 7_500))
    later = follow(first.blob, told(first), since, settled=1_500)
    assert told(later).rows == 7_000
    at_once = follow(later.blob, told(later), log.take(np.arange(7_000, len(log))))
    everything = refresh(first.blob, log)
    assert largest_difference(at_once.blob, everything.blob, log) < 0.1
    one, other = (unpack(trained.blob)[2] for trained in (at_once, everything))
    assert one["rows"] == other["rows"]
    assert one["width"] == pytest.approx(other["width"], rel=1e-9)
    assert [head["positives"] for head in at_once.report["heads"]] == [
        head["positives"] for head in everything.report["heads"]
    ]


def test_an_outcome_that_the_rows_since_do_not_speak_of_keeps_its_head(log: Examples, first: Trained) -> None:
    since = log.take(np.arange(SETTLED, REFRESHED))
    outcome = {name: column for name, column in since.outcome.items() if name != "unsubscribed"}
    followed = follow(first.blob, told(first), replace(since, outcome=outcome))
    assert "unsubscribed" in RewardModel.load(followed.blob).message.outcomes


def test_it_comes_back_from_its_file_as_it_was(first: Trained) -> None:
    before = told(first)
    arrays, about = before.save("a")
    _, read, meta = unpack(pack(b"", arrays, {"a": about}))
    after = Settled.load("a", read, meta["a"])
    assert (after.rows, after.told, after.values) == (before.rows, before.told, before.values)
    for kind in ("message", "no_send"):
        one, other = getattr(before, kind), getattr(after, kind)
        assert one.layout == other.layout
        for name, head in one.heads.items():
            found = other.heads[name]
            assert np.allclose(found.information, head.information, rtol=1e-6, atol=1e-6)
            assert np.array_equal(found.gradient, head.gradient)
            assert (found.offset, found.rows, found.positives) == (head.offset, head.rows, head.positives)
