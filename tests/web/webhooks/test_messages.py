"""Message ids by which vendors name messages: how they are spelled, and those that several messages share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from optimizer.service.webhooks.messages import normalised
from optimizer.service.wiring import Services
from simulations.drills.webhooks.senders import Happened
from tests.web.conftest import Caller, StillClock
from tests.web.webhooks.conftest import Hook, events_of, metric, unmatched

PEOPLE = ("u1", "u2")
#: Of SendGrid one call with several personalizations, of Mailgun one with recipient variables.
SHARED = {"sendgrid": "m-1", "mailgun": "<m-1@mg.example.com>"}


@pytest.fixture(params=SHARED)
def mailing(request: pytest.FixtureRequest, hooks: dict[Any, Hook]) -> Hook:
    """Each vendor in turn whose one call may send to many people."""
    return hooks[request.param]


@pytest.fixture
def decisions(ready: Caller, clock: StillClock) -> dict[str, str]:
    """Ids of an immediate message to each person, five minutes ago."""
    asked = [{"campaign_id": "c", "recipient_id": one, "request_id": one, "immediate": True} for one in PEOPLE]
    made = [ready("POST", "/v1/decisions", one).get_json()["decision_id"] for one in asked]
    clock.forward(minutes=5)
    return dict(zip(PEOPLE, made, strict=True))


@pytest.fixture
def confirmed(ready: Caller, mailing: Hook, decisions: dict[str, str]) -> dict[str, str]:
    """The same, sent by one call."""
    vendor = mailing.sender.vendor
    for one in decisions.values():
        told = {"provider": vendor, "message_id": SHARED[vendor]}
        assert ready("POST", f"/v1/decisions/{one}/confirm", told).status_code == 200
    return decisions


def bounced(clock: StillClock, decision_id: str | None = None) -> Happened:
    return Happened(1, "bounced", clock.now, "m-1", decision_id)


def refused(ready: Caller) -> list[str]:
    """Who is silenced."""
    found = {one: ready("GET", f"/v1/recipients/{one}").get_json() for one in PEOPLE}
    return [one for one, record in found.items() if record.get("suppressed")]


def heard(services: Services, decisions: dict[str, str]) -> list[list[str]]:
    return [[event.type for event in events_of(services, one)] for one in decisions.values()]


def test_what_befell_one_of_several_messages_with_one_id_is_nobodys(
    ready: Caller, mailing: Hook, services: Services, clock: StillClock, confirmed: dict[str, str]
) -> None:
    (reply,) = mailing.say(bounced(clock))
    assert reply.get_json() == {"accepted": 0, "duplicates": 0, "unmatched": 0, "rejected": 1}
    assert (refused(ready), heard(services, confirmed), unmatched(services)) == ([], [[], []], 0)
    assert metric(mailing.app, mailing.sender.vendor, "rejected") == 1


def test_by_its_decision_it_is_told_apart(
    ready: Caller, mailing: Hook, services: Services, clock: StillClock, confirmed: dict[str, str]
) -> None:
    mailing.say(bounced(clock), replace(bounced(clock, confirmed["u1"]), number=2))
    assert (refused(ready), heard(services, confirmed)) == (["u1"], [["bounced"], []])


def test_the_message_of_somebody_erased_counts_among_those_that_share_its_id(
    ready: Caller, mailing: Hook, services: Services, clock: StillClock, confirmed: dict[str, str]
) -> None:
    assert ready("DELETE", "/v1/recipients/u1").status_code == 204
    assert mailing.say(bounced(clock))[0].get_json()["rejected"] == 1
    assert (refused(ready), heard(services, confirmed), unmatched(services)) == ([], [[], []], 0)


@pytest.mark.parametrize(
    ("named", "answer", "silenced"),
    [
        ({}, "ambiguous", []),
        ({"recipient_id": "u1"}, None, ["u1"]),
        ({"recipient_id": "u2"}, None, ["u2"]),
        ({"recipient_id": "u3"}, None, []),
    ],
)
def test_a_caller_may_name_the_recipient_beside_it(
    ready: Caller,
    clock: StillClock,
    decisions: dict[str, str],
    named: dict[str, str],
    answer: str | None,
    silenced: list[str],
) -> None:
    for one in decisions.values():
        ready("POST", f"/v1/decisions/{one}/confirm", {"provider": "acme", "message_id": "m"})
    event = {"type": "bounced", "provider": "acme", "message_id": "m", "occurred_at": clock.now.isoformat(), **named}
    rejected = ready("POST", "/v1/events", {"events": [event]}).get_json()["rejected"]
    assert [one["code"] for one in rejected] == ([answer] if answer else [])
    if answer:
        assert rejected[0]["detail"].startswith("message_id: 'm' of 'acme' was confirmed for messages to several")
    assert refused(ready) == silenced


def test_several_messages_to_one_person_may_share_an_id(
    ready: Caller, hooks: dict[Any, Hook], services: Services, clock: StillClock, decisions: dict[str, str]
) -> None:
    asked = {"campaign_id": "c", "recipient_id": "u1", "request_id": "again", "immediate": True}
    newest = ready("POST", "/v1/decisions", asked).get_json()["decision_id"]
    for one in (newest, decisions["u1"]):
        ready("POST", f"/v1/decisions/{one}/confirm", {"provider": "sendgrid", "message_id": "m-1"})
    hooks["sendgrid"].say(bounced(clock))
    assert [event.type for event in events_of(services, newest)] == ["bounced"]


@pytest.mark.parametrize(
    ("told", "own"),
    [
        ("14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0", "14c5d75ce93.dfd.64b469"),
        ("142d9f3f351.7618.254f56.filter-147.22649.52A663508.0", "142d9f3f351.7618.254f56"),
        ("14c5d75ce93.dfd.64b469", "14c5d75ce93.dfd.64b469"),
        ("euo2iKxdSayPF4YE4--I7A.recvd-5f54b5d587-pczjm-1-67BADEEA-6.0", "euo2iKxdSayPF4YE4--I7A"),
        ("euo2iKxdSayPF4YE4--I7A.something-new.0", "euo2iKxdSayPF4YE4--I7A"),
        ("euo2iKxdSayPF4YE4--I7A", "euo2iKxdSayPF4YE4--I7A"),
        (".filter0001", ".filter0001"),
    ],
)
def test_sendgrids_ids_lose_their_suffix_alone(told: str, own: str) -> None:
    assert normalised("SendGrid", told) == ("sendgrid", own)


def told(name: str, recipient_id: str | None) -> dict[str, Any]:
    about = {} if recipient_id is None else {"recipient_id": recipient_id}
    return {"event_id": name, "type": "unsubscribed", "provider": "acme", "message_id": "M", **about}


@pytest.mark.parametrize("confirmed_first", [0, 1, 2])
def test_an_event_that_names_its_recipient_is_of_nobody_else(
    ready: Caller, clock: StillClock, decisions: dict[str, str], confirmed_first: int
) -> None:
    """However many of the people who share the id are confirmed by then."""
    ids = list(decisions.values())

    def confirm(some: list[str]) -> None:
        for one in some:
            body = {"provider": "acme", "message_id": "M"}
            assert ready("POST", f"/v1/decisions/{one}/confirm", body).status_code == 200

    confirm(ids[:confirmed_first])
    event = told("e1", "u2") | {"occurred_at": clock.now.isoformat()}
    assert ready("POST", "/v1/events", {"events": [event]}).get_json()["accepted"] == 1
    confirm(ids[confirmed_first:])
    assert refused(ready) == ["u2"]


def test_a_retry_is_a_duplicate_though_the_id_is_of_several_by_now(
    ready: Caller, clock: StillClock, decisions: dict[str, str]
) -> None:
    first, second = (f"/v1/decisions/{one}/confirm" for one in decisions.values())
    event = {"events": [told("e1", None) | {"occurred_at": clock.now.isoformat()}]}
    ready("POST", first, {"provider": "acme", "message_id": "M"})
    assert ready("POST", "/v1/events", event).get_json()["accepted"] == 1
    ready("POST", second, {"provider": "acme", "message_id": "M"})
    again = ready("POST", "/v1/events", event).get_json()
    assert (again["accepted"], again["duplicates"], again["rejected"]) == (0, 1, [])
    assert refused(ready) == ["u1"]
