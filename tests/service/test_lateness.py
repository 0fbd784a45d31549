"""How late outcomes become known: from delays of a known law, only of rows old enough to have shown them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from optimizer.bandit.rewards import Outcome
from optimizer.model.training.quality import examine
from optimizer.service import setup
from optimizer.service.feedback import Log, examples, load
from optimizer.service.lateness import lateness_of, waits, with_late
from optimizer.service.requests import DecisionRequest
from optimizer.service.wiring import Services
from tests.service.conftest import WORKSPACE, FakeClock, campaign

WINDOW = 72.0


@pytest.fixture
def one(services: Services, clock: FakeClock) -> Log:
    """The log of one immediate message whose window has passed."""
    setup.put_campaign(services, campaign(attribution_hours={"clicked": WINDOW}, allow_no_send=False))
    services.decider.decide_batch(WORKSPACE, [DecisionRequest("spring", "u1", immediate=True)], "run")
    clock.forward(days=60)
    with services.store.read() as reader:
        return load(reader, WORKSPACE, clock.now)


def answered(one: Log, heard: np.ndarray[tuple[int], np.dtype[np.float64]], age: float) -> Log:
    """Rows of that age that were clicked, known so many hours after the send; what is not known yet is not there."""
    (row,) = one.rows
    sent = row.decision.decided_at
    known = [Outcome(True, sent, None, True, sent + timedelta(hours=h)) for h in heard.tolist() if h <= age]
    return replace(one, rows=tuple(replace(row, outcomes={"clicked": found}, age=age) for found in known))


def test_what_is_reported_at_once_is_not_late(one: Log) -> None:
    heard = np.random.default_rng(1).uniform(0.0, WINDOW, 1_000)
    log = answered(one, heard, 500.0)
    assert lateness_of(log)["spring"]["clicked"].share.tolist() == [1.0] * 7  # no prior makes anything late
    assert waits(lateness_of(log)) == {"spring": 0.0}
    found = examine(examples(log.rows, log.campaigns))
    assert with_late(found, log) == found


def test_weekly_reports_are_late_and_the_outcome_is_named(one: Log) -> None:
    """What happens evenly over three days is heard within a week from then: 36 hours of the 168 pass within the window
    on average, so .21 are known at its end; .95 within 144 hours, and the next edge of the curve is a week."""
    rng = np.random.default_rng(2)
    heard = rng.uniform(0.0, WINDOW, 4_000) + rng.uniform(0.0, 168.0, 4_000)
    log = answered(one, heard, 1_000.0)
    curve = lateness_of(log)["spring"]["clicked"]
    assert curve.hours.tolist() == [0.0, 0.5, 2.0, 6.0, 24.0, 72.0, 168.0]
    assert curve.share[0] == pytest.approx(36 / 168, abs=0.03)  # four standard errors
    assert waits({"spring": {"clicked": curve}}) == {"spring": 168.0}
    (finding,) = with_late(examine(examples(log.rows, log.campaigns)), log).findings
    assert (finding.feature, finding.problem, finding.left_out) == ("clicked", "late", False)
    assert finding.figure == curve.share[0] < finding.limit
    assert "within 72 hours in campaign spring" in finding.detail


def test_young_rows_do_not_make_late_reports_look_prompt(one: Log) -> None:
    """All is heard 24 hours after the end. Of rows whose windows have just ended the few quick ones alone are there."""
    old = answered(one, np.full(300, WINDOW + 20.0), 400.0)
    young = answered(one, np.full(3_000, WINDOW - 1.0), WINDOW + 1.0)
    both = replace(old, rows=(*old.rows, *young.rows))
    assert lateness_of(both)["spring"]["clicked"].share[0] < 0.1
    assert waits(lateness_of(both)) == {"spring": 24.0}


def test_few_events_name_no_outcome(one: Log) -> None:
    log = answered(one, np.full(19, WINDOW + 20.0), 400.0)
    assert with_late(examine(examples(log.rows, log.campaigns)), log).findings == ()
