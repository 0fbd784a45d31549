"""Webhook sources: set up per vendor, never shown, unique in the installation, versioned like their sisters."""

from __future__ import annotations

from typing import Any

import pytest

from simulations.drills.webhooks.senders import Happened
from tests.web.conftest import Caller, key
from tests.web.webhooks.conftest import PUBLIC_URL, VENDORS, Hook, sender_of

PATH = "/v1/webhook-sources/main"
MAILGUN = {"vendor": "mailgun", "secrets": ["an old key", "a new key"]}
TOPIC = "arn:aws:sns:eu-west-1:123456789012:ses"


@pytest.mark.parametrize("vendor", VENDORS)
def test_each_vendor_takes_what_its_signatures_are_checked_with(admin: Caller, vendor: Any) -> None:
    sender = sender_of(vendor)
    setup = {"vendor": vendor, "secrets": list(sender.secrets), "topic_arns": list(sender.topic_arns)}
    put = admin("PUT", PATH, setup)
    assert put.status_code == 201
    shown = put.get_json()
    assert shown["url"] == f"{PUBLIC_URL}/v1/webhooks/{vendor}/main"
    assert shown["topic_arns"] == list(sender.topic_arns)
    assert shown["note"] == ""
    assert len(shown["fingerprints"]) == len(sender.secrets)
    assert admin("GET", PATH).get_json() == shown


@pytest.mark.parametrize(
    ("setup", "field"),
    [
        ({"vendor": "sendgrid", "secrets": ["bm90IGEga2V5"]}, "secrets.0"),
        ({"vendor": "sendgrid", "secrets": ["not base64 ü"]}, "secrets.0"),
        ({"vendor": "sendgrid", "secrets": []}, "secrets"),
        ({"vendor": "mailgun"}, "secrets"),
        ({"vendor": "mailgun", "secrets": ["k"], "topic_arns": [TOPIC]}, "topic_arns"),
        ({"vendor": "postmark", "secrets": ["good:one", "no-colon"]}, "secrets.1"),
        ({"vendor": "postmark", "secrets": [":password"]}, "secrets.0"),
        ({"vendor": "ses", "secrets": ["k"], "topic_arns": [TOPIC]}, "secrets"),
        ({"vendor": "ses", "secrets": []}, "topic_arns"),
        ({"vendor": "ses", "topic_arns": [TOPIC, "arn:aws:sqs:eu-west-1:123456789012:q"]}, "topic_arns.1"),
        ({"vendor": "twilio", "secrets": [" token"]}, "secrets.0"),
        ({"vendor": "standard", "secrets": ["whsec_#"]}, "secrets.0"),
        ({"vendor": "standard", "secrets": ["whpk_c2hvcnQ="]}, "secrets.0"),
        ({"vendor": "mailchimp", "secrets": ["k"]}, "vendor"),
        ({"vendor": "mailgun", "secrets": "a string"}, "secrets"),
        ({"vendor": "mailgun", "secrets": [7]}, "secrets.0"),
        ({"vendor": "mailgun", "secrets": ["k"], "token": "x"}, "token"),
        ({"secrets": ["k"]}, "vendor"),
    ],
)
def test_what_a_vendor_can_not_be_checked_with_is_refused_by_field(
    admin: Caller, setup: dict[str, Any], field: str
) -> None:
    reply = admin("PUT", PATH, setup)
    assert reply.status_code == 422
    assert list(reply.get_json()["errors"]) == [field]
    assert admin("GET", PATH).status_code == 404


def test_a_secret_is_in_no_answer(admin: Caller) -> None:
    for setup in (MAILGUN, {**MAILGUN, "secrets": "an old key"}, {**MAILGUN, "secrets": ["an old key" * 1000]}):
        for reply in (admin("PUT", PATH, setup), admin("GET", PATH), admin("GET", "/v1/webhook-sources")):
            assert "an old key" not in reply.get_data(as_text=True)


def test_fingerprints_tell_secrets_apart_and_stay_the_same(admin: Caller) -> None:
    first = admin("PUT", PATH, MAILGUN).get_json()["fingerprints"]
    assert len(set(first)) == 2
    assert admin("PUT", PATH, {**MAILGUN, "secrets": ["a new key"]}).get_json()["fingerprints"] == first[1:]


def test_versions_and_preconditions_are_those_of_other_documents(admin: Caller) -> None:
    assert admin("PUT", PATH, MAILGUN, headers={"If-Match": "*"}).status_code == 412
    created = admin("PUT", PATH, MAILGUN, headers={"If-None-Match": "*"})
    assert (created.status_code, created.headers["ETag"]) == (201, '"1"')
    assert admin("PUT", PATH, MAILGUN, headers={"If-None-Match": "*"}).status_code == 412
    replaced = admin("PUT", PATH, MAILGUN, headers={"If-Match": '"1"'})
    assert (replaced.status_code, replaced.headers["ETag"]) == (200, '"2"')
    assert admin("PUT", PATH, MAILGUN, headers={"If-Match": '"1"'}).status_code == 412
    assert admin("GET", PATH, headers={"If-None-Match": '"2"'}).status_code == 304
    assert admin("DELETE", PATH, headers={"If-Match": '"1"'}).status_code == 412
    assert admin("DELETE", PATH, headers={"If-Match": '"2"'}).status_code == 204
    assert admin("DELETE", PATH).status_code == 404
    assert admin("GET", PATH).status_code == 404
    again = admin("PUT", PATH, MAILGUN, headers={"If-None-Match": "*"})
    assert (again.status_code, again.headers["ETag"]) == (201, '"4"')


def test_the_list_has_pages_and_only_this_workspaces_sources(admin: Caller, other_admin: Caller) -> None:
    for name in ("c", "a", "b", "gone"):
        admin("PUT", f"/v1/webhook-sources/{name}", MAILGUN)
    admin("DELETE", "/v1/webhook-sources/gone")
    other_admin("PUT", "/v1/webhook-sources/theirs", MAILGUN)
    first = admin("GET", "/v1/webhook-sources?limit=2").get_json()
    assert [one["source_id"] for one in first["webhook_sources"]] == ["a", "b"]
    second = admin("GET", f"/v1/webhook-sources?limit=2&cursor={first['cursor']}").get_json()
    assert [one["source_id"] for one in second["webhook_sources"]] == ["c"]
    assert second["cursor"] is None


def test_another_workspaces_id_is_refused_without_telling_whose_it_is(admin: Caller, other_admin: Caller) -> None:
    admin("PUT", PATH, MAILGUN)
    for headers in ({}, {"If-None-Match": "*"}):
        refused = other_admin("PUT", PATH, MAILGUN, headers=headers)
        assert refused.status_code == 409
        assert refused.get_json()["code"] == "id_taken"
        assert "default" not in refused.get_data(as_text=True)
    for method in ("GET", "DELETE"):
        assert other_admin(method, PATH).status_code == 404
    admin("DELETE", PATH)
    assert other_admin("PUT", PATH, MAILGUN).status_code == 409  # a vendor may still post there


def test_sources_are_an_admins(admin: Caller) -> None:
    reader = Caller(admin.app, key(admin.app, "read", "feedback", "decide"))
    assert reader("PUT", PATH, MAILGUN).status_code == 403
    assert reader("GET", PATH).status_code == 403
    assert reader("GET", "/v1/webhook-sources").status_code == 403
    assert reader("DELETE", PATH).status_code == 403


def test_a_vendor_whose_source_was_deleted_is_told_to_stop_in_its_own_way(hook: Hook, ready: Caller) -> None:
    event = Happened(1, "delivered", hook.clock(), "m-1")
    assert ready("DELETE", f"/v1/webhook-sources/{hook.source_id}").status_code == 204
    stopped = {"mailgun": 406, "postmark": 403, "standard": 410}
    answer = hook.say(event)[0]
    assert answer.status_code == stopped.get(hook.sender.vendor, 404)
    assert answer.content_type == "application/problem+json"
