"""Who may post: what the vendors' own libraries accept is accepted, anything else is 401 and leaves nothing behind."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sendgrid.helpers.eventwebhook import EventWebhook
from standardwebhooks import Webhook as StandardWebhook
from svix.webhooks import Webhook as SvixWebhook
from twilio.request_validator import RequestValidator, get_signature_algorithm

from optimizer.service.wiring import Services
from simulations.drills.webhooks.senders import Happened, Request, SendGrid, Standard
from tests.web.conftest import NOW, Caller, StillClock
from tests.web.webhooks.conftest import VENDORS, FarSide, Hook, hook_of, metric, unmatched

OPENED = Happened(1, "opened", NOW, "m-1")
SIGNATURE, TIMESTAMP = "X-Twilio-Email-Event-Webhook-Signature", "X-Twilio-Email-Event-Webhook-Timestamp"

Change = Callable[[Request], Request]


def header(name: str, value: str | None) -> Change:
    """The request with another header, or (None) without it."""

    def change(request: Request) -> Request:
        kept = {k: v for k, v in request.headers.items() if k != name}
        return replace(request, headers=kept if value is None else {**kept, name: value})

    return change


def body(old: bytes, new: bytes) -> Change:
    def change(request: Request) -> Request:
        assert old in request.body
        return replace(request, body=request.body.replace(old, new))

    return change


def query(text: str) -> Change:
    return lambda request: replace(request, query=text)


BROKEN: dict[str, list[Change]] = {
    "sendgrid": [
        body(b"m-1", b"m-2"),
        header(SIGNATURE, None),
        header(SIGNATURE, "bm90IGEgc2lnbmF0dXJl"),
        header(SIGNATURE, "é#"),
        header(TIMESTAMP, None),
        header(TIMESTAMP, str(int(NOW.timestamp()) + 1)),
        header(TIMESTAMP, "soon"),
        lambda _: SendGrid().request([{}], NOW),
    ],
    "mailgun": [
        body(b'"signature":"', b'"signature":"0'),
        body(b'"token":"', b'"token":"0'),
        body(b'"timestamp":"1', b'"timestamp":"2'),
        body(b'"signature":{', b'"signatur":{'),
        body(b'"token"', b'"tokem"'),
        lambda request: replace(request, body=b"not json"),
        lambda request: replace(request, body=b"[]"),
        lambda request: replace(request, body=b'{"signature": {"timestamp": {}, "token": [], "signature": 7}}'),
        lambda request: replace(request, body=b'{"signature": "x", "event-data": {}}'),
    ],
    "postmark": [
        header("Authorization", None),
        header("Authorization", "Basic " + base64.b64encode(b"hook:guess").decode()),
        header("Authorization", "Basic é"),
        header("Authorization", "Bearer " + base64.b64encode(b"hook:s3cret:with colon").decode()),
    ],
    "ses": [
        body(b"m-1", b"m-2"),
        body(b'"Signature":"', b'"Signature":"AA'),
        body(b'"SignatureVersion":"2"', b'"SignatureVersion":"1"'),
        body(b'"SignatureVersion":"2"', b'"SignatureVersion":"3"'),
        body(b'"Timestamp":"', b'"Timestamp":"alex@example.com '),
        body(b":ses", b":their-own"),
        lambda request: replace(request, body=b'{"eventType": "Open"}'),
        lambda request: replace(request, body=b'{"Type": 7}'),
        lambda request: replace(request, body=b"{"),
    ],
    "twilio": [
        body(b"read", b"sent"),
        body(b"MessageStatus", b"MessageState"),
        lambda request: replace(request, body=request.body + b"&New=1"),
        header("X-Twilio-Signature", None),
        header("X-Twilio-Signature", "é"),
        query("?sendtide_decision_id=dec_of_mine"),
        header("X-Twilio-Webhooks-Signature-Settings", "key=k,algorithm=HMAC_SHA256"),
        header("X-Twilio-Webhooks-Signature-Settings", "key=k,algorithm=HMAC_MD5"),
        header("X-Twilio-Webhooks-Signature-Settings", "algorithm=alex@example.com"),
        header("Content-Type", "application/json"),
    ],
    "standard": [
        body(b"m-1", b"m-2"),
        header("webhook-signature", None),
        header("webhook-signature", "v1"),
        header("webhook-signature", "v1,é v2,AAAA v1a,AAAA"),
        header("webhook-id", "msg_other"),
        header("webhook-timestamp", "NaN"),
        header("webhook-timestamp", str(int(NOW.timestamp()) + 1)),
    ],
}


@pytest.mark.parametrize(("vendor", "change"), [(v, c) for v in VENDORS for c in BROKEN[v]])
def test_what_its_vendor_did_not_sign_is_401_and_leaves_one_line_without_secrets(
    ready: Caller,
    clock: StillClock,
    far_side: FarSide,
    services: Services,
    caplog: pytest.LogCaptureFixture,
    vendor: Any,
    change: Change,
) -> None:
    hook = hook_of(ready, vendor, clock, far_side)
    with caplog.at_level(logging.INFO, "sendtide"):
        reply = hook.post(change(hook.request(OPENED)))
    assert reply.status_code == 401, reply.get_data(as_text=True)
    assert reply.get_json()["code"] == "forged"
    assert reply.headers["WWW-Authenticate"]
    assert unmatched(services) == 0
    assert metric(hook.app, vendor, "forged") == 1
    lines = [line for line in caplog.records if line.name.startswith("sendtide.webhooks")]
    assert len(lines) == 1
    told = f"{vars(lines[0])} {reply.get_data(as_text=True)}"
    assert not any(secret in told for secret in (*hook.sender.secrets, "m-1", "alex@example.com"))


def test_what_its_vendor_signed_is_stored(hook: Hook, services: Services) -> None:
    (reply,) = hook.say(OPENED)
    assert reply.status_code == (204 if hook.sender.vendor == "twilio" else 200)
    assert unmatched(services) == 1
    assert metric(hook.app, hook.sender.vendor, "accepted") == 1
    assert metric(hook.app, hook.sender.vendor, "unmatched") == 1


def test_any_of_several_secrets_will_do_while_they_are_rotated(ready: Caller, hook: Hook) -> None:
    if hook.sender.vendor == "ses":
        return  # Amazon rotates its certificates by itself: each envelope names its own
    fresh = {"sendgrid": SendGrid().secrets[0], "postmark": "other:pair", "standard": "whsec_" + "QUFB" * 8}
    other = fresh.get(hook.sender.vendor, "other")
    path, vendor = f"/v1/webhook-sources/{hook.source_id}", hook.sender.vendor
    ready("PUT", path, {"vendor": vendor, "secrets": [other, *hook.sender.secrets]})
    assert hook.say(OPENED)[0].status_code in (200, 204)
    ready("PUT", path, {"vendor": vendor, "secrets": [other]})
    assert hook.say(OPENED)[0].status_code == 401


def test_a_source_that_is_not_there_is_404_whoever_signed(ready: Caller, hook: Hook) -> None:
    signed = hook.request(OPENED)
    assert replace(hook, source_id="nobody").post(signed).status_code == 404
    wrong = "mailgun" if hook.sender.vendor != "mailgun" else "twilio"
    ready("PUT", "/v1/webhook-sources/of-another-vendor", {"vendor": wrong, "secrets": ["k"]})
    assert replace(hook, source_id="of-another-vendor").post(signed).status_code == 404


def test_a_signature_of_one_workspace_opens_no_other(
    ready: Caller, other_admin: Caller, services: Services, clock: StillClock, far_side: FarSide
) -> None:
    mine = hook_of(ready, "mailgun", clock, far_side)
    other_admin("PUT", "/v1/webhook-sources/theirs", {"vendor": "mailgun", "secrets": ["their key"]})
    assert replace(mine, source_id="theirs").post(mine.request(OPENED)).status_code == 401
    assert unmatched(services, "other") == 0


@pytest.mark.parametrize(
    ("vendor", "allowed", "refused"),
    [
        ("sendgrid", timedelta(hours=35), timedelta(hours=37)),
        ("mailgun", timedelta(hours=11), timedelta(hours=13)),
        ("ses", timedelta(days=13), timedelta(days=15)),
        ("standard", timedelta(minutes=4), timedelta(minutes=6)),
    ],
)
def test_a_signature_holds_for_a_time_and_not_ahead_of_it(
    ready: Caller, clock: StillClock, far_side: FarSide, vendor: Any, allowed: timedelta, refused: timedelta
) -> None:
    hook = hook_of(ready, vendor, clock, far_side)
    for age, status in ((allowed, 200), (refused, 401), (timedelta(minutes=-4), 200), (timedelta(minutes=-6), 401)):
        assert hook.post(hook.request(OPENED, NOW - age)).status_code == status, age


# The vendors' own libraries


def requests_of(hook: Hook) -> list[Request]:
    """Genuine ones and broken ones, odd characters among them."""
    odd = Happened(2, "opened", NOW, "m-1", None, {"note": "zażółć 🙂 \u2028"})
    genuine = [hook.request(OPENED), hook.request(odd)]
    return genuine + [change(genuine[0]) for change in BROKEN[hook.sender.vendor]]


def test_sendgrids_library_accepts_what_is_accepted(ready: Caller, clock: StillClock, far_side: FarSide) -> None:
    hook = hook_of(ready, "sendgrid", clock, far_side)
    verifier = EventWebhook(hook.sender.secrets[0])
    verdicts = set()
    for request in requests_of(hook):
        told = request.headers
        try:
            genuine = verifier.verify_signature(request.body.decode(), told[SIGNATURE], told[TIMESTAMP])
        except (KeyError, ValueError):
            genuine = False
        assert (hook.post(request).status_code == 200) == genuine
        verdicts.add(genuine)
    assert verdicts == {True, False}


@pytest.mark.parametrize("algorithm", ["HMAC_SHA1", "HMAC_SHA256"])
@pytest.mark.parametrize("port", ["", ":443"])
def test_twilios_library_signs_what_is_accepted(
    ready: Caller, clock: StillClock, far_side: FarSide, algorithm: str, port: str
) -> None:
    hook = hook_of(ready, "twilio", clock, far_side)
    url = hook.url.replace("example.org", f"example.org{port}") + "?sendtide_decision_id=dec_1&x=%7E%20"
    params = {"MessageSid": "SM1", "MessageStatus": "delivered", "Body": "zażółć & = 🙂", "Empty": ""}
    signer = RequestValidator(hook.sender.secrets[0])
    headers = {"X-Twilio-Signature": signer.compute_signature(url, params, algorithm)}
    if algorithm == "HMAC_SHA256":
        headers["X-Twilio-Webhooks-Signature-Settings"] = "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"
    path = hook.path + "?sendtide_decision_id=dec_1&x=%7E%20"
    client = hook.app.test_client()
    assert client.post(path, data=params, headers=headers).status_code == 204
    assert client.post(path, data={**params, "Body": ""}, headers=headers).status_code == 401


def test_twilios_library_accepts_what_is_accepted(ready: Caller, clock: StillClock, far_side: FarSide) -> None:
    hook = hook_of(ready, "twilio", clock, far_side)
    verifier = RequestValidator(hook.sender.secrets[0])
    verdicts = set()
    for request in requests_of(hook):
        told = request.headers
        is_json = told["Content-Type"] == "application/json"
        params: Any = request.body.decode() if is_json else dict(parse_qsl(request.body.decode()))
        algorithm = get_signature_algorithm(told.get("X-Twilio-Webhooks-Signature-Settings"))
        signature = told.get("X-Twilio-Signature", "")
        genuine = not is_json and verifier.validate(hook.url + request.query, params, signature, algorithm)
        assert (hook.post(request).status_code == 204) == genuine
        verdicts.add(genuine)
    assert verdicts == {True, False}


def test_twilios_json_is_signed_by_the_hash_in_its_address(ready: Caller, clock: StillClock, far_side: FarSide) -> None:
    hook = hook_of(ready, "twilio", clock, far_side)
    raw = b'{"MessageSid": "SM1", "MessageStatus": "delivered"}'
    query = f"?bodySHA256={hashlib.sha256(raw).hexdigest()}"
    verifier = RequestValidator(hook.sender.secrets[0])
    signature = verifier.compute_signature(hook.url + query, {})
    headers = {"Content-Type": "application/json", "X-Twilio-Signature": signature}
    for sent in (raw, raw.replace(b"delivered", b"undelivered")):
        genuine = verifier.validate(hook.url + query, sent.decode(), signature)
        assert (hook.post(Request(sent, headers, query)).status_code == 204) == genuine
    unhashed = verifier.compute_signature(hook.url, {})
    assert hook.post(Request(raw, {**headers, "X-Twilio-Signature": unhashed})).status_code == 401


@pytest.mark.parametrize("library", [StandardWebhook, SvixWebhook])
def test_the_libraries_of_standard_webhooks_accept_what_is_accepted(
    ready: Caller, clock: StillClock, far_side: FarSide, library: Any
) -> None:
    hook = hook_of(ready, "standard", clock, far_side)
    verdicts = set()
    with time_machine.travel(NOW, tick=False):
        for request in requests_of(hook):
            try:
                library(hook.sender.secrets[0]).verify(request.body, request.headers)
                genuine = True
            except Exception:  # noqa: BLE001 - a ValueError too is the library's no
                genuine = False
            assert (hook.post(request).status_code == 200) == genuine
            verdicts.add(genuine)
    assert verdicts == {True, False}


@pytest.mark.parametrize(("library", "prefix"), [(StandardWebhook, "webhook"), (SvixWebhook, "svix")])
def test_what_the_libraries_of_standard_webhooks_sign_is_accepted(
    ready: Caller, clock: StillClock, far_side: FarSide, library: Any, prefix: str
) -> None:
    hook = hook_of(ready, "standard", clock, far_side)
    text = '{"type":"email.opened","data":{"message_id":"m","note":"ż🙂"}}'
    made = library(hook.sender.secrets[0]).sign("msg_1", NOW.replace(tzinfo=UTC), text)
    headers = {
        "Content-Type": "application/json",
        f"{prefix}-id": "msg_1",
        f"{prefix}-timestamp": str(int(NOW.timestamp())),
        f"{prefix}-signature": f"v1,b2xk {made}",
    }
    assert hook.post(Request(text.encode(), headers)).status_code == 200


def test_a_standard_webhook_may_be_signed_with_a_private_key(ready: Caller, clock: StillClock) -> None:
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    secret = "whpk_" + base64.b64encode(public).decode()
    ready("PUT", "/v1/webhook-sources/ed", {"vendor": "standard", "secrets": [secret]})
    hook = Hook(ready.app, Standard(), "ed", clock)
    request = hook.request(OPENED)
    assert hook.post(request).status_code == 401
    stamp = request.headers["webhook-timestamp"]
    made = private.sign(f"msg_1.{stamp}.".encode() + request.body)
    signed = header("webhook-signature", "v1a," + base64.b64encode(made).decode())(request)
    assert hook.post(signed).status_code == 200
    symmetric = hmac.new(public, f"msg_1.{stamp}.".encode() + request.body, hashlib.sha256).digest()
    confused = header("webhook-signature", "v1," + base64.b64encode(symmetric).decode())(request)
    assert hook.post(confused).status_code == 401  # a public key is no shared secret
