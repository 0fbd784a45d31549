"""Health, readiness, metrics."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from optimizer.config import Settings
from optimizer.service.serving import PolicyServer, ServingStatus
from optimizer.web import create_app
from storage.errors import StoreUnavailable
from storage.policies import Component, Pointer, Policy, TrainingRun
from storage.port import Writer
from tests.web.conftest import NOW, Caller, key

ASK = {"campaign_id": "c", "recipient_id": "u"}


def samples(nobody: Caller) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    reply = nobody("GET", "/metrics")
    assert reply.status_code == 200
    assert reply.content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(reply.get_data(as_text=True))
        for sample in family.samples
    }


def value(nobody: Caller, name: str, **labels: str) -> float | None:
    return samples(nobody).get((name, frozenset(labels.items())))


def test_the_process_is_alive_without_a_key_and_without_a_store(
    nobody: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed() -> Any:
        raise StoreUnavailable("no such folder")

    monkeypatch.setattr(nobody.app.extensions["sendtide"], "_open", closed)
    assert nobody("GET", "/healthz").get_json() == {"status": "ok"}
    ready = nobody("GET", "/readyz")
    assert (ready.status_code, ready.content_type) == (503, "application/problem+json")
    assert ready.headers["Retry-After"] == "1"
    assert value(nobody, "sendtide_store_up") == 0
    assert nobody("GET", "/docs").status_code == 200
    assert nobody("GET", "/openapi.json").status_code == 200
    assert nobody("GET", "/v1/campaigns", headers={"Authorization": "Bearer x"}).status_code == 503


def test_it_is_not_ready_when_the_store_takes_no_write(ready: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ready("GET", "/readyz").status_code == 200
    store = ready.app.extensions["sendtide"].get().store

    def full(_: Any) -> None:
        raise StoreUnavailable("disk full", 5)

    monkeypatch.setattr(type(store), "check", full)
    assert ready("GET", "/readyz").status_code == 503


def test_a_policy_that_cannot_be_loaded_is_told_but_keeps_the_service_ready(
    ready: Caller, nobody: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = ServingStatus("default", "c", "pol_1", 3, "pol_2: checksum")
    theirs = ServingStatus("other", "merger", "pol_3", 1, None)
    monkeypatch.setattr(PolicyServer, "status", lambda _: [served, theirs])
    reply = ready("GET", "/readyz")
    assert reply.status_code == 200
    told = {"workspace_id": "default", "campaign_id": "c", "policy_id": "pol_1", "generation": 3}
    counted = {"status": "ready", "served": 2, "faults": 1}
    assert reply.get_json() == {**counted, "policies": [{**told, "fault": "pol_2: checksum"}]}
    wrong = Caller(ready.app, "nonsense")
    assert nobody("GET", "/readyz").get_json() == wrong("GET", "/readyz").get_json() == {**counted, "policies": []}
    labels = {"workspace": "default", "campaign": "c"}
    assert value(nobody, "sendtide_policy_generation", **labels) == 3
    assert value(nobody, "sendtide_policy_fault", **labels) == 1


def test_callers_without_a_key_make_the_store_write_once_a_second_at_most(
    ready: Caller, nobody: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, checks = [0.0], []
    monkeypatch.setattr("optimizer.web.health.time.monotonic", lambda: now[0])

    def check(_: Any) -> None:
        checks.append(now[0])
        if now[0] >= 1:
            raise StoreUnavailable("disk full", 5)

    monkeypatch.setattr(type(ready.app.extensions["sendtide"].get().store), "check", check)
    assert [nobody("GET", "/readyz").status_code for _ in range(3)] == [200, 200, 200]
    assert checks == [0]
    now[0] = 1.5
    told = [nobody("GET", "/readyz") for _ in range(3)]
    assert [(one.status_code, one.headers["Retry-After"]) for one in told] == [(503, "5")] * 3
    assert checks == [0, 1.5]
    assert [ready("GET", "/readyz").status_code for _ in range(2)] == [503, 503]
    assert checks == [0, 1.5, 1.5, 1.5]


def test_metrics_can_be_kept_for_who_has_their_token(database: str, clock: Any) -> None:
    token = "0123456789abcdef" * 2
    app = create_app(Settings(database=database, metrics_token=token), clock=clock, seed="web-tests")
    for secret in (None, token.upper(), key(app, "admin")):
        refused = Caller(app, secret)("GET", "/metrics")
        assert (refused.status_code, refused.headers["WWW-Authenticate"][:6]) == (401, "Bearer")
        assert b"sendtide_" not in refused.data
    assert value(Caller(app, token), "sendtide_store_up") == 1
    app.extensions["sendtide"].close()


def test_requests_decisions_and_events_are_counted(ready: Caller, nobody: Caller) -> None:
    ready("POST", "/v1/decisions", {**ASK, "request_id": "r"})
    ready("POST", "/v1/decisions", {**ASK, "request_id": "r"})
    ready("POST", "/v1/decisions", {**ASK, "preview": True})
    ready("POST", "/v1/decisions/batch", {"campaign_id": "c", "recipients": [{"recipient_id": "u"}, 7]})
    event = {"event_id": "e", "decision_id": "dec_unknown", "type": "opened", "occurred_at": "2026-11-24T09:00:00Z"}
    ready("POST", "/v1/events", {"events": [event, event, {}]})
    nobody("GET", "/nowhere/1")
    nobody("GET", "/nowhere/2")
    assert value(nobody, "sendtide_decisions_total", status="reserved", group="treated") == 2
    route = "/v1/decisions"
    assert value(nobody, "sendtide_requests_total", method="POST", route=route, status="201") == 1
    assert value(nobody, "sendtide_requests_total", method="POST", route=route, status="200") == 2
    assert value(nobody, "sendtide_request_seconds_count", method="POST", route=route) == 3
    assert value(nobody, "sendtide_requests_total", method="(any)", route="(none)", status="404") == 2
    assert value(nobody, "sendtide_events_total", result="unmatched") == 1
    assert value(nobody, "sendtide_events_total", result="duplicate") == 1
    assert value(nobody, "sendtide_events_total", result="rejected") == 1
    assert value(nobody, "sendtide_unmatched_events", workspace="default") == 1
    assert value(nobody, "sendtide_store_up") == 1


def test_the_last_failure_of_a_training_is_told(ready: Caller, nobody: Caller) -> None:
    name = "sendtide_training_failed_time_seconds"
    assert value(nobody, name, workspace="default") == 0
    failed = TrainingRun("default", "run_1", "refresh", "failed", NOW, finished_at=NOW, error="KeyError: 'chat'")
    nobody.app.extensions["sendtide"].get().store.write(lambda writer: writer.put_training_run(failed))
    assert value(nobody, name, workspace="default") == NOW.timestamp()


def test_what_wakes_an_operator_is_told_by_campaign(ready: Caller, nobody: Caller) -> None:
    """Drift alarms that stand, data that was refused, policies that were taken back, and that trainings go on."""
    alarms = [{"what": f"features.{name}"} for name in ("age", "plan")] + [{"what": "propensities.replay"}]
    looked: list[dict[str, Any]] = [
        {"campaign_id": "c", "decision": "unchanged", "drift": {"alarms": alarms}},
        {"campaign_id": "b", "decision": "unchanged", "drift": None},
    ]
    judged = [{"campaign_id": "c", "decision": "publish"}, {"campaign_id": "b", "decision": "refused"}]
    runs: tuple[tuple[str, str, str, list[dict[str, Any]]], ...] = (
        ("run_0", "retrain", "rejected", [{"campaign_id": "c", "decision": "refused", "drift": {"alarms": []}}]),
        ("run_1", "retrain", "published", judged),
        ("run_2", "retrain", "failed", []),
        ("run_3", "refresh", "skipped", looked),
    )

    def write(writer: Writer) -> None:
        for n, (name, kind, status, told) in enumerate(runs):
            at = NOW + timedelta(minutes=n)
            run = TrainingRun("default", name, kind, status, at, finished_at=at, verdict={"campaigns": told})  # type: ignore[arg-type]
            writer.put_training_run(run)
        for n, changed in enumerate(("promoted", "rolled_back", "promoted")):
            at = NOW + timedelta(hours=n)
            writer.add_change("default", changed, at, campaign_id="c", policy_id="pol_1")  # type: ignore[arg-type]
        writer.add_policy(Policy("default", "pol_1", "c", NOW, (Component(1.0, None),)))
        pointer = writer.pointer("default", "c")
        generation = 1 if pointer is None else pointer.generation + 1
        writer.move_pointer(Pointer("default", "c", "pol_1", generation, NOW))

    nobody.app.extensions["sendtide"].get().store.write(write)
    told = samples(nobody)
    names = ("sendtide_training_", "sendtide_drift_", "sendtide_policy_rolled")
    found = {
        (name, *(value for _, value in sorted(labels))): figure
        for (name, labels), figure in told.items()
        if name.startswith(names) and "failed" not in name
    }
    assert found == {
        ("sendtide_training_finished_time_seconds", "default"): (NOW + timedelta(minutes=1)).timestamp(),
        ("sendtide_training_refused", "b", "default"): 1.0,
        ("sendtide_training_refused", "c", "default"): 0.0,
        ("sendtide_drift_alarms", "b", "calibration", "default"): 0.0,
        ("sendtide_drift_alarms", "b", "features", "default"): 0.0,
        ("sendtide_drift_alarms", "b", "propensities", "default"): 0.0,
        ("sendtide_drift_alarms", "c", "calibration", "default"): 0.0,
        ("sendtide_drift_alarms", "c", "features", "default"): 2.0,
        ("sendtide_drift_alarms", "c", "propensities", "default"): 1.0,
        ("sendtide_policy_rolled_back_time_seconds", "b", "default"): 0.0,
        ("sendtide_policy_rolled_back_time_seconds", "c", "default"): (NOW + timedelta(hours=1)).timestamp(),
    }


def test_a_retrain_is_told_however_many_refreshes_came_since(ready: Caller, nobody: Caller) -> None:
    """A week of refreshes every ten minutes."""

    def write(writer: Writer) -> None:
        for n in range(1_009):
            kind, at = ("refresh", NOW + timedelta(minutes=10 * n)) if n else ("retrain", NOW)
            writer.put_training_run(TrainingRun("default", f"run_{n}", kind, "skipped", at, finished_at=at))  # type: ignore[arg-type]

    nobody.app.extensions["sendtide"].get().store.write(write)
    assert value(nobody, "sendtide_training_finished_time_seconds", workspace="default") == NOW.timestamp()


def test_a_batch_answered_again_is_not_counted_again(ready: Caller, nobody: Caller, clock: Any) -> None:
    batch = {"campaign_id": "c", "recipients": [{"recipient_id": "u"}]}
    ready("POST", "/v1/decisions/batch", batch, headers={"Idempotency-Key": "k"})
    clock.forward(seconds=1)
    ready("POST", "/v1/decisions/batch", batch, headers={"Idempotency-Key": "k"})
    assert value(nobody, "sendtide_decisions_total", status="reserved", group="treated") == 1
