"""Bad input gets a 4xx problem that names the field, the value and what is allowed, and leaves nothing behind."""

from __future__ import annotations

import io
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest
from werkzeug.test import TestResponse

from optimizer.service import setup
from optimizer.web import body as bodies
from storage.records import Consent, Recipient, Suppression
from tests.web.conftest import CAMPAIGN, Caller

START, END = "2026-11-24T10:00:00Z", "2026-11-25T10:00:00Z"


def ask(**more: Any) -> dict[str, Any]:
    return {"campaign_id": "c", "recipient_id": "u", **more}


#: body, status, field that ``errors`` must name, what its message must say of the value, of what is allowed
DECISIONS: dict[str, tuple[Any, int, str, str, str]] = {
    "unknown campaign": (ask(campaign_id="nope"), 422, "campaign_id", "nope", "no campaign"),
    "empty window": (ask(window={"start": START, "end": START}), 422, "window.end", START, "after window.start"),
    "end before start": (ask(window={"start": END, "end": START}), 422, "window.end", START, "after window.start"),
    "window in the past": (
        ask(window={"start": "2026-11-01T00:00:00Z", "end": "2026-11-02T00:00:00Z"}),
        422,
        "window.end",
        "2026-11-02",
        "allowed: after",
    ),
    "now, in a window that is ahead": (
        ask(immediate=True, window={"start": START, "end": END}),
        422,
        "window.start",
        "2026-11-24T10:00:00",
        "at most 300 s after now (2026-11-24T09:00:00",
    ),
    "naive time": (
        ask(window={"start": "2026-11-24T10:00:00", "end": END}),
        422,
        "window.start",
        "2026-11-24T10:00:00",
        "with an offset",
    ),
    "impossible date": (ask(window={"start": "2026-02-30T10:00:00Z", "end": END}), 422, "window.start", "02-30", "RFC"),
    "year before 1970": (
        ask(window={"start": "0001-01-01T00:00:00+14:00", "end": END}),
        422,
        "window.start",
        "0001",
        "from 1970 to 2200",
    ),
    "window of centuries": (
        ask(window={"start": START, "end": "2199-01-01T00:00:00Z"}),
        422,
        "window.end",
        "2199",
        "8784",
    ),
    "window without end": (ask(window={"start": START}), 422, "window.end", "", "required"),
    "unknown zone": (ask(recipient={"timezone": "Mars/Base"}), 422, "recipient.timezone", "Mars/Base", "IANA"),
    "zone that is a path": (ask(recipient={"timezone": "../etc/passwd"}), 422, "recipient.timezone", "../etc", "IANA"),
    "unknown field": (ask(surprise=1), 422, "surprise", "1", "allowed: campaign_id"),
    "missing field": ({"campaign_id": "c"}, 422, "recipient_id", "", "required"),
    "empty id": (ask(recipient_id=""), 422, "recipient_id", '""', "1 to 256"),
    "long id": (ask(recipient_id="u" * 100_000), 422, "recipient_id", "uuu", "1 to 256"),
    "NUL in id": (ask(recipient_id="u\x00"), 422, "recipient_id", "u\\u0000", "control characters"),
    "newline at the end of an id": (ask(recipient_id="u\n"), 422, "recipient_id", "u\\n", "control characters"),
    "number as id": (ask(recipient_id=7), 422, "recipient_id", "7", "string"),
    "null id": (ask(recipient_id=None), 422, "recipient_id", "", "null"),
    "variant of another campaign": (ask(variants=["x"]), 422, "variants.0", "x", "a, b"),
    "no variants at all": (ask(variants=[]), 422, "variants", "0 items", "1 to"),
    "variant twice": (ask(variants=["a", "a"]), 422, "variants", "a", "duplicates"),
    "flag as text": (ask(immediate="yes"), 422, "immediate", "yes", "true or false"),
    "context of text": (ask(context="x"), 422, "context", "x", "object"),
    "long string in context": (ask(context={"x": "y" * 10_000}), 422, "context.x", "yyy", "8192"),
    "NUL in context": (ask(context={"x": "\x00"}), 422, "context.x", "\\u0000", "NUL"),
    "many values in context": (ask(context={f"k{i}": i for i in range(201)}), 422, "context", "201", "200"),
    "many values in a list": (ask(context={"x": list(range(300))}), 422, "context", "1 entries", "200"),
    "deep context": (ask(context={"a": {"b": {"c": {"d": {"e": {}}}}}}), 422, "context.a.b.c.d.e", "", "5 levels"),
    "consent that is text": (ask(recipient={"channels": {"sms": "yes"}}), 422, "recipient.channels.sms", "yes", "true"),
    "a consent to a channel in another spelling": (
        ask(recipient={"channels": {"WhatsApp": False}}),
        422,
        "recipient.channels.WhatsApp",
        "false",
        "Must be spelled 'whatsapp'",
    ),
    "Infinity": (b'{"campaign_id":"c","recipient_id":"u","context":{"x":Infinity}}', 400, "", "", "JSON"),
    "NaN": (b'{"campaign_id":"c","recipient_id":"u","context":{"x":NaN}}', 400, "", "", "JSON"),
    "number too large": (b'{"campaign_id":"c","recipient_id":"u","context":{"x":1e999}}', 400, "", "", "infinity"),
    "broken JSON": (b"{", 400, "", "", "JSON"),
    "nothing": (b"", 400, "", "", "empty"),
    "broken UTF-8": (b'{"campaign_id":"c","recipient_id":"\xff\xfe"}', 400, "", "", "UTF-8"),
    "UTF-16": ('{"campaign_id":"c"}'.encode("utf-16"), 400, "", "", "JSON"),
    "lone surrogate": (b'{"campaign_id":"c","recipient_id":"\\ud800"}', 400, "", "", "surrogate"),
    "list": (b"[]", 400, "", "", "an array"),
    "null": (b"null", 400, "", "", "null"),
    "deep nesting": (b'{"a":' * 5000 + b"1" + b"}" * 5000, 400, "", "", "depth"),
    "nesting that orjson still reads": (b'{"a":' * 900 + b"1" + b"}" * 900, 422, "a", "object", "allowed"),
    "large body": (orjson.dumps(ask(context={"x": "y" * 10_000_000})), 413, "", "", "1048576"),
}


def left_behind(caller: Caller) -> tuple[Any, ...]:
    """All that a refused request could have left."""
    lists = ("decisions", "campaigns", "rules", "attributes", "training-runs", "policies", "keys", "changes")
    return (
        *(caller("GET", f"/v1/{name}").get_json() for name in lists),
        caller("GET", "/v1/workspace").get_json(),
        caller("GET", "/v1/recipients/u").status_code,
    )


def assert_problem(reply: TestResponse, status: int, field: str, value: str, allowed: str) -> None:
    assert reply.status_code == status, reply.get_data(as_text=True)[:500]
    assert reply.content_type == "application/problem+json"
    problem = orjson.loads(reply.data)
    assert problem["status"] == status
    assert problem["type"] == f"/problems/{problem['code']}"
    said = problem["detail"]
    if field:
        assert field in problem["errors"], problem["errors"]
        said = " ".join(problem["errors"][field])
    assert value in said
    assert allowed in said
    assert len(reply.data) < 20_000


@pytest.mark.parametrize("case", DECISIONS)
def test_a_bad_decision_request_is_refused_and_leaves_nothing(ready: Caller, case: str) -> None:
    before = left_behind(ready)
    body, status, field, value, allowed = DECISIONS[case]
    assert_problem(ready("POST", "/v1/decisions", body), status, field, value, allowed)
    assert left_behind(ready) == before


def test_more_than_4096_actions_are_refused_with_their_number(ready: Caller) -> None:
    many = {**CAMPAIGN, "variants": [{"id": f"v{i}"} for i in range(200)]}
    assert ready("PUT", "/v1/campaigns/many", {**many, "default_window_hours": 20}).status_code == 201
    reply = ready("POST", "/v1/decisions", ask(campaign_id="many", window={"start": START, "end": END}))
    assert reply.status_code == 422
    assert "4096" in reply.get_json(force=True)["detail"].replace(",", "")
    assert "4800" in reply.get_json(force=True)["detail"].replace(",", "")
    assert ready("GET", "/v1/decisions").get_json()["decisions"] == []


def test_now_may_lie_as_far_behind_a_window_as_clocks_differ(ready: Caller) -> None:
    window = {"start": "2026-11-24T09:05:00Z", "end": END}
    asked = ready("POST", "/v1/decisions", ask(immediate=True, window=window, request_id="r"))
    assert (asked.status_code, asked.get_json()["action"]["send_at"]) == (201, "2026-11-24T09:05:00Z")
    rows = {"recipients": [{"recipient_id": "u2"}], "campaign_id": "c", "immediate": True}
    late = {**window, "start": "2026-11-24T09:05:01Z"}
    (refused,) = ready("POST", "/v1/decisions/batch", {**rows, "window": late}).get_json()["decisions"]
    assert list(refused["errors"]) == ["window.start"]


def test_a_consent_to_a_channel_in_another_spelling_is_refused_and_a_stored_one_stays_until_it_is_taken_out(
    ready: Caller,
) -> None:
    refused = ready("PUT", "/v1/recipients/u", {"channels": {"SMS": True}})
    assert_problem(refused, 422, "channels.SMS", "true", "Must be spelled 'sms'")
    refused = ready("PUT", "/v1/recipients/u", {"suppressed": [{"channel": "SMS"}]})
    assert_problem(refused, 422, "suppressed.0.channel", "SMS", "Must be spelled 'sms'")
    rows = {"recipients": [{"recipient_id": "u", "channels": {"Push": False}}]}
    (rejected,) = ready("POST", "/v1/recipients/batch", rows).get_json()["rejected"]
    assert list(rejected["errors"]) == ["recipients.0.channels.Push"]

    services = ready.app.extensions["sendtide"].get()
    refusal = Suppression(channel="SMS")
    setup.put_recipient(services, Recipient("default", "u", channels={"SMS": Consent(False)}, suppressed=(refusal,)))
    kept = ready("PATCH", "/v1/recipients/u", {"attributes": {"plan": "pro"}}).get_json()
    assert (list(kept["channels"]), [one["channel"] for one in kept["suppressed"]]) == (["SMS"], ["SMS"])
    right = {"channels": {"SMS": None, "sms": False}, "suppressed": [{"channel": "sms"}]}
    told = ready("PATCH", "/v1/recipients/u", right).get_json()
    assert (list(told["channels"]), [one["channel"] for one in told["suppressed"]]) == (["sms"], ["sms"])


def test_a_name_of_a_context_that_is_ours_is_refused(ready: Caller) -> None:
    refused = ready("POST", "/v1/decisions", ask(context={"@history": [], "cart": 1}))
    assert_problem(refused, 422, "context.@history", "a list of 0 items", "begin with '@'")
    rows = {"recipients": [{"recipient_id": "u2", "context": {"@x": 1}}], "campaign_id": "c"}
    (row,) = ready("POST", "/v1/decisions/batch", rows).get_json()["decisions"]
    assert list(row["errors"]) == ["recipients.0.context.@x"]
    every = {"recipients": [{"recipient_id": "u2"}], "campaign_id": "c", "context": {"@x": 1}}
    assert ready("POST", "/v1/decisions/batch", every).status_code == 422


def test_a_source_whose_address_is_signed_and_not_known_says_so(admin: Caller) -> None:
    for vendor, said in (("twilio", "SENDTIDE_PUBLIC_URL"), ("mailgun", "")):
        made = admin("PUT", f"/v1/webhook-sources/{vendor}", {"vendor": vendor, "secrets": ["s" * 32]})
        assert made.status_code == 201
        assert said in made.get_json()["note"]
        assert bool(made.get_json()["note"]) == bool(said)


def test_the_same_request_id_with_another_body_is_a_conflict(ready: Caller) -> None:
    assert ready("POST", "/v1/decisions", ask(request_id="r")).status_code == 201
    reply = ready("POST", "/v1/decisions", ask(request_id="r", recipient_id="other"))
    assert_problem(reply, 409, "request_id", "'r'", "another body")
    assert len(ready("GET", "/v1/decisions").get_json()["decisions"]) == 1


def event(**more: Any) -> dict[str, Any]:
    return {"event_id": "e", "recipient_id": "u", "type": "converted", "occurred_at": "2026-11-24T08:00:00Z", **more}


EVENTS: dict[str, tuple[Any, str]] = {
    "from the far future": (event(occurred_at="2027-11-24T08:00:00Z"), "occurred_at"),
    "of an unknown campaign": (event(campaign_id="nope"), "nope"),
    "with a wrong type": (event(type=7), "type"),
    "with a naive time": (event(occurred_at="2026-11-24T08:00:00"), "occurred_at"),
    "with a value that is text": (event(value="much"), "value"),
    "with an unknown field": (event(surprise=1), "surprise"),
    "of nobody": ({"type": "converted", "occurred_at": "2026-11-24T08:00:00Z"}, "decision_id"),
    "with a message id of no provider": (event(message_id="m"), "provider"),
    "of a message without its message": (event(type="opened"), "opened"),
    "that is no object": (7, "object"),
    "that is null": (None, "object"),
}


@pytest.mark.parametrize("case", EVENTS)
def test_a_bad_event_in_a_good_envelope_is_listed_and_the_others_are_stored(ready: Caller, case: str) -> None:
    bad, named = EVENTS[case]
    reply = ready("POST", "/v1/events", {"events": [event(event_id="good"), bad, event(event_id="good")]})
    assert reply.status_code == 202
    told = reply.get_json()
    assert (told["accepted"], told["duplicates"], told["unmatched"]) == (1, 1, 0)
    assert [r["index"] for r in told["rejected"]] == [1]
    assert named in told["rejected"][0]["detail"]


def test_a_rejected_event_tells_all_that_is_wrong_with_it(ready: Caller) -> None:
    bad = [
        event(event_id="f", occurred_at="2027-11-24T08:00:00Z"),
        event(value="much", surprise=1),
        event(type="visited"),
    ]
    told = ready("POST", "/v1/events", {"events": [event(), *bad]}).get_json()["rejected"]
    assert [sorted(one["errors"]) for one in told] == [
        ["events.1.occurred_at"],
        ["events.2.surprise", "events.2.value"],
        ["events.3.event_id"],
    ]
    assert all(any(one["errors"][field][0] in one["detail"] for field in one["errors"]) for one in told)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("Unsubscribed", "unsubscribed"),
        ("unsubscribe", "unsubscribed"),
        (" Clicked", "clicked"),
        ("Complaint", "complained"),
        ("open", "opened"),
        ("resubscribe", "resubscribed"),
    ],
)
def test_a_type_that_is_nearly_a_built_in_one_is_refused(ready: Caller, given: str, meant: str) -> None:
    told = ready("POST", "/v1/events", {"events": [event(type=given), event(event_id="good")]}).get_json()
    assert (told["accepted"], [one["code"] for one in told["rejected"]]) == (1, ["misspelled"])
    (messages,) = told["rejected"][0]["errors"].values()
    assert f"{given!r} must be spelled {meant!r}" in messages[0]
    assert "event_mapping" in messages[0]


@pytest.mark.parametrize(
    "speaks",
    [{"event_mapping": {"click": {"outcome": "clicked"}}}, {"objective": {"clicked": 1, "click": 2}}],
)
def test_a_type_that_a_campaign_speaks_of_is_the_callers_own(ready: Caller, speaks: dict[str, Any]) -> None:
    clicks = {"events": [event(event_id=f"e{n}", type=name) for n, name in enumerate(["click", "Click"])]}
    assert [one["index"] for one in ready("POST", "/v1/events", clicks).get_json()["rejected"]] == [0, 1]
    assert ready("PUT", "/v1/campaigns/speaks", {**CAMPAIGN, **speaks}).status_code == 201
    told = ready("POST", "/v1/events", clicks).get_json()
    assert (told["accepted"], [one["index"] for one in told["rejected"]]) == (1, [1])


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 422), ({"events": {}}, 422), (b"[]", 400), ({"events": [{}] * 10_001}, 413), ({"events": [], "x": 1}, 422)],
)
def test_an_unreadable_envelope_is_refused(ready: Caller, body: Any, status: int) -> None:
    assert_problem(ready("POST", "/v1/events", body), status, "", "", "")


@pytest.mark.parametrize("name", ["%2E", "%2E%2E"])
def test_nothing_is_made_at_an_address_that_clients_resolve_away(admin: Caller, name: str) -> None:
    made = {
        "campaigns": CAMPAIGN,
        "rules": {"kind": "gap", "minutes": 5},
        "attributes": {"type": "number"},
        "webhook-endpoints": {"url": "https://example.com/x"},
        "webhook-sources": {"vendor": "mailgun", "secrets": ["s" * 32]},
    }
    for plural, document in made.items():
        reply = admin("PUT", f"/v1/{plural}/{name}", document)
        assert reply.status_code == 422, plural
        (told,) = reply.get_json()["errors"].values()
        assert "Must not be '.' or '..'" in told[0]
        assert admin("PUT", f"/v1/{plural}/a{name}", document).status_code in (200, 201), plural
    assert admin("PUT", f"/v1/recipients/{name}", {}).status_code == 201


def test_a_batch_that_is_too_long_is_refused_whole(ready: Caller) -> None:
    rows = [{"recipient_id": "u"}] * 10_001
    assert_problem(
        ready("POST", "/v1/decisions/batch", {"campaign_id": "c", "recipients": rows}), 413, "", "10001", "10000"
    )
    lines = b'{"campaign_id":"c","recipient_id":"u"}\n' * 10_001
    reply = ready("POST", "/v1/decisions/batch", lines, headers={"Content-Type": "application/x-ndjson"})
    assert_problem(reply, 413, "", "10001", "10000")
    assert ready("GET", "/v1/decisions").get_json()["decisions"] == []


@pytest.mark.parametrize(("body", "status"), [(b"\n", 200), (b" ", 200), (b"{}\n", 413)])
def test_lines_of_a_body_take_no_more_than_the_rows_that_are_allowed(ready: Caller, body: bytes, status: int) -> None:
    raw = body * ((4 << 20) // len(body))
    tracemalloc.start()
    reply = ready("POST", "/v1/decisions/batch", raw, headers={"Content-Type": "application/x-ndjson"})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reply.status_code == status
    assert peak < 3 * len(raw)  # the body twice, the rows; all of its lines as objects took 13 and more


def test_large_bodies_become_objects_one_at_a_time(ready: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    parse, at_work, alone = bodies.parse, threading.Semaphore(1), list[bool]()

    def watched(raw: bytes) -> Any:
        alone.append(at_work.acquire(blocking=False))
        try:
            return parse(raw)
        finally:
            at_work.release()

    monkeypatch.setattr(bodies, "parse", watched)
    sent = {"Content-Type": "application/json"}
    raw = b'{"campaign_id":"c","recipients":[' + b"{}," * 700_000 + b"{}]}"
    with ThreadPoolExecutor(4) as pool:
        replies = list(
            pool.map(lambda _: ready("POST", "/v1/decisions/batch", raw, headers=sent).status_code, range(8))
        )
    assert replies == [413] * 8
    assert alone == [True] * 8


@pytest.mark.parametrize("size", [900_000, 2_000_000])
def test_a_body_of_untold_length_is_limited_too(ready: Caller, size: int) -> None:
    """As a server hands on a chunked body: no Content-Length, and the stream ends by itself."""
    body = orjson.dumps(ask()) + b" " * size
    chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": io.BytesIO(body)}
    reply = ready(
        "POST", "/v1/decisions", environ_overrides={**chunked, "CONTENT_LENGTH": ""}, content_type="application/json"
    )
    assert reply.status_code == (201 if size < 1_000_000 else 413)


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"Content-Type": "text/plain"}, "text/plain"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "application/json"),
        ({"Content-Type": "application/json; charset=latin-1"}, "utf-8"),
        ({"Content-Encoding": "gzip"}, "Content-Encoding"),
    ],
)
def test_another_content_type_is_refused(ready: Caller, headers: dict[str, str], named: str) -> None:
    assert_problem(ready("POST", "/v1/decisions", ask(), headers=headers), 415, "", named, "")


@pytest.mark.parametrize(
    ("path", "field", "allowed"),
    [
        ("/v1/decisions?limit=0", "query.limit", "from 1 to 500"),
        ("/v1/decisions?limit=501", "query.limit", "from 1 to 500"),
        ("/v1/decisions?limit=ten", "query.limit", "from 1 to 500"),
        ("/v1/decisions?limit=1&limit=2", "query.limit", "once"),
        ("/v1/decisions?status=open", "query.status", "reserved"),
        ("/v1/decisions?limti=1", "query.limti", "limit"),
        ("/v1/decisions?cursor=nonsense", "query.cursor", "cursor"),
        ("/v1/decisions?cursor=%FF%00", "query.cursor", "NUL"),
        ("/v1/rules?cursor=nonsense", "query.cursor", "cursor"),
        ("/v1/campaigns?cursor=é", "query.cursor", "cursor"),
        ("/v1/changes?after=-1", "query.after", "from 0"),
        ("/v1/changes?limit=501", "query.limit", "from 1 to 500"),
        ("/v1/rule-breaches?limit=0", "query.limit", "from 1 to 500"),
        ("/v1/rule-breaches?cursor=nonsense", "query.cursor", "cursor"),
        ("/v1/rules/default-quiet-hours/breaches?cursor=nonsense", "query.cursor", "cursor"),
        ("/v1/workspace?x=1", "query.x", "none"),
        ("/v1/recipients/a%00b", "path.recipient_id", "control characters"),
        ("/v1/recipients/a%FFb", "path.recipient_id", "control characters"),
        (f"/v1/campaigns/{'c' * 257}", "path.campaign_id", "1 to 256"),
    ],
)
def test_bad_parameters_are_refused(admin: Caller, path: str, field: str, allowed: str) -> None:
    assert_problem(admin("GET", path), 422, field, "", allowed)


@pytest.mark.parametrize("path", ["/v1/campaigns/c", "/v1/rules/default-quiet-hours", "/v1/recipients/u"])
@pytest.mark.parametrize(("levels", "status"), [(499, 422), (500, 400), (999, 400), (1_022, 400)])
def test_a_patch_is_read_to_a_depth_and_refused_beyond(ready: Caller, path: str, levels: int, status: int) -> None:
    assert ready("PUT", "/v1/recipients/u", {}).status_code == 201
    before = ready("GET", path).data
    nested = b'{"attributes":' + b'{"a":' * levels + b"1" + b"}" * levels + b"}"
    reply = ready("PATCH", path, nested, headers={"Content-Type": "application/merge-patch+json"})
    assert_problem(reply, status, "", "", "500 levels" if status == 400 else "")
    assert ready("GET", path).data == before
