"""The drill on two hosts and one PostgreSQL server: a small run loses nothing, and each broken promise fails it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from simulations.audit import Breach, Report
from simulations.drills import command
from simulations.drills.postgresql import proof, run
from simulations.drills.postgresql.load import Work, mark, stored_mark
from simulations.drills.postgresql.proof import Attack, Restart, Result
from simulations.drills.postgresql.size import Size, rules
from simulations.drills.postgresql.trainers import overlapping
from simulations.drills.scene import WORKSPACE
from storage.policies import TrainingRun
from tests.simulations.planted import reserved

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.mark.drill
def test_two_hosts_lose_nothing_while_their_server_goes_down_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to go down once; the drill does it ten times, over 500,000 decisions, and waits for a training."""
    monkeypatch.setattr(run, "TRAINED_WITHIN", 0.0)
    size = ["--decisions", "1200", "--restarts", "3", "--rows", "50", "--clients", "4"]
    told = CliRunner().invoke(command, ["postgresql", *size, "--json"])
    result = json.loads(told.stdout)
    assert [restart["how"] for restart in result["restarts"]] == ["fast", "immediate", "kill"]
    assert (result["decisions"], result["stored"]) == (1200, 1200)
    lost = [result[what] for what in ("lost_decisions", "lost_events", "lost_closings", "answered_differently")]
    assert lost == [[]] * 4
    assert (result["errors"], result["refused"], result["broken_connections"]) == ([], [], 0)
    assert result["busy"] > 0
    assert result["asked_again"] == 1200
    assert min(result["masked"].values()) > 10
    assert (result["violations"], result["not_judged"]) == (0, 0)
    assert result["training_processes_at_a_time"] <= 1
    assert result["overlapping_runs"] == []


def good() -> Result:
    restart = Restart("fast", NOW, 500, 1.0, 0.1)
    return Result(
        size=Size(decisions=1000, restarts=1),
        attack=Attack((restart,), 10.0, 100, (), 1, 3),
        answered=1000,
        stored=1000,
        lost=(),
        events=5,
        lost_events=(),
        closings=5,
        lost_closings=(),
        busy=20,
        broken=0,
        refused=(),
        errors=(),
        masked={"cap": 3, "emails": 2},
        runs={"published": 3},
        overlapping=(),
        trained_after=3.0,
        report=Report(WORKSPACE),
    )


@pytest.mark.parametrize(
    "fault",
    [
        {"answered": 999},
        {"stored": 1001},
        {"lost": ("r1",)},
        {"lost_events": ("e1",)},
        {"lost_closings": ("d1",)},
        {"refused": ("422",)},
        {"errors": ("500",)},
        {"broken": 1},
        {"masked": {"cap": 3, "emails": 0}},
        {"overlapping": ("run_2",)},
        {"trained_after": None},
        {"size": Size(decisions=1000, restarts=2)},
        {"attack": replace(good().attack, differing=("r1",))},
        {"attack": replace(good().attack, most_trainers=2)},
        {"attack": replace(good().attack, trainers=0)},
        {"report": Report(WORKSPACE, breaches=[Breach("cap", "cap", "d1", "u1", "4 in 48 h")])},
    ],
)
def test_the_drill_fails_on_each_broken_promise(fault: dict[str, Any]) -> None:
    assert good().passed
    broken = replace(good(), **fault)
    assert not broken.passed
    assert not proof.document(broken)["passed"]
    assert list(proof.lines(broken))[-1] == "failed"


def test_the_units_of_a_run_are_all_its_requests_and_the_same_each_time() -> None:
    size = Size(decisions=3000, rows=50)
    work = Work(size, NOW, "")
    units = [work.unit(number) for number in range(size.singles + size.batches)]
    names = [request["request_id"] for unit in units for request in unit]
    assert len(set(names)) == len(names) == 3000
    assert sum(len(unit) == 1 for unit in units) == size.singles == 300
    assert work.unit(7) == Work(size, NOW, "").unit(7)
    assert work.unit(7) != Work(replace(size, seed=2), NOW, "").unit(7)
    many = [{request["recipient_id"] for request in unit} for unit in units if len(unit) > 1]
    assert many[0] == many[1]  # hosts want the same places at the same time
    assert many[0] != many[2]


def test_a_run_has_a_gap_and_a_capacity_that_grows_with_it() -> None:
    assert {rule.kind for rule in rules(Size())} == {"gap", "capacity"}
    assert rules(Size()) != rules(Size(decisions=1000))


def test_an_answer_and_what_is_stored_have_the_same_mark_unless_they_are_another_choice() -> None:
    one = reserved("d", NOW)
    assert one.send_at is not None
    answer = {
        "decision_id": one.decision_id,
        "group": one.group,
        "policy_id": one.policy_id,
        "propensity": one.propensity,
        "action": {"variant_id": one.variant_id, "channel": one.channel, "send_at": one.send_at.isoformat()},
    }
    assert mark(answer) == stored_mark(one)
    assert mark({**answer, "status": "sent"}) == stored_mark(one)
    assert mark({**answer, "propensity": 0.123}) != stored_mark(one)
    assert mark({**answer, "action": None}) != stored_mark(one)


def test_runs_overlap_when_one_begins_before_the_one_before_it_is_over() -> None:
    def ran(name: str, first: int, last: int | None) -> TrainingRun:
        until = None if last is None else NOW + timedelta(minutes=last)
        started = NOW + timedelta(minutes=first)
        return TrainingRun("w", name, "retrain", "published", NOW, started_at=started, finished_at=until)

    queued = TrainingRun("w", "q", "retrain", "queued", NOW)
    assert overlapping([ran("b", 2, 3), ran("a", 0, 2), queued]) == []
    assert overlapping([ran("b", 1, 3), ran("a", 0, 2)]) == ["b"]
    assert overlapping([ran("b", 1, 3), ran("a", 0, None)]) == ["b"]
