"""The drills pass on the service as it is, and fail on a service with a fault."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner

from optimizer.config import Settings
from optimizer.service.requests import DecisionRequest
from optimizer.service.settle import release
from optimizer.service.wiring import Services, open_services
from simulations.audit import Breach, Report
from simulations.drills import aftermath, checks, command, kill, racers
from simulations.drills.load import Acknowledged, Client, decision_body, same_decision
from simulations.drills.scene import UNIFORM, WORKSPACE, prepare
from simulations.drills.victims import Kill, Probe

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def raced() -> dict[str, Any]:
    """One race over the command line: as it is, and with each fault."""
    size = ["--processes", "4", "--threads", "12", "--decisions", "4500", "--recipients", "60"]
    faults = ["--mutant", "action-keyed", "--mutant", "no-recheck"]
    told = CliRunner().invoke(command, ["race", *size, *faults, "--json"])
    assert told.exit_code == 0, told.output
    return {result["mutant"] or "none": result for result in json.loads(told.stdout)}


def test_racing_processes_keep_the_cap_lose_nothing_and_replay_exactly(raced: dict[str, Any]) -> None:
    honest = raced["none"]
    assert honest["decisions"] == 4500
    assert honest["lost"] == []
    assert (honest["violations"], honest["not_judged"]) == (0, 0)
    assert honest["largest_propensity_error"] <= 1e-6
    assert honest["other_draws"] == 0
    assert honest["statuses"]["reserved"] > 100
    assert honest["redrawn"] > 50


def test_the_draws_of_a_race_are_in_balance_with_their_propensities(raced: dict[str, Any]) -> None:
    """Two tests at a family-wise error of .001 each: of 500 honest runs one fails by chance."""
    assert raced["none"]["balance"]["passed"]
    assert raced["none"]["redrawn_balance"]["passed"]


def test_a_redraw_that_looks_at_the_drawn_action_only_is_found_by_the_balance_test(raced: dict[str, Any]) -> None:
    """Too many ``no_send``: in 4 runs z was 7.3 to 11.0, where 4 is needed. Callers of one process are
    served together, so it takes several processes that want the same recipient to race."""
    mutant = raced["action-keyed"]
    assert not mutant["balance"]["passed"]
    surplus = {subset["name"]: subset["z"] for subset in mutant["balance"]["subsets"]}
    assert max(surplus, key=lambda name: surplus[name]) == "no_send"
    assert mutant["violations"] == 0  # the caps are kept: only the propensities are wrong


def test_a_commit_without_a_recheck_is_found_by_the_audit(raced: dict[str, Any]) -> None:
    assert raced["no-recheck"]["violations"] > 20


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, str]:
    settings = Settings(database=f"sqlite:///{tmp_path_factory.mktemp('scene')}/drill.db")
    return settings, prepare(settings, recipients=6, cap=2, seed=1)


@pytest.fixture
def services(prepared: tuple[Settings, str]) -> Iterator[Services]:
    opened = open_services(prepared[0], watch=False)
    yield opened
    opened.close()


def test_both_campaigns_of_the_scene_decide_and_one_has_learned(services: Services) -> None:
    cold, learned = (
        services.decider.decide(WORKSPACE, DecisionRequest(name, "u000001", context={"plan": "pro"}))[0]
        for name in (UNIFORM, "learned")
    )
    assert cold.policy_id == "pol_cold"
    assert learned.policy_id != "pol_cold"


def test_a_request_of_the_race_is_the_same_in_every_run(prepared: tuple[Settings, str]) -> None:
    job = racers.Job(prepared[0].database, 1, 10, 5, NOW, seed=3)
    assert racers.request(job, 7) == racers.request(job, 7)
    assert racers.request(job, 7) != racers.request(replace(job, seed=4), 7)


def test_an_answer_that_is_not_stored_as_it_was_given_is_lost(services: Services) -> None:
    first, second = (
        services.decider.decide(WORKSPACE, DecisionRequest(UNIFORM, "u000003", context={"plan": p}))[0]
        for p in ("free", "pro")
    )
    if second.status in ("reserved", "no_send"):
        release(services, WORKSPACE, second.decision_id, "what becomes of it later doesn't matter")
    with services.store.read() as reader:
        assert checks.lost(reader, WORKSPACE, [first, second]) == []
        other = replace(first, propensity=0.123)
        never = replace(first, decision_id="dec_never")
        assert checks.lost(reader, WORKSPACE, [other, never]) == [first.decision_id, "dec_never"]


def test_draws_that_follow_their_probabilities_balance_and_others_do_not() -> None:
    """At a level of .001 the honest half fails for one seed in 1,000; this seed is fixed."""
    chance = random.Random(4)
    rows = [{"a": (p, chance.random() < p)} for p in (chance.uniform(0.1, 0.6) for _ in range(4000))]
    assert checks.balance(rows, checks.LEVEL).passed
    skewed = [{"a": (row["a"][0] * 0.8, row["a"][1])} for row in rows]
    assert not checks.balance(skewed, checks.LEVEL).passed
    assert checks.balance([], checks.LEVEL).passed


@pytest.fixture
def flaky() -> Iterator[tuple[str, list[bytes]]]:
    """A server that breaks the first connection after reading the request, says it is busy once, then answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[bytes] = []
    answers = [
        b"",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 201 Made\r\nContent-Length: 2\r\n\r\n{}",
    ]

    def serve() -> None:
        left = list(answers)
        while left:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as stream:
                while left:
                    head = b"".join(iter(stream.readline, b"\r\n"))
                    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    seen.append(stream.read(length))
                    answer = left.pop(0)
                    if not answer:
                        break
                    connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", seen
    thread.join(5)
    listener.close()


def test_a_client_repeats_the_very_request_until_it_is_answered(flaky: tuple[str, list[bytes]]) -> None:
    address, seen = flaky
    heard = Acknowledged()
    client = Client(address, "secret", heard)
    status, answer, unknown = client.post("/v1/decisions", {"request_id": "r1"})
    client.close()
    assert (status, answer, unknown) == (201, {}, True)
    assert seen == [b'{"request_id":"r1"}'] * 3
    assert (heard.broken, heard.busy, heard.answers) == (1, 1, 1)


def test_the_probe_measures_to_the_end_of_the_first_call_that_began_after_the_kill() -> None:
    probe = Probe("127.0.0.1:1", "secret", b"{}")
    probe.answered = [(1.0, 1.1), (2.0, 2.4), (3.0, 3.1)]
    assert probe.seconds_to_answer(1.5) == pytest.approx(0.9)
    assert probe.seconds_to_answer(2.0) == pytest.approx(0.4)
    assert probe.seconds_to_answer(3.05) == float("inf")


def good_kills() -> aftermath.Result:
    answer = {"decision_id": "d1", "action": None, "propensity": 1.0, "policy_id": "p", "group": "treated"}
    return aftermath.Result(
        kills=(Kill("worker", 1.0, 0.1, 0.2),),
        publishers_killed=1,
        seconds=10.0,
        heard=Acknowledged(decisions={"r1": answer}, answers=1),
        stored_decisions=1,
        lost_decisions=(),
        lost_closings=(),
        lost_events=(),
        policies=3,
        broken_policies=(),
        runs={"published": 1},
        trained_after=2.5,
        report=Report(WORKSPACE),
        left_running=0,
        wanted=1,
    )


@pytest.mark.parametrize(
    "fault",
    [
        {"lost_decisions": ("r1",)},
        {"lost_closings": ("d1",)},
        {"lost_events": ("e1",)},
        {"broken_policies": ("pol_1",)},
        {"left_running": 1},
        {"wanted": 2},
        {"trained_after": None},
        {"kills": (Kill("scheduler", 1.0, 5.5, 6.0),)},
        {"heard": Acknowledged(answers=1, contradictions=["r1"])},
        {"heard": Acknowledged(answers=1, errors=["POST /v1/decisions: 500"])},
        {"heard": Acknowledged()},
        {"report": Report(WORKSPACE, breaches=[Breach("cap", "cap", "d1", "u1", "4 in 24 h")])},
    ],
)
def test_the_kill_drill_fails_on_each_broken_promise(fault: dict[str, Any]) -> None:
    assert good_kills().passed
    broken = replace(good_kills(), **fault)
    assert not broken.passed
    assert list(aftermath.lines(broken))[-1] == "failed"


def test_an_answer_is_compared_by_its_choice_and_not_by_its_status() -> None:
    one = {"decision_id": "d", "action": {"variant_id": "a"}, "propensity": 0.5, "policy_id": "p", "group": "treated"}
    assert same_decision({**one, "status": "reserved"}, {**one, "status": "sent"})
    assert not same_decision(one, {**one, "action": {"variant_id": "b"}})


def test_requests_of_the_load_name_what_a_retry_must_repeat() -> None:
    body = decision_body("r1", 10, random.Random(1))
    assert body == decision_body("r1", 10, random.Random(1))
    assert body["request_id"] == "r1"


def test_a_real_server_survives_the_death_of_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker and the scheduler of a real gunicorn are killed; the drill kills thirty and waits for a training."""
    monkeypatch.setattr(kill, "TRAINED_WITHIN", 0.0)
    told = CliRunner().invoke(command, ["kill", "--times", "2", "--clients", "3", "--seed", "126", "--json"])
    result = json.loads(told.stdout)
    assert told.exit_code == 1  # for want of that training, and of nothing else
    lost = [result[what] for what in ("lost_decisions", "lost_closings", "lost_events", "contradictions", "errors")]
    assert lost == [[]] * 5
    assert (result["violations"], result["left_running"], result["broken_policies"]) == (0, 0, [])
    assert {killed["role"] for killed in result["kills"]} == {"worker", "scheduler"}
    assert result["publishers_killed"] > 0
    assert result["policies"] > 1
    assert result["acknowledged"]["decisions"] > 20
    assert result["slowest_answer_seconds"] <= 5


def test_the_drills_tell_people_what_they_do() -> None:
    told = CliRunner().invoke(command, ["race", "--help"])
    assert told.exit_code == 0
    assert "no cap exceeded" in told.output
    assert CliRunner().invoke(command, ["race", "--mutant", "unknown"]).exit_code == 2
