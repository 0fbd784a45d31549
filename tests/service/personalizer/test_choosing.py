"""Exploration within limits, learning settings, slots that stay fillable."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.errors import Invalid
from optimizer.model.adf import Action, AdfModel
from optimizer.model.tokens import tokens
from optimizer.model.training.adf import AdfOptions, AdfRow, AdfTrainer
from optimizer.service.personalizer.arguments import DEFAULT_ARGUMENTS, read_arguments
from optimizer.service.personalizer.choosing import distribution
from optimizer.service.personalizer.filling import Filling

ACTIONS = [Action(name, ({"name": name},)) for name in "abcde"]
ALL = np.ones(5, np.bool_)
DEFAULT = read_arguments(DEFAULT_ARGUMENTS)


def model(rows: int, best: str = "b") -> AdfModel:
    rng = np.random.default_rng(1)
    trainer = AdfTrainer(AdfOptions())
    trainer.add(
        AdfRow(tokens([], "c"), tokens(a.features, "a", a.id), float(rng.random() < (0.6 if a.id == best else 0.4)))
        for a in (ACTIONS[int(n)] for n in rng.integers(5, size=rows))
    )
    return trainer.fit()


def test_nothing_learned_is_drawn_evenly_over_what_is_eligible() -> None:
    mask = np.array([True, False, True, True, False])
    p = distribution(None, DEFAULT, 0.2, [], ACTIONS, mask)
    assert p.tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3, 0])


@pytest.mark.parametrize(
    "arguments", [DEFAULT_ARGUMENTS, "--squarecb --gamma_scale 10 -q ::", "--softmax --lambda 2 -q ::"]
)
def test_exploration_stays_under_its_ceiling_keeps_a_floor_and_falls_with_what_is_learned(arguments: str) -> None:
    settings = read_arguments(arguments)
    explored = []
    for rows in (2_000, 20_000):
        p = distribution(model(rows), settings, 0.2, [], ACTIONS, ALL)
        assert p.sum() == pytest.approx(1)
        assert p.min() >= 0.0002
        assert 1 - p[1] <= 0.2 + 1e-9
        explored.append(1 - p[1])
    assert explored[1] < explored[0]
    assert distribution(model(2_000), settings, 0.0, [], ACTIONS, ALL).max() == 1.0


def test_a_young_model_may_explore_more_than_the_ceiling() -> None:
    assert distribution(model(40), DEFAULT, 0.01, [], ACTIONS, ALL).max() < 0.99


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (DEFAULT_ARGUMENTS, (True, "posterior", 0.2)),
        ("--cb_explore_adf --epsilon=0.05 --cb_type dr", (False, "posterior", 0.05)),
        ("--cb_explore_adf --interactions ::", (True, "posterior", None)),
        ("--quadratic ab --squarecb", (True, "inverse_gap", None)),
        ("--softmax --lambda 3", (False, "softmax", None)),
        ("anything 'that is' quoted", (False, "posterior", None)),
    ],
)
def test_learning_settings_are_understood(arguments: str, expected: tuple[bool, str, float | None]) -> None:
    found = read_arguments(arguments)
    assert (found.products, found.method, found.epsilon) == expected


@pytest.mark.parametrize("arguments", ["--epsilon x", "--epsilon -1", "--epsilon nan", "--softmax --lambda", "'"])
def test_learning_settings_that_cant_be_meant_are_refused(arguments: str) -> None:
    with pytest.raises(Invalid):
        read_arguments(arguments)


@given(st.data())
def test_a_place_is_open_exactly_when_every_later_slot_can_still_be_filled(data: st.DataObject) -> None:
    actions = data.draw(st.integers(1, 5))
    slots = data.draw(st.integers(1, actions))
    start = data.draw(st.permutations(range(actions)))[:slots]
    places = st.frozensets(st.integers(0, actions - 1))
    allowed = [data.draw(places) | {place} for place in start]
    filling = Filling(allowed, start)
    taken: list[int] = []
    for slot in range(slots):
        possible = sorted(
            {
                way[slot]
                for way in permutations(range(actions), slots)
                if list(way[:slot]) == taken and all(place in ok for place, ok in zip(way, allowed, strict=True))
            }
        )
        assert filling.open_places(slot) == possible
        taken.append(data.draw(st.sampled_from(possible)))
        filling.take(slot, taken[-1])


def test_a_place_that_is_not_open_cant_be_taken() -> None:
    with pytest.raises(ValueError, match="not open"):
        Filling([frozenset({0, 1}), frozenset({1})], [0, 1]).take(0, 1)
