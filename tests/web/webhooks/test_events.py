"""What vendors say: correlated, counted once, opt-outs obeyed, and one bad element spoils no other."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import orjson
import pytest
from werkzeug.test import TestResponse

from optimizer.config import Settings
from optimizer.service.webhooks.vendors import VENDORS as MODULES
from optimizer.service.wiring import Services
from simulations.drills.webhooks.senders import Happened, Mailgun, SendGrid
from tests.web.conftest import NOW, Caller, StillClock
from tests.web.webhooks.conftest import VENDORS, FarSide, Hook, events_of, hook_of, metric, unmatched

TYPES = ("delivered", "opened", "clicked", "bounced", "complained", "unsubscribed")


def of(decision: dict[str, Any], type: str, number: int = 1, /, **more: Any) -> Happened:
    return Happened(number, type, NOW + timedelta(minutes=5), f"m-{number}", decision["decision_id"], more)


def types(services: Services, decision: dict[str, Any]) -> list[str]:
    return sorted(event.type for event in events_of(services, decision["decision_id"]))


@pytest.fixture(autouse=True)
def _later(clock: StillClock, decision: dict[str, Any]) -> None:
    """An hour after the decision was made."""
    assert decision
    clock.forward(hours=1)


def test_events_find_their_decision_by_the_argument_that_the_sender_gave(
    hook: Hook, services: Services, decision: dict[str, Any]
) -> None:
    said = [one for one in TYPES if hook.sender.vendor != "twilio" or one in ("delivered", "opened", "bounced")]
    replies = hook.say(*(of(decision, type, number) for number, type in enumerate(said)))
    assert {reply.status_code for reply in replies} <= {200, 204}
    assert types(services, decision) == sorted(said)
    assert unmatched(services) == 0


MESSAGE_IDS = {
    "sendgrid": "m-1",  # as in X-Message-Id; events have a suffix
    "mailgun": "<m-1@mg.example.com>",  # as the send call answers; events have no brackets
}


@pytest.mark.parametrize("confirmed_first", [True, False])
def test_without_it_events_find_their_decision_by_the_confirmed_message_id(
    ready: Caller, hook: Hook, services: Services, decision: dict[str, Any], confirmed_first: bool
) -> None:
    vendor = hook.sender.vendor
    told = {"provider": "acme" if vendor == "standard" else vendor, "message_id": MESSAGE_IDS.get(vendor, "m-1")}
    steps: list[Callable[[], TestResponse]] = [
        lambda: ready("POST", f"/v1/decisions/{decision['decision_id']}/confirm", told),
        lambda: hook.say(replace(of(decision, "delivered"), decision_id=None))[0],
    ]
    for step in steps if confirmed_first else reversed(steps):
        assert step().status_code in (200, 204)
    assert types(services, decision) == ["delivered"]
    assert unmatched(services) == 0


def test_an_argument_that_is_no_decision_does_not_hide_the_message(
    ready: Caller, hooks: dict[Any, Hook], services: Services, decision: dict[str, Any]
) -> None:
    ready("POST", f"/v1/decisions/{decision['decision_id']}/confirm", {"provider": "sendgrid", "message_id": "m-1"})
    hooks["sendgrid"].say(replace(of(decision, "opened"), decision_id="order 77"))
    assert types(services, decision) == ["opened"]


def test_the_same_again_counts_once_and_in_any_order(hook: Hook, services: Services, decision: dict[str, Any]) -> None:
    said = [of(decision, type, n) for n, type in enumerate(("delivered", "opened", "bounced"))]
    requests = [hook.request(one) for one in said] * 3
    random.Random(hook.sender.vendor).shuffle(requests)
    for request in requests:
        assert hook.post(request).status_code in (200, 204)
    assert types(services, decision) == ["bounced", "delivered", "opened"]
    assert metric(hook.app, hook.sender.vendor, "accepted") == 3
    assert metric(hook.app, hook.sender.vendor, "duplicate") == 6


@pytest.mark.parametrize("type", ["unsubscribed", "complained", "bounced"])
def test_an_opt_out_silences_the_recipient(ready: Caller, hook: Hook, decision: dict[str, Any], type: str) -> None:
    more: dict[str, Any] = {}
    if hook.sender.vendor == "twilio":
        if type == "complained":
            return  # nobody complains to Twilio
        type, more = "undelivered", {"ErrorCode": {"unsubscribed": "21610", "bounced": "30005"}[type]}
    assert hook.say(of(decision, type, 1, **more))[0].status_code in (200, 204)
    assert ready("GET", "/v1/recipients/u1").get_json()["suppressed"]
    asked = {"campaign_id": "c", "recipient_id": "u1", "request_id": "r2", "immediate": True}
    assert ready("POST", "/v1/decisions", asked).get_json()["status"] == "withheld"


def test_a_standard_webhook_that_names_nothing_is_rejected_as_by_the_api(
    hooks: dict[Any, Hook], services: Services
) -> None:
    hook = hooks["standard"]
    bare: dict[str, Any] = {"type": "clicked", "timestamp": hook.clock.now.isoformat()}
    for number, data in enumerate(({}, {"provider": "acme"}, {"recipient_id": None}, [])):
        reply = hook.post(hook.sender.request({**bare, "@id": f"msg_{number}", "data": data}, hook.clock.now))
        assert reply.get_json() == {"accepted": 0, "duplicates": 0, "unmatched": 0, "rejected": 1}
    assert unmatched(services) == 0
    for number, name in enumerate(("request_id", "message_id"), start=10):
        reply = hook.post(hook.sender.request({**bare, "@id": f"msg_{number}", "data": {name: "x"}}, hook.clock.now))
        assert reply.get_json()["unmatched"] == 1


def test_the_ids_of_two_sources_never_make_one_event_of_two(
    ready: Caller, clock: StillClock, far_side: FarSide, services: Services, decision: dict[str, Any]
) -> None:
    sources = {name: hook_of(ready, "standard", clock, far_side, name) for name in ("a:b", "a")}
    for name, id, type in (("a:b", "c", "clicked"), ("a", "b:c", "unsubscribed"), ("a", "c", "opened")):
        hook = sources[name]
        request = hook.sender.request({**hook.sender.record(of(decision, type)), "@id": id}, clock.now)
        assert hook.post(request).get_json()["accepted"] == 1
        assert hook.post(request).get_json()["duplicates"] == 1
    found = {event.type: event.event_id for event in events_of(services, decision["decision_id"])}
    assert found.keys() == {"clicked", "unsubscribed", "opened"}
    # Ids that held are what they were, so that a repetition is recognised by whoever stored the first.
    assert (found["unsubscribed"], found["opened"]) == ("standard:a:b:c", "standard:a:c")


SOFT: dict[str, tuple[str, dict[str, Any]]] = {
    "sendgrid": ("bounced", {"type": "blocked"}),
    "mailgun": ("failed", {"severity": "permanent", "reason": "old"}),
    "postmark": ("bounced", {"Type": "SoftBounce"}),
    "ses": ("bounced", {"bounceType": "Transient"}),
    "twilio": ("undelivered", {"ErrorCode": "30003"}),
    "standard": ("bounced", {"hard": False}),
}


def test_a_soft_bounce_silences_nobody(ready: Caller, hook: Hook, services: Services, decision: dict[str, Any]) -> None:
    type, more = SOFT[hook.sender.vendor]
    hook.say(of(decision, type, 1, **more))
    (event,) = events_of(services, decision["decision_id"])
    assert (event.type, event.properties) == ("bounced", {"hard": False})
    assert ready("GET", "/v1/recipients/u1").status_code == 404


def test_a_type_that_nobody_knows_is_kept_and_counted(hook: Hook, services: Services, decision: dict[str, Any]) -> None:
    hook.say(of(decision, "Pondered…"))
    (event,) = events_of(services, decision["decision_id"])
    assert "pondered" in event.type.lower()
    assert metric(hook.app, hook.sender.vendor, "unknown_type") == 1
    assert metric(hook.app, hook.sender.vendor, "accepted") == 1


def test_an_event_of_the_future_is_not_lost_but_dated_now(
    hook: Hook, services: Services, decision: dict[str, Any], clock: StillClock
) -> None:
    soon, late = of(decision, "delivered", 1), of(decision, "opened", 2)
    hook.say(replace(soon, at=clock.now + timedelta(minutes=2)), replace(late, at=clock.now + timedelta(days=2)))
    at = {event.type: event.occurred_at for event in events_of(services, decision["decision_id"])}
    assert at["opened"] == clock.now
    assert at["delivered"] == clock.now + timedelta(minutes=0 if hook.sender.vendor == "twilio" else 2)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"null", b'"x"', b"7", b"[]", b"{}", b"[[[]]]", b"[" * 3000, b"\xff\xfe", b'{"a": 1e999}', b"NaN"],
)
def test_what_is_signed_and_can_not_be_read_is_answered_2xx_since_it_would_be_no_better_again(
    hooks: dict[Any, Hook], services: Services, raw: bytes
) -> None:
    sendgrid = hooks["sendgrid"]
    reply = sendgrid.post(cast(SendGrid, sendgrid.sender).signed(raw, sendgrid.clock.now))
    assert reply.status_code == 200
    assert reply.get_json()["accepted"] == 0
    postmark = hooks["postmark"]
    told = postmark.request(Happened(1, "opened", NOW, "m"))
    assert postmark.post(replace(told, body=raw)).status_code == 200
    assert unmatched(services) == 0


def test_numbers_beyond_64_bits_beside_broken_text_are_kept_as_they_can_be_told_again(
    ready: Caller, hooks: dict[Any, Hook], services: Services, decision: dict[str, Any]
) -> None:
    hook = hooks["sendgrid"]
    record = hook.sender.record(of(decision, "opened", 1))
    record["numbers"] = [orjson.Fragment(digits) for digits in ("-9223372036854775808", "18446744073709551615")]
    record["wide"] = [orjson.Fragment(d) for d in (b"18446744073709551616", b"-9223372036854775809", b"9" * 5000)]
    raw = hook.sender.request(record, hook.clock.now).body.replace(b'"numbers"', b'"\\ud800":null,"numbers"')
    assert hook.post(cast(SendGrid, hook.sender).signed(raw, hook.clock.now)).get_json()["accepted"] == 1
    with services.store.read() as reader:
        (stored,) = reader.vendor_words("default", decision["decision_id"])
    assert stored.words["numbers"] == [-(2**63), 2**64 - 1]
    assert [(type(one), one) for one in stored.words["wide"]] == [
        (float, 2.0**64),
        (float, -(2.0**63)),
        (type(None), None),
    ]
    assert ready("GET", "/v1/recipients/u1/export").status_code == 200


@pytest.mark.parametrize("levels", [99, 300, 990])
def test_a_deeply_nested_event_is_refused_and_the_others_of_its_batch_are_kept(
    hook: Hook, services: Services, decision: dict[str, Any], levels: int
) -> None:
    if hook.sender.vendor == "twilio":
        return  # a form has no levels
    deep = orjson.Fragment(b"[" * levels + b"]" * levels)
    record = hook.sender.record(of(decision, "opened", 1)) | {"unheard_of": deep}
    kept = int(levels < 100)
    reply = hook.post(hook.sender.request(record, hook.clock.now))
    assert reply.status_code == 200
    assert len(types(services, decision)) == kept
    assert metric(hook.app, hook.sender.vendor, "rejected") == 1 - kept
    if hook.sender.vendor == "sendgrid":
        batch = [hook.sender.record(of(decision, "delivered", 2)), record]
        assert hook.post(hook.sender.request(batch, hook.clock.now)).get_json()["accepted"] == 1


@pytest.mark.parametrize("place", ["event-data", "signature"])
def test_a_signature_of_mailgun_that_is_nested_deeply_is_none(hooks: dict[Any, Hook], place: str) -> None:
    hook = hooks["mailgun"]
    request = hook.request(Happened(1, "opened", NOW, "m"))
    body = orjson.loads(request.body)
    body[place]["timestamp"] = orjson.Fragment(b"[" * 990 + b"]" * 990)
    answer = hook.post(replace(request, body=orjson.dumps(body)))
    assert answer.status_code == (401 if place == "signature" else 200)


@pytest.mark.parametrize(
    "element",
    [
        None,
        7,
        "x",
        [],
        {},
        {"event": 7},
        {"event": "open"},
        {"event": "open", "timestamp": "yesterday"},
        {"event": "open", "timestamp": -1},
        {"event": "open", "timestamp": 1e300},
        {"event": "open", "timestamp": True},
        {"event": "open", "timestamp": {"a": []}},
    ],
)
def test_one_bad_element_spoils_no_other(
    hooks: dict[Any, Hook], services: Services, decision: dict[str, Any], element: Any
) -> None:
    hook = hooks["sendgrid"]
    good = [hook.sender.record(of(decision, type, n)) for n, type in enumerate(("delivered", "opened"))]
    reply = hook.post(hook.sender.request([good[0], element, good[1]], hook.clock.now))
    assert reply.get_json() == {"accepted": 2, "duplicates": 0, "unmatched": 0, "rejected": 1}
    assert types(services, decision) == ["delivered", "opened"]
    assert metric(hook.app, "sendgrid", "rejected") == 1


def test_broken_unicode_and_odd_ids_are_mended_or_passed_over(
    hooks: dict[Any, Hook], services: Services, decision: dict[str, Any]
) -> None:
    hook, sender = hooks["sendgrid"], cast(SendGrid, hooks["sendgrid"].sender)
    first, second = (sender.record(of(decision, "clicked", n)) for n in (1, 2))
    raw = orjson.dumps([{**first, "note": "LONE"}, {**second, "sg_event_id": "a\0b", "sg_message_id": "é\u0007" * 400}])
    reply = hook.post(sender.signed(raw.replace(b"LONE", rb"\ud83d and \u0000"), hook.clock.now))
    assert reply.get_json()["accepted"] == 2
    assert types(services, decision) == ["clicked", "clicked"]
    with services.store.read() as reader:
        words = reader.vendor_words("default", decision["decision_id"])
    assert sorted(str(one.words.get("note")) for one in words) == ["None", "� and \0"]


def test_a_body_over_the_limit_is_413_and_its_type_must_be_the_vendors(hook: Hook) -> None:
    request = hook.request(Happened(1, "opened", NOW, "m"))
    limit = Settings().max_body_bytes
    assert hook.post(replace(request, body=b" " * (limit + 1))).status_code == 413
    assert hook.post(request, **{"Content-Type": "image/png"}).status_code == 415
    assert hook.post(request, **{"Content-Encoding": "gzip"}).status_code == 415


def test_long_words_are_cut_and_the_event_counts(hook: Hook, services: Services, decision: dict[str, Any]) -> None:
    (reply,) = hook.say(of(decision, "delivered", 1, headers="x" * 100_000))
    assert reply.status_code in (200, 204)
    with services.store.read() as reader:
        (stored,) = reader.vendor_words("default", decision["decision_id"])
    assert len(orjson.dumps(stored.words)) < 16_384


def test_a_decision_of_another_workspace_is_not_found(hook: Hook, services: Services, other_admin: Caller) -> None:
    asked = {"campaign_id": "c", "recipient_id": "u1", "immediate": True}
    theirs = other_admin("POST", "/v1/decisions", asked).get_json()
    hook.say(of(theirs, "unsubscribed" if hook.sender.vendor != "twilio" else "delivered"))
    assert events_of(services, theirs["decision_id"], "other") == []
    assert other_admin("GET", "/v1/recipients/u1").status_code == 404
    assert unmatched(services) == 1


def test_the_vendors_word_on_machines_is_taken(
    hooks: dict[Any, Hook], services: Services, decision: dict[str, Any]
) -> None:
    flags: dict[str, dict[str, Any]] = {
        "sendgrid": {"sg_machine_open": True},
        "mailgun": {"client-info": {"bot": "apple"}},
        "postmark": {"UserAgent": "Mozilla/5.0"},
        "ses": {"userAgent": "Mozilla/5.0"},
        "standard": {"automated": True},
    }
    for number, (vendor, more) in enumerate(flags.items()):
        hooks[vendor].say(of(decision, "opened", number, **more))
    found = events_of(services, decision["decision_id"])
    assert len(found) == len(flags)
    assert all(event.automated and event.confidence == 0.95 and event.reason for event in found)


def test_twilios_statuses_come_to_the_same_in_every_order(
    hooks: dict[Any, Hook], services: Services, ready: Caller
) -> None:
    hook = hooks["twilio"]
    ends = []
    for turn, order in enumerate(itertools.permutations(("sent", "delivered", "read"))):
        asked = {"campaign_id": "c", "recipient_id": f"t{turn}", "request_id": f"t{turn}", "immediate": True}
        decision = ready("POST", "/v1/decisions", asked).get_json()
        hook.say(*(replace(of(decision, status), message_id=f"SM{turn}") for status in order))
        ends.append(types(services, decision))
    assert ends == [["delivered", "opened", "processed"]] * 6


def test_mailguns_failures_that_are_tried_again_are_no_bounces(
    hooks: dict[Any, Hook], services: Services, decision: dict[str, Any]
) -> None:
    assert isinstance(hooks["mailgun"].sender, Mailgun)
    hooks["mailgun"].say(of(decision, "failed", 1, severity="temporary", reason="generic"))
    assert types(services, decision) == ["deferred"]


def test_every_vendor_is_tested() -> None:
    assert tuple(MODULES) == VENDORS
