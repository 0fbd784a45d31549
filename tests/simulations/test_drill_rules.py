"""The rules drill: a tiny run passes and one with a fault is found; it fails where something was lost or too seldom."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from simulations.audit import Breach, Report
from simulations.drills import RULE_MUTANTS, command, mutants
from simulations.drills.rules import proof, scene, told
from simulations.drills.rules.marks import fingerprint
from simulations.drills.rules.run import Result
from simulations.drills.rules.scene import Size
from simulations.drills.rules.work import BATCH, Job, count_units, unit
from simulations.drills.scene import WORKSPACE
from tests.postgresql import Server
from tests.simulations.planted import reserved

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def ran() -> dict[str, Any]:
    """A run over the command line, as it is and without capacities."""
    size = ["--processes", "2", "--decisions", "1200", "--recipients", "120", "--mutant-decisions", "500"]
    answer = CliRunner().invoke(command, ["rules", *size, "--mutant", "capacity", "--json"])
    assert answer.exit_code in (0, 1), answer.output
    return {result["mutant"] or "none": result for result in json.loads(answer.stdout)}


def test_every_rule_holds_nothing_is_lost_and_every_draw_is_replayed(ran: dict[str, Any]) -> None:
    """The balance tests have a family-wise error of .001 each: of 500 runs one fails by chance."""
    honest = ran["none"]
    assert honest["honest"]
    assert (honest["decisions"], honest["violations"], honest["not_judged"]) == (1200, 0, 0)
    assert (honest["answers_not_stored"], honest["other_draws"]) == (0, 0)
    assert honest["largest_propensity_error"] <= 1e-6
    assert honest["reserved"] > 240
    assert honest["displaced"] > 5
    assert min(honest["masked"].values()) > 5


def test_every_rule_holds_where_processes_share_a_postgresql_server(postgresql: Server) -> None:
    """Caps, capacities and budgets under two processes that want the same places; error rate as above."""
    url = postgresql.take()
    size = ["--processes", "2", "--decisions", "800", "--recipients", "80"]
    answer = CliRunner().invoke(command, ["rules", *size, "--on", url, "--json"])
    postgresql.give_back(url)
    (honest,) = json.loads(answer.stdout)
    assert honest["honest"], honest
    assert (honest["decisions"], honest["violations"], honest["not_judged"]) == (800, 0, 0)
    assert (honest["answers_not_stored"], honest["other_draws"]) == (0, 0)
    assert honest["reserved"] > 160


def test_a_service_without_capacities_is_found(ran: dict[str, Any]) -> None:
    assert ran["capacity"]["as_expected"]
    assert ran["capacity"]["violations_of_the_mutant"] > 10


def test_every_fault_of_the_drill_is_one_that_can_be_built_in() -> None:
    assert set(RULE_MUTANTS) == set(mutants.KINDS) - {"requires"}


def test_the_units_of_a_run_are_all_its_requests_and_the_same_each_time() -> None:
    job = Job("sqlite:///none.db", Size(decisions=3000, recipients=300), NOW)
    units = [unit(job, i) for i in range(count_units(job.size))]
    requests = [request for one in units for request in one.requests]
    assert len({request.request_id for request in requests}) == 3000
    assert sum(one.run_id is None for one in units) == job.size.singles == 600
    assert max(len(one.requests) for one in units) == BATCH
    assert units == [unit(job, i) for i in range(count_units(job.size))]
    assert unit(replace(job, size=replace(job.size, seed=2)), 0) != units[0]
    people = [{r.recipient_id for r in one.requests} for one in units if one.run_id is not None]
    assert people[0] == people[1]  # processes want the same places at the same time
    assert people[0] != people[4]


def test_a_run_with_a_fault_has_as_many_decisions_for_each_recipient() -> None:
    assert Size().smaller() == replace(Size(), decisions=40_000, recipients=4_000)
    assert Size(decisions=500, recipients=50).smaller() == Size(decisions=500, recipients=50)


def test_the_rules_of_the_drill_are_of_every_kind() -> None:
    kinds = {rule.kind for rule in scene.rules(1000, NOW.date())}
    assert kinds == set(mutants.OF_RULES)


def test_a_mark_tells_another_choice_and_not_what_became_of_it() -> None:
    one = reserved("d", NOW)
    assert fingerprint(one) == fingerprint(replace(one, status="released", closed_at=NOW, close_reason="x"))
    assert fingerprint(one) != fingerprint(replace(one, propensity=0.4))
    assert fingerprint(one) != fingerprint(replace(one, snapshot=replace(one.snapshot, displaced=("e",))))
    assert proof.unkept([1, 2, 3], [2, 3, 4]) == 1


def good() -> Result:
    rng = np.random.default_rng(1)
    expected = np.full((400, len(proof.SUBSETS)), 0.25)
    part = proof.Part(
        statuses=Counter(reserved=400, withheld=600),
        masked=Counter({rule.rule_id: 50 for rule in scene.rules(1000, NOW.date())}),
        reserved=400,
        displacing=5,
        marks=list(range(1000)),
        expected=expected,
        inside=rng.random(expected.shape) < expected,
        redrawn=np.arange(400) < 100,
    )
    whole, again = proof.balances(part)
    return Result(
        mutant=None,
        size=Size(decisions=1000, recipients=100),
        seconds=(1.0, 1.0),
        answers=1000,
        unkept=0,
        busy=0,
        refused=(),
        part=part,
        report=Report(WORKSPACE),
        balance=whole,
        redrawn_balance=again,
        ran_out={"emails": 3, "money": 1},
    )


BREACH = Breach("emails", "capacity", "d1", "u1", "3 in 60 min")


@pytest.mark.parametrize(
    "fault",
    [
        {"unkept": 1},
        {"answers": 999},
        {"refused": ("a row",)},
        {"report": Report(WORKSPACE, breaches=[BREACH])},
        {"ran_out": {"emails": 3, "money": 0}},
        {"part": replace(good().part, reserved=199)},
        {"part": replace(good().part, displacing=0)},
        {"part": replace(good().part, masked=Counter(gap=5))},
        {"part": replace(good().part, largest_error=1e-5)},
        {"part": replace(good().part, other_draws=1)},
        {"redrawn_balance": replace(good().redrawn_balance, passed=False)},
    ],
)
def test_the_drill_fails_on_each_broken_promise(fault: dict[str, Any]) -> None:
    assert good().as_expected
    broken = replace(good(), **fault)
    assert not broken.as_expected
    assert list(told.lines(broken))[-1] == "failed"


def test_a_fault_is_found_only_by_breaches_of_its_own_kind() -> None:
    found = replace(good(), mutant="capacity", report=Report(WORKSPACE, breaches=[BREACH]))
    assert found.as_expected
    assert list(told.lines(found))[-1] == "found 1 times, as it must"
    assert not replace(found, mutant="budget").as_expected


def test_the_drill_tells_people_what_it_does() -> None:
    answer = CliRunner().invoke(command, ["rules", "--help"])
    assert answer.exit_code == 0
    assert "every kind of rule" in answer.output
    assert CliRunner().invoke(command, ["rules", "--mutant", "unknown"]).exit_code == 2
