"""SES through SNS: two ways of publishing, certificates, topics, subscriptions."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import orjson
import pytest

from optimizer.errors import Forged, Unreachable
from optimizer.service.wiring import Services
from simulations.drills.webhooks.senders import CERTIFICATE_URL, TOPIC, Request, Ses
from tests.web.conftest import Caller, StillClock
from tests.web.webhooks.conftest import FarSide, Hook, hook_of, unmatched
from tests.web.webhooks.test_events import of, types


@pytest.fixture(autouse=True)
def _later(clock: StillClock, decision: dict[str, Any]) -> None:
    """An hour after the decision was made."""
    assert decision
    clock.forward(hours=1)


def test_an_event_that_ses_publishes_in_both_ways_counts_once(
    hooks: dict[Any, Hook], services: Services, decision: dict[str, Any]
) -> None:
    hook = hooks["ses"]
    for order, (number, type) in itertools.product((1, -1), enumerate(("delivered", "bounced", "complained"))):
        event = hook.sender.record(of(decision, type, number + (10 if order < 0 else 0)))
        notification = {"notificationType": event["eventType"], **{k: v for k, v in event.items() if k != "eventType"}}
        notification["mail"] = {k: v for k, v in event["mail"].items() if k != "tags"}
        for record in (event, notification)[::order]:
            assert hook.post(hook.sender.request(record, hook.clock.now)).status_code == 200
    assert types(services, decision) == sorted(["delivered", "bounced", "complained"] * 2)
    assert unmatched(services) == 0


def test_what_befell_several_addresses_is_told_apart_by_address(
    hooks: dict[Any, Hook], services: Services, decision: dict[str, Any]
) -> None:
    hook = hooks["ses"]
    both = ["Alex@example.com", "kim@example.com"]

    def say(type: str, list_name: str, *addresses: str) -> dict[str, int]:
        record = hook.sender.record(of(decision, type))
        record["mail"]["destination"] = both
        record[record["eventType"].lower()][list_name] = [{"emailAddress": one} for one in addresses]
        counts: dict[str, int] = hook.post(hook.sender.request(record, hook.clock.now)).get_json()
        return {name: counts[name] for name in ("accepted", "duplicates")}

    assert say("bounced", "bouncedRecipients", both[0]) == {"accepted": 1, "duplicates": 0}
    assert say("bounced", "bouncedRecipients", both[1]) == {"accepted": 1, "duplicates": 0}
    assert say("bounced", "bouncedRecipients", *both) == {"accepted": 0, "duplicates": 2}
    assert say("complained", "complainedRecipients", both[0].lower(), both[0]) == {"accepted": 1, "duplicates": 0}
    assert say("complained", "complainedRecipients", *both) == {"accepted": 1, "duplicates": 1}
    assert types(services, decision) == ["bounced"] * 2 + ["complained"] * 2


@pytest.mark.parametrize("odd", [None, "x", [], [None, {}, {"emailAddress": 7}]])
def test_a_list_of_addresses_that_is_none_loses_no_bounce(
    hooks: dict[Any, Hook], services: Services, decision: dict[str, Any], odd: Any
) -> None:
    hook = hooks["ses"]
    record = hook.sender.record(of(decision, "bounced"))
    record["mail"]["destination"] = ["a@example.com", "b@example.com"]
    record["bounce"]["bouncedRecipients"] = odd
    assert hook.post(hook.sender.request(record, hook.clock.now)).get_json()["accepted"] == 1
    assert types(services, decision) == ["bounced"]


def test_a_tag_is_found_in_the_headers_of_a_notification(
    hooks: dict[Any, Hook], services: Services, decision: dict[str, Any]
) -> None:
    hook = hooks["ses"]
    record = hook.sender.record(replace(of(decision, "delivered"), decision_id=None))
    tag = f"kind=news, sendtide_decision_id={decision['decision_id']}"
    record["mail"]["headers"] = [None, {"name": "X-SES-MESSAGE-TAGS", "value": tag}]
    hook.post(hook.sender.request(record, hook.clock.now))
    assert types(services, decision) == ["delivered"]


@pytest.mark.parametrize("version", ["1", "2"])
def test_both_versions_of_the_signature_hold_and_the_certificate_is_fetched_once(
    ready: Caller, clock: StillClock, far_side: FarSide, decision: dict[str, Any], version: str
) -> None:
    hook = replace(hook_of(ready, "ses", clock, far_side), sender=Ses(version))
    far_side.pages[CERTIFICATE_URL] = cast(Ses, hook.sender).certificate
    for number in range(3):
        assert hook.say(of(decision, "opened", number))[0].status_code == 200
    assert far_side.fetched == [CERTIFICATE_URL]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "soon", None])
def test_a_time_that_is_none_is_refused_before_anything_is_fetched(
    hooks: dict[Any, Hook], far_side: FarSide, at: str | None
) -> None:
    body = {"Type": "Notification", "TopicArn": TOPIC, "Message": "{}", "Timestamp": at}
    reply = hooks["ses"].post(Request(orjson.dumps(body), {"Content-Type": "application/json"}))
    assert (reply.status_code, reply.get_json()["code"]) == (401, "forged")
    assert "Timestamp" in reply.get_json()["detail"]
    assert far_side.fetched == []


CONFIRM = {
    "Type": "SubscriptionConfirmation",
    "Message": "You have chosen …",
    "Token": "t",
    "SubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=t",
}
NOTICE = {"Type": "Notification", "Message": "Successfully validated SNS topic"}


@pytest.mark.parametrize(
    ("members", "status", "fetched"),
    [
        (CONFIRM, 200, [CERTIFICATE_URL, CONFIRM["SubscribeURL"]]),
        ({**CONFIRM, "Type": "UnsubscribeConfirmation"}, 200, [CERTIFICATE_URL]),
        ({**CONFIRM, "TopicArn": TOPIC + "2"}, 401, []),
        ({**CONFIRM, "SubscribeURL": "https://evil.example/?sns.eu-west-1.amazonaws.com"}, 401, [CERTIFICATE_URL]),
        ({**CONFIRM, "SubscribeURL": "https://sns.eu-west-1.amazonaws.com@evil.example/"}, 401, [CERTIFICATE_URL]),
        ({**CONFIRM, "SubscribeURL": "http://sns.eu-west-1.amazonaws.com/"}, 401, [CERTIFICATE_URL]),
        ({"Type": "Notification", "Message": "{}", "SigningCertURL": "https://evil.example/a.pem"}, 401, []),
        ({"Type": "Notification", "Message": "{}", "SigningCertURL": CERTIFICATE_URL[:-4]}, 401, []),
        (
            {"Type": "Notification", "Message": "{}", "SigningCertURL": CERTIFICATE_URL.replace("/Simple", "/é")},
            401,
            [],
        ),
        ({"Type": "Notification", "Message": "{}", "SigningCertURL": CERTIFICATE_URL[:-4] + "\n.pem"}, 401, []),
        ({"Type": "Notification", "Message": "{}", "SigningCertURL": CERTIFICATE_URL + "?a=.pem"}, 401, []),
        (
            {"Type": "Notification", "Message": "{}", "SigningCertURL": "https://sns.x.amazonaws.com.evil/a.pem"},
            401,
            [],
        ),
        (
            {"Type": "Notification", "Message": "Successfully validated SNS topic", "Subject": "Hi"},
            200,
            [CERTIFICATE_URL],
        ),
    ],
)
def test_only_sns_is_believed_and_only_allowed_topics_are_confirmed(
    ready: Caller, clock: StillClock, far_side: FarSide, members: dict[str, str], status: int, fetched: list[str]
) -> None:
    hook = hook_of(ready, "ses", clock, far_side)
    far_side.pages[CONFIRM["SubscribeURL"]] = b"<ConfirmSubscriptionResponse/>"
    reply = hook.post(cast(Ses, hook.sender).envelope(members, clock.now))
    assert reply.status_code == status, reply.get_data(as_text=True)
    assert far_side.fetched == fetched


def test_sns_is_asked_to_come_again_while_its_certificate_can_not_be_fetched(
    ready: Caller, clock: StillClock, far_side: FarSide, decision: dict[str, Any]
) -> None:
    hook = hook_of(ready, "ses", clock, far_side)
    far_side.fault = Unreachable("no route")
    (reply,) = hook.say(of(decision, "opened"))
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "30")
    far_side.fault = Forged("answers 404")
    assert hook.say(of(decision, "opened"))[0].status_code == 401
    far_side.fault = None
    far_side.pages[CERTIFICATE_URL] = b"not a certificate"
    assert hook.say(of(decision, "opened"))[0].status_code == 401
    far_side.pages[CERTIFICATE_URL] = Ses(holds_from=clock.now + timedelta(days=1)).certificate
    assert hook.say(of(decision, "opened"))[0].status_code == 401
    far_side.pages[CERTIFICATE_URL] = cast(Ses, hook.sender).certificate
    assert hook.say(of(decision, "opened"))[0].status_code == 200
