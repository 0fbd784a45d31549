"""Policies by name: their options are read by type and range, and what is refused is named."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from click.testing import CliRunner, Result

from optimizer.errors import Invalid, NotFound
from simulations.game import Game
from simulations.policies import FAMILIES, OursOptions, parse
from simulations.policyoptions import RANGES
from simulations.pure import Sendtide
from simulations.scenarios import scenario
from simulations.simulate import command
from simulations.world.spec import WorldSpec

SMALL = replace(scenario("stationary"), world=WorldSpec(recipients=60), decisions=10)


def test_policies_are_read_with_their_options() -> None:
    spec = parse("ours:refresh=0.02,network=false", "stationary")
    assert spec.options == OursOptions(refresh=0.02, network=False)
    assert parse("vw-squarecb:scale=7", "stationary").options.scale == 7.0
    assert parse("vw-bag:kind=dr", "stationary").options.kind == "dr"
    spec = parse("ours:method=inverse_gap,parameter=5", "stationary")
    assert (spec.options.method, spec.options.parameter) == ("inverse_gap", 5.0)
    player = spec.player(Game(SMALL, 1))
    assert isinstance(player, Sendtide)
    assert (player.method, player.parameter) == ("inverse_gap", 5.0)
    with pytest.raises(NotFound, match="stationary"):
        scenario("nowhere")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nobody", "'nobody' is none; there are: ours"),
        ("random:a=1", "'random' has no options"),
        ("ours:wings=2", "option 'wings' is none; there are: retrain"),
        ("ours:refresh", "'refresh' must be name=value"),
        ("ours:method=luck", "method=luck: must be one of: posterior_bank"),
        ("ours:encoder=lstm", "encoder=lstm: must be one of: none, gru"),
        ("ours:network=maybe", "network=maybe: must be true or false"),
        ("ours:retrain=-3,refresh=nan", "retrain=-3: must be a number, above 0"),
        ("ours:refresh=nan", "refresh=nan: must be a number, above 0"),
        ("ours:early=inf", "early=inf: must be a number, above 0"),
        ("ours:step=2.5", "step=2.5: must be a whole number, 1 or more"),
        ("ours:parameter=2", "parameter=2: must be left out: posterior_bank has none"),
        ("ours:method=epsilon_greedy,parameter=2", "parameter=2: must be a number, from 0 to 1"),
        ("service:lie=white", "lie=white: must be one of: none, numbers, draws"),
        ("vw-squarecb:cost=foo", "cost=foo: must be one of: zero_one, negative"),
        ("vw-squarecb:crossing=foo", "crossing=foo: must be one of: first, second, third, pairs"),
        ("vw-squarecb:features=foo", "features=foo: must be one of: raw, encoded"),
        ("vw-squarecb:algorithm=foo", "algorithm=foo: must be one of: squarecb, large"),
        ("vw-squarecb:kind=dr", r"kind=dr: must be one of: mtr \(of squarecb\)"),
        ("vw-squarecb:unit=0", "unit=0: must be a number, above 0"),
        ("vw-bag:policies=0", "policies=0: must be a whole number, 1 or more"),
        ("vw-egreedy:epsilon=1.5", "epsilon=1.5: must be a number, from 0 to 1"),
        ("linucb:rule=foo", "rule=foo: must be one of: ucb, ts"),
        ("network:width=many", "width=many: must be a whole number, 1 or more"),
        ("static-ab:kind=foo", "kind=foo: must be one of: histogram, shrunk, segment, ab"),
    ],
)
def test_what_is_not_allowed_is_named_with_its_value_and_with_what_is(text: str, told: str) -> None:
    with pytest.raises(Invalid, match=told):
        parse(text, "stationary")


def test_every_number_has_a_range_that_its_default_lies_in() -> None:
    for family in FAMILIES.values():
        for field in fields(family.options) if family.options is not None else ():
            value = getattr(family.options, field.name)
            assert not isinstance(value, (int, float)) or isinstance(value, bool) or value in RANGES[field.name]


def simulated(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["xor", "--seeds", "1", "--decisions", "10", *arguments])


@pytest.mark.parametrize(
    ("policies", "told"),
    [
        ("random,vw-squarecb:crossing=foo", "crossing=foo: must be one of: first, second, third, pairs"),
        ("ours:retrain=-3+refresh=nan", "retrain=-3: must be a number, above 0"),
        ("nobody", "there are: ours"),
        (",", "',' names none; there are: ours"),
        ("", "'' names none; there are: ours"),
    ],
)
def test_policies_that_there_are_none_of_are_wrong_usage(policies: str, told: str) -> None:
    done = simulated("--policies", policies)
    assert done.exit_code == 2
    assert "--policies" in done.stderr
    assert told in " ".join(done.stderr.split())


def test_both_cores_play_when_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []

    def run(*_: object, processes: int, **__: object) -> None:
        given.append(processes)
        raise Invalid("enough")

    monkeypatch.setattr("simulations.simulate_run.run", run)
    simulated("--policies", "random")
    assert given == [2]
