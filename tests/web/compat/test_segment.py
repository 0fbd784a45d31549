"""The Segment tracking API by hand: keys, clocks, ids, bounds, refusals, and what can't be harmed by it."""

from __future__ import annotations

import base64
import gzip
import hashlib
from datetime import timedelta
from typing import Any

import orjson
import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from storage.errors import StoreError, StoreUnavailable, VersionConflict
from storage.log import Event
from tests.web.conftest import NOW, Caller, key


class Tracker:
    """Posts to the tracking API with a write key."""

    def __init__(self, app: Flask, secret: str) -> None:
        self.app = app
        self.basic = "Basic " + base64.b64encode(f"{secret}:".encode()).decode()

    def __call__(self, call: str, body: Any, **headers: str) -> TestResponse:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        sent = {"Authorization": self.basic, "Content-Type": "application/json", **headers}
        return self.app.test_client().post(f"/segment/v1/{call}", data=raw, headers=sent)

    def events(self, recipient_id: str = "u1", workspace: str = "default") -> dict[str, Event]:
        """The recipient's stored events by type, those of machines too."""
        services = self.app.extensions["sendtide"].get()
        with services.store.read() as reader:
            decisions = reader.decisions(workspace, limit=1, recipient_id=recipient_id).items
            return {event.type: event for event in reader.events(workspace, decisions[0])}


@pytest.fixture
def track(ready: Caller, app: Flask) -> Tracker:
    """A write key, and a decision about ``u1`` of long ago, by which the events after it can be read."""
    ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "u1", "immediate": True})
    app.extensions["sendtide"].get().clock.forward(days=10)
    return Tracker(app, key(app, "track"))


LATER = NOW + timedelta(days=10)
MESSAGE: dict[str, Any] = {"userId": "u1", "event": "Seen", "messageId": "m1"}


def iso(**ahead: float) -> str:
    return (LATER + timedelta(**ahead)).isoformat()


def test_the_answer_says_success_with_or_without_a_slash_at_the_end(track: Tracker) -> None:
    for path in ("track", "track/"):
        answer = track(path, MESSAGE)
        assert (answer.status_code, answer.get_json()) == (200, {"success": True})


@pytest.mark.parametrize(
    ("times", "happened"),
    [
        ({}, 0.0),
        ({"timestamp": iso(hours=-5)}, -5.0),
        ({"timestamp": "2026-12-04T04:00:00"}, -5.0),
        # The sender's clock is three hours ahead, then behind.
        ({"timestamp": iso(hours=1), "sentAt": iso(hours=3)}, -2.0),
        ({"timestamp": iso(hours=-5), "sentAt": iso(hours=-3)}, -2.0),
        ({"originalTimestamp": iso(hours=-4), "timestamp": iso(hours=-9), "sentAt": iso()}, -4.0),
        # It came through Segment, which has corrected it.
        (
            {"timestamp": iso(hours=-7), "originalTimestamp": iso(hours=1), "sentAt": iso(), "receivedAt": iso()},
            -7.0,
        ),
        ({"timestamp": iso(hours=2)}, 0.0),
        ({"timestamp": iso(hours=2), "sentAt": iso()}, 0.0),
    ],
)
def test_times_are_corrected_by_the_clock_of_the_sender(track: Tracker, times: dict[str, str], happened: float) -> None:
    assert track("track", {**MESSAGE, **times}).status_code == 200
    assert track.events()["Seen"].occurred_at == LATER + timedelta(hours=happened)


def test_a_time_that_is_none_corrects_nothing_however_it_is_nested(track: Tracker) -> None:
    deep = b"[" * 1_010 + b"]" * 1_010
    message = orjson.dumps({**MESSAGE, "type": "track", "timestamp": iso(hours=-5)})
    answer = track("batch", b'{"sentAt":' + deep + b',"batch":[' + message + b"]}")
    assert (answer.status_code, answer.get_json()) == (200, {"success": True})
    assert track.events()["Seen"].occurred_at == LATER + timedelta(hours=-5)


def test_a_batch_says_once_when_it_was_sent_and_in_what_context(track: Tracker, ready: Caller) -> None:
    body = {
        "sentAt": iso(hours=3),
        "context": {"timezone": "Asia/Tokyo", "locale": "ja"},
        "batch": [
            {**MESSAGE, "type": "track", "timestamp": iso(hours=1)},
            {"type": "identify", "userId": "u1", "context": {"locale": "en"}},
        ],
    }
    assert track("batch", body).get_json() == {"success": True}
    assert track.events()["Seen"].occurred_at == LATER - timedelta(hours=2)
    person = ready("GET", "/v1/recipients/u1").get_json()
    assert (person["timezone"], person["attributes"]) == ("Asia/Tokyo", {"locale": "en"})


def test_one_bad_message_of_a_batch_is_named_and_spoils_no_other(track: Tracker, ready: Caller) -> None:
    batch = [
        {"type": "identify", "userId": "u5", "traits": {"a": 1}},
        {"type": "track", "event": "Seen"},
        {"type": "track", "userId": "u5"},
        {"type": "dance", "userId": "u5"},
        {"type": "track", "userId": "u5", "event": "Seen", "timestamp": "yesterday"},
        {"type": "track", "userId": "u5", "event": "clicked"},
        {"type": "track", "userId": "u5", "event": "x", "properties": {"big": "x" * 40_000}},
        7,
        {"type": "identify", "userId": "u6", "traits": {"a": 2}},
    ]
    answer = track("batch", {"batch": batch})
    assert answer.status_code == 200
    rejected = answer.get_json()["rejected"]
    assert [(one["index"], one["code"]) for one in rejected] == [
        (1, "no_user_anon_id"),
        (2, "required"),
        (3, "invalid"),
        (4, "invalid"),
        (5, "needs_message"),
        (6, "too_large"),
        (7, "invalid"),
    ]
    assert [ready("GET", f"/v1/recipients/u{n}").get_json()["attributes"] for n in (5, 6)] == [{"a": 1}, {"a": 2}]


def test_a_bad_message_alone_is_400_with_its_code(track: Tracker) -> None:
    answer = track("track", {"event": "Seen"})
    assert answer.status_code == 400
    assert answer.get_json()["code"] == "no_user_anon_id"
    assert "userId" in answer.get_json()["message"]


def test_an_old_identify_that_is_sent_again_takes_nothing_back(track: Tracker, ready: Caller) -> None:
    first = {"userId": "u1", "traits": {"plan": "free"}, "messageId": "m1"}
    track("identify", first)
    track("identify", {"userId": "u1", "traits": {"plan": "pro"}, "messageId": "m2"})
    track("identify", first)
    assert ready("GET", "/v1/recipients/u1").get_json()["attributes"] == {"plan": "pro"}


def test_traits_grow_and_null_forgets_one(track: Tracker, ready: Caller) -> None:
    track("identify", {"userId": "u1", "traits": {"plan": "free", "age": 30}})
    track("identify", {"userId": "u1", "traits": {"plan": None, "city": "Ghent"}})
    assert ready("GET", "/v1/recipients/u1").get_json()["attributes"] == {"age": 30, "city": "Ghent"}


def test_odd_traits_are_left_out_and_the_others_kept(track: Tracker, ready: Caller) -> None:
    deep: Any = "bottom"
    for _ in range(9):
        deep = {"d": deep}
    odd = {"a\nb": 1, "": 1, "long": "x" * 9000, "nul": "a\0b", "deep": deep, "n" * 300: 1}
    answer = track("identify", {"userId": "u1", "traits": {**odd, "ok": True, "tags": ["a", "b"], "in": {"x": 1}}})
    assert answer.get_json() == {"success": True}
    attributes = ready("GET", "/v1/recipients/u1").get_json()["attributes"]
    assert attributes == {"ok": True, "tags": ["a", "b"], "in.x": 1}


def test_a_recipient_that_is_full_keeps_what_is_known(track: Tracker, ready: Caller) -> None:
    for start in (0, 150):
        track("identify", {"userId": "u1", "traits": {f"t{n}": n for n in range(start, start + 150)}})
    stored = ready("GET", "/v1/recipients/u1").get_json()
    assert list(stored["attributes"].values()) == list(range(200))
    put = {name: stored[name] for name in ("timezone", "attributes", "channels", "suppressed")}
    assert ready("PUT", "/v1/recipients/u1", put).status_code == 200


def test_a_purchase_with_a_thousand_products_is_still_a_purchase(track: Tracker) -> None:
    products = [{"sku": f"s{n}", "price": n} for n in range(300)]
    track("track", {**MESSAGE, "properties": {"products": products, "revenue": 9.5, "currency": "EUR"}})
    event = track.events()["Seen"]
    assert event.properties == {"revenue": 9.5, "currency": "EUR"}
    assert event.value == 9.5


def test_nothing_that_is_told_loosens_a_refusal(track: Tracker, ready: Caller) -> None:
    refusal = {"event_id": "e", "type": "unsubscribed", "recipient_id": "u1", "occurred_at": NOW.isoformat()}
    ready("POST", "/v1/events", {"events": [refusal]})
    before = ready("GET", "/v1/recipients/u1").get_json()
    assert before["suppressed"]
    traits = {"suppressed": [], "channels": {"email": True}, "unsubscribed": False, "email_opt_in": True}
    track("identify", {"userId": "u1", "traits": traits})
    track("track", {"userId": "u1", "event": "resubscribed", "timestamp": iso()})
    assert "segment.resubscribed" in track.events()
    after = ready("GET", "/v1/recipients/u1").get_json()
    assert (after["suppressed"], after["channels"]) == (before["suppressed"], before["channels"])
    asked = {"campaign_id": "c", "recipient_id": "u1", "immediate": True}
    assert ready("POST", "/v1/decisions", asked).get_json()["status"] == "withheld"


def test_an_anonymous_visitor_is_a_recipient_and_nothing_is_merged(track: Tracker, ready: Caller) -> None:
    track("identify", {"anonymousId": "u1", "traits": {"shade": "dark"}})
    track("track", {"anonymousId": "u1", "event": "Seen"})
    track("identify", {"anonymousId": "u1", "userId": "known", "traits": {"plan": "pro"}})
    track("alias", {"previousId": "known", "userId": "u1"})
    assert ready("GET", "/v1/recipients/u1").get_json()["attributes"] == {"shade": "dark"}
    assert ready("GET", "/v1/recipients/known").get_json()["attributes"] == {"plan": "pro"}
    events = track.events()
    assert set(events) == {"identify", "Seen", "alias"}
    assert events["alias"].properties == {"user_id": "u1"}
    assert [events[name].automated for name in ("identify", "alias", "Seen")] == [True, True, False]


def test_what_is_stored_of_one_id_names_no_other(track: Tracker, ready: Caller) -> None:
    """Whoever erases an anonymous visitor knows nothing of the user whose device it was."""
    both = {"anonymousId": "anon-7f3a9c", "userId": "u1"}
    track("track", {"anonymousId": "anon-7f3a9c", "event": "Seen"})
    for call, more in (("identify", {"traits": {"plan": "pro"}}), ("group", {"groupId": "g"}), ("page", {})):
        assert track(call, {**both, **more}).status_code == 200
    assert track("alias", {"previousId": "anon-7f3a9c", "userId": "u1"}).status_code == 200
    assert set(track.events()) == {"identify", "group", "page", "alias"}
    assert ready("DELETE", "/v1/recipients/anon-7f3a9c").status_code == 204
    assert "anon-7f3a9c" not in ready("GET", "/v1/recipients/u1/export").get_data(as_text=True)


def test_a_tracked_event_may_name_its_decision(track: Tracker, ready: Caller) -> None:
    asked = ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "u1", "immediate": True}).get_json()
    track("track", {"userId": "u1", "event": "clicked", "properties": {"sendtide_decision_id": asked["decision_id"]}})
    services = track.app.extensions["sendtide"].get()
    with services.store.read() as reader:
        decision = reader.decision("default", asked["decision_id"])
        assert decision is not None
        (event,) = reader.events("default", decision)
    assert (event.type, event.matched) == ("clicked", True)


#: Nothing that a database packs small.
_LONG = "".join(hashlib.sha256(bytes([n])).hexdigest() for n in range(60))


@pytest.mark.parametrize("named", [f"dec_{_LONG}", "dec_a\u0001b", "dec_\ufffd", "another's", 7])
def test_what_can_be_no_decisions_id_names_none_and_spoils_no_other_event(track: Tracker, named: Any) -> None:
    good = {**MESSAGE, "type": "track"}
    odd = {**good, "event": "Odd", "messageId": "m2", "properties": {"sendtide_decision_id": named, "x": 1}}
    assert track("batch", {"batch": [good, odd]}).get_json() == {"success": True}
    events = track.events()
    assert {name: events[name].matched for name in ("Seen", "Odd")} == {"Seen": True, "Odd": True}
    assert events["Odd"].properties["x"] == 1


def test_messages_without_an_id_count_once_if_they_say_when_they_happened(track: Tracker) -> None:
    services = track.app.extensions["sendtide"].get()

    def count() -> int:
        with services.store.read() as reader:
            return len(reader.past("default", "u2", LATER + timedelta(days=1), limit=10))

    told = {"userId": "u2", "event": "Seen", "timestamp": iso(hours=-1)}
    track("track", {**told, "sentAt": iso()})
    track("track", {**told, "sentAt": iso(minutes=-1)})
    assert count() == 1
    for _ in range(2):
        track("track", {"userId": "u2", "event": "Seen"})
    assert count() == 3


# Keys


def test_the_key_may_be_in_the_body(track: Tracker, app: Flask) -> None:
    body = {**MESSAGE, "writeKey": key(app, "feedback")}
    answer = app.test_client().post("/segment/v1/track", data=orjson.dumps(body), content_type="text/plain")
    assert answer.get_json() == {"success": True}


@pytest.mark.parametrize("call", ["track", "identify", "page", "screen", "group", "alias"])
def test_a_browser_reports_each_call_by_its_first_letter_as_text_with_the_key_in_the_body(
    track: Tracker, app: Flask, call: str
) -> None:
    message = {**MESSAGE, "groupId": "g", "previousId": "p", "type": call, "writeKey": key(app, "feedback")}
    sent = {"Content-Type": "text/plain", "Origin": "https://shop.example"}
    answer = app.test_client().post(f"/segment/v1/{call[0]}", data=orjson.dumps(message), headers=sent)
    assert (answer.status_code, answer.get_json()) == (200, {"success": True})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert set(track.events()) == {"Seen" if call == "track" else call}


def test_an_app_reports_a_packed_batch_as_text_with_the_key_in_the_body(track: Tracker, app: Flask) -> None:
    batch = {"batch": [{**MESSAGE, "type": "track"}], "sentAt": iso(), "writeKey": key(app, "feedback")}
    sent = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    answer = app.test_client().post("/segment/v1/b", data=gzip.compress(orjson.dumps(batch)), headers=sent)
    assert (answer.status_code, answer.get_json()) == (200, {"success": True})
    assert track.events()["Seen"].matched


@pytest.mark.parametrize("path", ["batch", "b", "t", "track/"])
def test_a_page_of_any_origin_may_ask_and_read_and_no_cookie_is_asked_for(track: Tracker, path: str) -> None:
    asks = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    answer = track.app.test_client().options(f"/segment/v1/{path}", headers=asks)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")
    assert answer.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    refused = track(path, b"{", Origin="https://shop.example")
    assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (400, "*")


def test_no_other_route_is_open_to_pages(track: Tracker) -> None:
    sent = {"Origin": "https://shop.example"}
    for answer in (track.app.test_client().options("/v1/events", headers=sent), track.app.test_client().get("/livez")):
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("header", ["", "Basic", "Basic !!!", "Basic Og==", "Basic \xfc", "Bearer abc", "Basic eDp5"])
def test_a_key_that_is_none_is_401_in_the_form_of_the_api(track: Tracker, header: str) -> None:
    answer = track("track", MESSAGE, Authorization=header)
    assert answer.status_code == 401
    assert answer.get_json()["code"] == "unauthenticated"
    assert answer.headers["WWW-Authenticate"].startswith("Basic")
    body = {**MESSAGE, "writeKey": 7}
    assert track.app.test_client().post("/segment/v1/track", data=orjson.dumps(body)).status_code == 401


def test_a_key_without_the_scope_is_403(track: Tracker, app: Flask) -> None:
    assert Tracker(app, key(app, "decide", "read"))("track", MESSAGE).status_code == 403


@pytest.mark.parametrize("name", ["Unsubscribed", "unsubscribe", "COMPLAINED"])
def test_a_refusal_that_is_misspelled_is_told_and_other_names_are_free(track: Tracker, name: str) -> None:
    batch = [{**MESSAGE, "type": "track", "event": event, "messageId": event} for event in (name, "Click", "Open")]
    answer = track("batch", {"batch": batch})
    assert answer.status_code == 200
    (told,) = answer.get_json()["rejected"]
    assert told["code"] == "misspelled"
    assert sorted(one.type for one in track.events().values()) == ["Click", "Open"]


def test_a_key_that_tracks_opens_nothing_else_and_one_that_reports_tracks_too(app: Flask) -> None:
    assert Tracker(app, key(app, "feedback"))("track", MESSAGE).status_code == 200
    stolen = Caller(app, key(app, "track"))
    event = {"type": "unsubscribed", "recipient_id": "u1", "occurred_at": iso()}
    for method, path, body in (
        ("POST", "/v1/events", {"events": [event]}),
        ("POST", "/v1/decisions", {"campaign_id": "spring", "recipient_id": "u1"}),
        ("GET", "/v1/recipients/u1", None),
        ("PUT", "/v1/recipients/u1", {}),
    ):
        assert stolen(method, path, body).status_code == 403, path


def test_another_workspace_sees_nothing_of_it(track: Tracker, app: Flask) -> None:
    Tracker(app, key(app, "feedback", workspace="other"))("identify", {"userId": "u1", "traits": {"x": 1}})
    mine, theirs = (Caller(app, key(app, "admin", workspace=w)) for w in ("default", "other"))
    assert theirs("GET", "/v1/recipients/u1").get_json()["attributes"] == {"x": 1}
    assert mine("GET", "/v1/recipients/u1").status_code == 404


# Bodies


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "unreadable"),
        (b"{", "unreadable"),
        (b"[]", "unreadable"),
        (b"\xff", "unreadable"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "invalid"),
        (orjson.dumps({**MESSAGE, "x": "x" * 33_000}), "too_large"),
    ],
)
def test_a_body_that_cannot_be_used_is_400(track: Tracker, body: bytes, code: str) -> None:
    answer = track("track", body)
    assert (answer.status_code, answer.get_json()["code"]) == (400, code)


@pytest.mark.parametrize(
    ("odd", "stored"),
    [
        (rb'"cut \ud83d"', "cut \ufffd"),
        (b'"caf\xe9"', "caf\ufffd"),
        (b"1e400", None),
        (b"NaN", None),
    ],
)
def test_what_json_cannot_tell_of_one_message_loses_neither_it_nor_the_others(
    track: Tracker, odd: bytes, stored: Any
) -> None:
    good = orjson.dumps({**MESSAGE, "type": "track"})
    bad = b'{"type":"track","userId":"u1","event":"Note","messageId":"m2","properties":{"x":' + odd + b"}}"
    answer = track("batch", b'{"batch":[' + good + b"," + bad + b"]}")
    assert (answer.status_code, answer.get_json()) == (200, {"success": True})
    events = track.events()
    assert events["Seen"].matched
    assert events["Note"].properties.get("x") == stored


def test_batches_are_bounded_and_gzip_does_not_help(track: Tracker) -> None:
    big = orjson.dumps({"batch": [], "x": "x" * 600_000})
    assert track("batch", big).get_json()["code"] == "too_large"
    packed = gzip.compress(big)
    for raw in (packed, packed[:-4] + b"junk", packed[:40], b"not gzip"):
        answer = track("batch", raw, **{"Content-Encoding": "gzip"})
        assert answer.status_code == 400
    assert track("batch", gzip.compress(b'{"batch": []}'), **{"Content-Encoding": "gzip"}).status_code == 200
    assert track("batch", b"{}", **{"Content-Encoding": "br"}).status_code == 400
    assert track("batch", {"batch": [MESSAGE] * 2501}).status_code == 400
    assert track("batch", {"batch": {"0": MESSAGE}}).status_code == 400


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (StoreUnavailable("disk full"), "store_unavailable", "nothing was recorded"),
        (StoreUnavailable("cut off", fate_unknown=True), "store_unavailable", "all was recorded or nothing"),
        (VersionConflict("raced"), "conflict", "at the same time"),
    ],
)
def test_what_the_store_failed_with_is_told_as_it_is(
    track: Tracker, monkeypatch: pytest.MonkeyPatch, error: StoreError, code: str, message: str
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(track.app.extensions["sendtide"].get().store, "write", fails)
    answer = track("track", MESSAGE)
    assert (answer.status_code, answer.get_json()["code"]) == (503, code)
    assert message in answer.get_json()["message"]
    assert answer.get_json()["success"] is False
    assert int(answer.headers["Retry-After"]) > 0


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**63), 2**63)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NAMES = ("userId", "anonymousId", "event", "properties", "traits", "context", "timestamp", "sentAt", "messageId")


@settings(max_examples=120, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(message=st.dictionaries(st.sampled_from((*NAMES, "groupId", "previousId", "name", "receivedAt")), JUNK))
def test_no_message_whatever_it_holds_is_a_fault_of_ours(track: Tracker, message: dict[str, Any]) -> None:
    kinds = ("track", "identify", "page", "screen", "group", "alias")
    batch = [{"userId": "u", "event": "e", **message, "type": kind} for kind in kinds]
    assert track("batch", {"batch": batch, **message}).status_code == 200
