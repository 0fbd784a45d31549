"""The demo: a made-up audience whose tastes can be learned, and a course that shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from simulations.audience import CHANNELS, VARIANTS, Person, audience, click_chance, hours_off, respond
from simulations.audit import audit
from simulations.demo import command
from simulations.demo_days import CAMPAIGN, Day, Row, lift, live
from simulations.stage import WORKSPACE, app_stage

SOMEONE = Person("p", "Europe/Berlin", {"work": "office"}, best_hour=12.0, channel="email", topic="story")


def test_the_same_seed_gives_the_same_audience() -> None:
    assert audience(5, np.random.default_rng(1)) == audience(5, np.random.default_rng(1))


def test_attributes_tell_something_of_the_habits() -> None:
    people = audience(600, np.random.default_rng(2))
    hours = {
        work: np.mean([p.best_hour for p in people if p.attributes["work"] == work]) for work in ("shift", "student")
    }
    # The kinds lie 12.5 h apart; each mean's standard error is below .1 h.
    assert hours["student"] - hours["shift"] > 11
    assert np.mean([p.channel == "push" for p in people if p.attributes["device"] == "phone"]) > 0.8


def test_hours_are_counted_around_the_clock() -> None:
    assert hours_off(SOMEONE, 23.0) == 11.0
    assert hours_off(SOMEONE, 1.0) == 11.0


def test_the_best_message_is_at_the_best_hour_on_the_liked_channel_about_the_liked_topic() -> None:
    every = {
        (v, c, h): click_chance(SOMEONE, variant=v, channel=c, hour=h)
        for v in VARIANTS
        for c in CHANNELS
        for h in range(24)
    }
    assert max(every, key=lambda one: every[one]) == ("story", "email", 12)
    assert 0 < min(every.values()) < max(every.values()) < 1


def test_a_click_implies_an_open() -> None:
    rng = np.random.default_rng(3)
    seen = [respond(SOMEONE, variant="story", channel="email", hour=12.0, rng=rng) for _ in range(200)]
    assert any(r.clicked for r in seen)
    assert any(r.opened and not r.clicked for r in seen)
    assert all(r.opened for r in seen if r.clicked)


def test_the_lift_counts_people_and_only_the_later_half_of_the_days() -> None:
    early = Day(1, (Row("a", "treated", 9.0, 1.0), Row("b", "random", 0.0, 1.0)), "reject")
    late = Day(
        2,
        (
            *(Row(f"t{i}", "treated", r, 1.0) for i, r in enumerate((1.0, 0.0, 1.0, 0.0))),
            *(Row(f"r{i}", "random", r, None) for i, r in enumerate((0.0, 0.0, 0.5, 0.5))),
            Row("h", "holdout", 0.0, None),
        ),
        "publish",
    )
    found = lift([early, late])
    assert (found.first_day, found.last_day) == (2, 2)
    assert found.difference == pytest.approx(0.25)
    # variances of the means: (1/3)/4 and (1/12)/4, so the half width is 1.959964 x sqrt(.1041667)
    assert found.high - found.difference == pytest.approx(1.959964 * 0.3227486, rel=1e-5)
    assert "days 2–2: +0.250 a decision" in found.sentence()


def test_a_day_sends_confirms_and_reports_all_that_happened() -> None:
    days: list[Day] = []
    with app_stage(seed=4, gate=True) as stage:
        live(stage, recipients=40, days=1, seed=4, tell=lambda _: None, on_day=days.append)
        with stage.services.store.read() as reader:
            logged = list(reader.feedback(WORKSPACE, campaign_id=CAMPAIGN))
            audited = audit(reader, WORKSPACE)
    sent = [row for row in logged if row.decision.send_at is not None]
    assert {row.decision.status for row in sent} == {"sent"}
    assert any(row.decision.claimed_at is not None for row in sent)
    assert {row.decision.group for row in logged} >= {"treated", "random"}
    assert {row.decision.sent_at == row.decision.send_at for row in sent} == {True}
    assert all(e.occurred_at > row.decision.send_at for row in sent for e in row.events if row.decision.send_at)
    assert audited.clean
    assert audited.otherwise == {}
    clicks = sum(event.type == "clicked" for row in logged for event in row.events)
    assert clicks == sum(row.reward > 1 for row in days[0].rows)


def test_the_demo_learns_through_the_app_and_draws_its_picture(tmp_path: Path) -> None:
    picture = tmp_path / "demo.png"
    arguments = ["--recipients", "220", "--days", "2", "--through", "app", "--out", str(picture), "--json"]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = orjson.loads(done.stdout)
    assert [day["learned"] in ("publish", "reject") for day in report["days"]] == [True, True]
    assert report["lift"]["low"] <= report["lift"]["difference"] <= report["lift"]["high"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_kept_database_is_never_one_that_is_there(tmp_path: Path) -> None:
    kept = tmp_path / "kept.db"
    kept.write_bytes(b"mine")
    result = CliRunner().invoke(command, ["--keep", str(kept)])
    assert result.exit_code == 1
    assert "is there already" in result.stderr
    assert kept.read_bytes() == b"mine"
