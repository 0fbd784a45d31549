"""The drill of webhooks passes on the service as it is, and says so when a count is wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from simulations.drills.webhooks import run as drill
from simulations.drills.webhooks.run import Heard, Size, plan
from simulations.drills.webhooks.senders import SENDERS, Mailgun
from storage.webhooks import Vendor

SENT = Counter({"fresh": 75, "duplicate": 20, "forged": 5})


def heard() -> Heard:
    return Heard(
        Counter({("fresh", 200): 75, ("duplicate", 200): 20, ("forged", 401): 5}),
        Counter({"accepted": 75, "duplicates": 20}),
        [0.001] * 100,
        0,
        1.0,
    )


def wrong(told: Heard, counted: dict[str, int], stored: int, vendor: Vendor = "mailgun") -> tuple[str, ...]:
    return drill._judged(vendor, Size(100, 1), SENT, told, counted, stored).wrong


def test_every_count_must_be_exact() -> None:
    counted = {"accepted": 75, "duplicate": 20, "forged": 5}
    assert wrong(heard(), counted, 75) == ()
    assert wrong(heard(), counted, 76) == ("events stored: 76, not 75",)
    assert len(wrong(heard(), {**counted, "accepted": 74, "rejected": 1}, 75)) == 2
    taken_twice = heard()
    taken_twice.counts.update(accepted=1, duplicates=-1)
    assert len(wrong(taken_twice, counted, 75)) == 2
    forged_taken = heard()
    forged_taken.statuses = Counter({("fresh", 200): 75, ("duplicate", 200): 20, ("forged", 200): 5})
    assert wrong(forged_taken, counted, 75) == ("forged ones refused: 0, not 5",)


def test_a_plan_has_the_asked_shares_and_repeats_only_what_came_before() -> None:
    work = plan(Mailgun(), ["dec_1", "dec_2"], Size(200, 1), "http://x")
    assert Counter(kind for kind, _ in work) == {"fresh": 150, "duplicate": 40, "forged": 10}
    seen = set()
    for kind, request in work:
        assert (kind == "duplicate") == (request.body in seen)
        seen.add(request.body)


@pytest.mark.parametrize("vendor", SENDERS)
def test_a_forged_request_differs_from_the_genuine_one(vendor: Vendor) -> None:
    sender = SENDERS[vendor]()
    work = plan(sender, ["dec_1"], replace(Size(40, 1), seed=3), "http://x")
    genuine = {(request.body, str(request.headers)) for kind, request in work if kind != "forged"}
    forged = {(request.body, str(request.headers)) for kind, request in work if kind == "forged"}
    assert forged
    assert not forged & genuine


def test_a_real_server_takes_each_event_once_and_fetches_the_certificate_from_the_far_side() -> None:
    result = drill.run("ses", Size(rate=60, seconds=1))
    assert result.wrong == ()
    assert result.stored == 45
