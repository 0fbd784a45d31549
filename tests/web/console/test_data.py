"""Data quality and drift: what was stored about it stands on the page, in words, with figures and limits."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from optimizer.service import dataquality, freshreports
from optimizer.service.drifting import beginning
from optimizer.service.driftstate import Alarm, Drift
from storage.policies import Component, Pointer, Policy, TrainingRun
from storage.port import Writer
from tests.web.conftest import NOW, Caller
from tests.web.console.conftest import Browser

SignedIn = Callable[..., Browser]
_TAGS = re.compile(r"<[^>]+>|\s+")
FINDINGS = [
    {"feature": "hair", "problem": "constant", "figure": 1.0, "limit": 1.0, "left_out": True, "detail": "same <b>"},
    {"feature": "age", "problem": "shifted", "figure": 0.412, "limit": 0.2, "left_out": False, "detail": "index"},
    {
        "feature": "client",
        "problem": "leaking",
        "figure": 0.97,
        "limit": 0.9,
        "left_out": False,
        "detail": "certain",
        "declared": True,
    },
]
REFUSED = {"name": "data.times", "passed": False, "figure": 0.4, "limit": 0.01, "detail": "4 of 10 rows"}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is worked out behind the page is waited for."""
    monkeypatch.setattr(freshreports.FreshReports.latest, "__defaults__", (20.0,))


@pytest.fixture
def keep(app: Flask, ready: Caller) -> Callable[..., None]:
    """Stores a run with what it says of the campaign ``c``; each later than the one before."""
    services, count = app.extensions["sendtide"].get(), iter(range(100))

    def stored(kind: str, *before: dict[str, Any], **verdict: Any) -> None:
        n = next(count)
        told = {"campaign_id": "c", "decision": "reject", "rows": 900, **verdict}
        at = NOW + timedelta(seconds=n)
        told = {"campaigns": [*before, told]}
        run = TrainingRun("default", f"run_{n}", kind, "rejected", at, finished_at=at, verdict=told)  # type: ignore[arg-type]
        services.store.write(lambda writer: writer.put_training_run(run))

    return stored


@pytest.fixture
def drift(app: Flask, ready: Caller) -> Drift:
    """The state of a campaign of which nothing has changed."""
    with app.extensions["sendtide"].get().store.read() as reader:
        campaign = reader.campaign("default", "c")
    assert campaign is not None
    return replace(beginning(campaign), rows=4_000, features={"age": (0.05, 0.2)})


def seen(page: str) -> str:
    """The words of the page's main part."""
    return " ".join(_TAGS.sub(" ", page.split("<main", 1)[1]).split())


def test_before_anything_is_known_it_says_what_will_stand_here_and_when(signed_in: SignedIn, ready: Caller) -> None:
    page = seen(signed_in("read").get("/console/data").text)
    assert "Nothing came in" in page
    assert "some seconds after the first event" in page
    assert "in the first training that has a campaign with 200 decisions" in page
    assert "The schedule trains every 4 hours" in page
    assert "Once a learned policy serves, each look (every 1 minute)" in page


def test_a_run_that_had_too_little_says_how_much_is_needed(signed_in: SignedIn, keep: Callable[..., None]) -> None:
    keep("retrain", decision="skipped", rows=41)
    page = seen(signed_in("read").get("/console/data").text)
    assert "the last run found 41 decisions of which nothing more is expected, and 200 are needed" in page


def test_what_looks_tell_beside_a_verdict_does_not_stand_for_it(signed_in: SignedIn, keep: Callable[..., None]) -> None:
    looks = {"campaign_id": "c", "decision": "shares", "rows": 700, "reason": "too few are shared", "looks": {}}
    keep("retrain", looks, decision="skipped", rows=41)
    page = seen(signed_in("read").get("/console/data").text)
    assert "the last run found 41 decisions" in page
    assert "too few are shared" not in page.lower()


def test_a_run_that_had_enough_rows_of_too_few_people_says_why_it_waits(
    signed_in: SignedIn, keep: Callable[..., None]
) -> None:
    keep(
        "retrain",
        decision="skipped",
        rows=240,
        reason="the 240 rows to judge by are of too few recipients: 4, and 5 are needed",
    )
    page = seen(signed_in("read").get("/console/data").text)
    assert "The 240 rows to judge by are of too few recipients: 4, and 5 are needed" in page
    assert "Too little to learn from" not in page


def test_findings_stand_by_name_with_what_was_done(
    signed_in: SignedIn, keep: Callable[..., None], drift: Drift
) -> None:
    keep("retrain", data={"rows": 5, "features": 1, "left_out": [], "findings": []})
    keep("retrain", data={"rows": 20_000, "features": 7, "left_out": ["hair"], "findings": FINDINGS})
    for _ in range(3):
        keep("refresh", drift=drift.to_json())
    text = signed_in("read").get("/console/data").text
    assert "same <b>" not in text
    page = seen(text)
    assert "The last training of c looked at 7 features in 20,000 decisions" in page
    assert "hair Constant tells nothing Left out 1 1" in page
    assert "age Shifted newer values unlike the older Guarded 0.412 0.2" in page
    assert "client Leaking known only after the send Kept, declared 0.97 0.9" in page
    assert "What comes in looks as the policy expects." in page
    assert "4,000 decisions with their predictions" in page
    assert "Feature “age” unlike the rows that were trained on 0.05 0.2" in page


def test_refused_data_is_told_with_what_was_wrong(signed_in: SignedIn, keep: Callable[..., None]) -> None:
    passed = {**REFUSED, "name": "data.values", "passed": True, "detail": "fine"}
    keep("retrain", decision="refused", conditions=[REFUSED, passed])
    page = seen(signed_in("read").get("/console/data").text)
    assert "Data refused" in page
    assert "4 of 10 rows" in page
    assert "fine" not in page


def test_an_alarm_of_propensities_ends_by_draws_and_the_others_by_compared_rows(
    keep: Callable[..., None], drift: Drift, app: Flask
) -> None:
    at = NOW.timestamp()
    alarms = (
        Alarm("calibration.clicked.lower", at, at, 3_500, 3_900, 18.2, 18.2),
        Alarm("propensities.variant:a.more", at, at, 8_000, 8_000, 18.2, 18.2),
    )
    keep("refresh", drift=replace(drift, drawn=8_900, alarms=alarms).to_json())
    (told,) = dataquality.data_quality(app.extensions["sendtide"].get(), "default")["campaigns"]
    assert {one["what"]: one["ends"] for one in told["drift"]["alarms"]} == {
        "calibration.clicked.lower": 900,
        "propensities.variant:a.more": 100,
    }


def test_alarms_stand_with_their_figures_and_what_they_do(
    signed_in: SignedIn, keep: Callable[..., None], drift: Drift, app: Flask
) -> None:
    at = NOW.timestamp()
    alarms = (
        Alarm("calibration.clicked.lower", at, at - 86_400, 3_500, 3_900, 18.2, 18.2),
        Alarm("features.age", at, at, 4_000, 4_000, 0.61, 0.2),
        Alarm("propensities.replay", at, at, 4_000, 4_000, 18.2, 18.2),
    )
    keep("refresh", drift=replace(drift, alarms=alarms, changed=at - 86_400).to_json())
    policy = Policy("default", "pol_1", "c", NOW, (Component(1.0, None),), "live", exploration={"anneal": 1.0})

    def serve(writer: Writer) -> None:
        writer.add_policy(policy)
        writer.move_pointer(Pointer("default", "c", "pol_1", 1, NOW))

    app.extensions["sendtide"].get().store.write(serve)
    page = seen(signed_in("read").get("/console/data").text)
    assert "3 alarms" in page
    assert "“Clicked” less often than predicted" in page
    assert "after 900 more decisions without an alarm" in page
    assert "rows since the change tell what is different" in page
    assert "Feature “age” unlike the rows that were trained on features.age" in page
    assert "0.61 0.2 Exploration is at the campaign’s full rate." in page
    assert "Logged probabilities that can’t be computed again" in page
    assert "100% of the campaign’s full rate. Raised by the alarm." in page
    assert "outcomes of before" in page


def test_what_came_in_is_counted_by_source_and_reason(signed_in: SignedIn, ready: Caller, app: Flask) -> None:
    ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "ada", "request_id": "r"})
    good = {"request_id": "r", "type": "clicked", "occurred_at": NOW.isoformat()}
    late = {**good, "occurred_at": (NOW + timedelta(days=1)).isoformat()}
    lost = {"decision_id": "dec_unknown", "type": "clicked", "occurred_at": NOW.isoformat()}
    report = ready("POST", "/v1/events", {"events": [good, good, late, lost, {"type": "clicked"}]})
    assert report.status_code == 202
    source = {"vendor": "mailgun", "secrets": ["key"]}
    assert ready("PUT", "/v1/webhook-sources/hooks-1", source).status_code == 201
    forged = app.test_client().post("/v1/webhooks/mailgun/hooks-1", json={"signature": {}})
    assert forged.status_code == 401
    services = app.extensions["sendtide"].get()
    services.intake.flush()
    page = seen(signed_in("read").get("/console/data").text)
    assert "1 event names a decision that is not known" in page
    assert "API 5 1 1 1 0 0 2" in page
    assert "in the future: 1" in page
    assert "Mailgun 1 0 0 0 0 1 0" in page
    assert "Nothing came in" in seen(signed_in("read", workspace="other").get("/console/data").text)
    with services.store.read() as reader:
        assert dataquality.intake(reader, "default", NOW + timedelta(days=dataquality.DAYS)) == []


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("calibration.my.own.lower", ("calibration", "my.own", "lower")),
        ("propensities.variant:a.b.more", ("propensities", "variant:a.b", "more")),
        ("propensities.no_send.less", ("propensities", "no_send", "less")),
        ("propensities.replay", ("propensities", "replay", "")),
        ("features.plan.lower", ("features", "plan.lower", "")),
    ],
)
def test_a_detector_is_named_in_parts_whatever_its_subject_is_called(name: str, parts: tuple[str, str, str]) -> None:
    found = dataquality.detector_of(name)
    assert (found["family"], found["of"], found["way"]) == parts
