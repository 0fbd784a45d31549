"""Which opens and clicks are a machine's: each rule, what must not be one, and no hanging on the order of arrival."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.service.webhooks.delivery import Signs
from optimizer.service.webhooks.machines import AUTOMATED_FROM, CONFIDENCE, MOST, PERSON, TOO_MANY, Trace, judge
from simulations.drills.webhooks.senders import BROWSER

SENT = datetime(2026, 11, 24, 9, tzinfo=UTC)
ARRIVED = SENT + timedelta(seconds=5)
GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
YAHOO = "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html"
PHONE = "Mozilla/5.0 (Linux; Android 12; CUBOT NOTE 20) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36"
OUTLOOK = "Microsoft Office/16.0 (Microsoft Outlook 16.0.17328; Pro)"


def trace(
    name: str, seconds: float = 60.0, type: str = "clicked", url: str = "https://shop.example/a", **signs: str
) -> Trace:
    """A click by a browser, so many seconds after the arrival."""
    told: dict[str, Any] = {"user_agent": BROWSER, "address": "203.0.113.7", **signs}
    return Trace(name, type, ARRIVED + timedelta(seconds=seconds), Signs(url=url, **told))


def reason(*traces: Trace, sent: datetime | None = SENT, arrived: datetime | None = ARRIVED) -> dict[str, str]:
    """By event, the rule that found a machine, empty for a person."""
    labels = judge(traces, sent, arrived)
    assert all(label.automated == (label.confidence >= AUTOMATED_FROM) for label in labels.values())
    return {name: label.reason.partition(":")[0] for name, label in labels.items()}


@pytest.mark.parametrize(
    ("one", "rule"),
    [
        (trace("e", type="opened", flagged="sg_machine_open"), "vendor"),
        (trace("e", flagged="client-info.bot: generic"), "vendor"),
        (trace("e", type="opened", user_agent="Mozilla/5.0"), "apple_privacy"),
        (trace("e", user_agent="Mozilla/5.0 (compatible; Barracuda Sentinel (EE))"), "scanner"),
        (trace("e", user_agent="python-requests/2.32"), "scanner"),
        (trace("e", user_agent="Slackbot 1.0; SkypeUriPreview Preview/0.5 bot"), "scanner"),
        (
            trace("e", user_agent="Mozilla/5.0 AppleWebKit/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0"),
            "scanner",
        ),
        (trace("e", user_agent="Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"), "scanner"),
        (trace("e", user_agent="TelegramBot (like TwitterBot)"), "scanner"),
        (trace("e", user_agent="WhatsApp/2.23.20.0"), "scanner"),
        (trace("e", user_agent="Java/17.0.9"), "scanner"),
        (trace("e", method="HEAD"), "head"),
        (trace("e", seconds=-0.5), "before_delivery"),
        (trace("e", seconds=1.0), "too_soon"),
        (trace("e", seconds=0.0, type="opened"), "too_soon"),
    ],
)
def test_each_sign_of_a_machine_is_found(one: Trace, rule: str) -> None:
    label = judge([one], SENT, ARRIVED)["e"]
    assert label.reason.partition(":")[0] == rule
    assert (label.automated, label.confidence) == (True, CONFIDENCE[rule])


@pytest.mark.parametrize(
    "one",
    [
        trace("e"),
        trace("e", user_agent="", address="", url=""),
        trace("e", type="opened", user_agent=GMAIL),
        trace("e", type="opened", user_agent=YAHOO),
        trace("e", type="opened", user_agent=OUTLOOK),
        trace("e", user_agent=PHONE),
        trace(
            "e", user_agent=f"{PHONE} [FB_IAB/FB4A;FBAV/440.0.0.31.105;]"
        ),  # Facebook's browser, with a person before it
        trace("e", user_agent="Mozilla/5.0"),  # on clicks Apple's proxy is not in between
        trace("e", method="GET"),
        trace("e", seconds=2.0),
        trace("e", seconds=-7200.0),  # another clock's, rather than a filter's
    ],
)
def test_people_are_not_taken_for_machines(one: Trace) -> None:
    assert judge([one], SENT, ARRIVED) == {"e": PERSON}


def test_an_open_and_a_click_at_the_same_moment_are_a_persons() -> None:
    assert reason(trace("o", 30.0, "opened"), trace("c", 30.0)) == {"o": "", "c": ""}


def test_the_time_of_sending_counts_while_the_arrival_is_unknown_but_never_shows_what_came_before() -> None:
    soon, before = trace("soon", -4.0), trace("before", -6.0, address="198.51.100.9")
    assert reason(soon, before, arrived=None) == {"soon": "too_soon", "before": ""}
    assert reason(soon, before) == {"soon": "before_delivery", "before": "before_delivery"}
    assert reason(soon, sent=None, arrived=None) == {"soon": ""}


def links(*seconds: float) -> list[Trace]:
    return [
        trace(f"l{n}", at, url=f"https://shop.example/{n}", address="", user_agent="") for n, at in enumerate(seconds)
    ]


def test_three_links_at_once_are_no_hand_and_two_may_be() -> None:
    assert set(reason(*links(60.0, 61.0, 62.0)).values()) == {"burst"}
    assert set(reason(*links(60.0, 60.0)).values()) == {""}
    assert set(reason(*links(60.0, 61.5, 63.0)).values()) == {""}
    same = [trace(f"s{n}", 60.0) for n in range(5)]
    assert set(reason(*same).values()) == {""}  # one link, clicked again and again


def test_a_later_click_on_its_own_stays_a_persons_beside_a_burst() -> None:
    found = reason(*links(60.0, 60.5, 61.0), trace("later", 3600.0))
    assert found == {"l0": "burst", "l1": "burst", "l2": "burst", "later": ""}


def test_the_open_of_the_client_that_scanned_is_a_machines() -> None:
    scan = trace("scan", 0.5, address="198.51.100.1", user_agent=GMAIL)
    near = trace("near", 5.0, "opened", address="198.51.100.1", user_agent=GMAIL)
    late = trace("late", 600.0, "opened", address="198.51.100.1", user_agent=GMAIL)
    elsewhere = trace("elsewhere", 5.0, "opened", user_agent=GMAIL)
    assert reason(scan, near, late, elsewhere) == {
        "scan": "too_soon",
        "near": "same_client",
        "late": "",
        "elsewhere": "",
    }


def test_only_the_first_thousand_are_judged_together_and_later_ones_are_no_persons() -> None:
    clicks = [trace(f"c{n:04}", 60.0 + 10 * n) for n in range(MOST)]
    late = 70.0 + 10 * MOST
    more = [trace("scanner", late, user_agent="curl/8"), *(trace(f"l{n}", late, url=f"{n}") for n in range(3))]
    found = reason(*more, *clicks)
    assert [found.pop(one.event_id) for one in more] == ["scanner", "too_many", "too_many", "too_many"]
    assert set(found.values()) == {""}
    assert judge([*more, *clicks], SENT, ARRIVED)["l0"] == TOO_MANY


TRACES = st.lists(
    st.builds(
        Trace,
        event_id=st.sampled_from([f"e{n}" for n in range(8)]),
        type=st.sampled_from(["opened", "clicked"]),
        at=st.floats(-3, 12).map(lambda s: ARRIVED + timedelta(seconds=round(s, 1))),
        signs=st.builds(
            Signs,
            flagged=st.sampled_from(["", "", "", "x"]),
            user_agent=st.sampled_from(["", BROWSER, "Mozilla/5.0", "curl/8"]),
            address=st.sampled_from(["", "a", "b"]),
            url=st.sampled_from(["", "1", "2", "3", "4"]),
            method=st.sampled_from(["", "GET", "HEAD"]),
        ),
    ),
    max_size=8,
    unique_by=lambda one: one.event_id,
)
MAYBE = st.sampled_from([None, SENT, ARRIVED])


@given(traces=TRACES, sent=MAYBE, arrived=MAYBE, chance=st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_labels_are_those_of_the_set_whatever_its_order(traces: list[Trace], sent, arrived, chance) -> None:  # type: ignore[no-untyped-def]
    shuffled = [*traces, *traces[:2]]
    chance.shuffle(shuffled)
    assert judge(shuffled, sent, arrived) == judge(traces, sent, arrived)
