"""Keys in the console: made with a secret that is shown once, revoked after a confirmation, by admins alone."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence

import pytest
from flask import Flask

from storage.records import ApiKey
from tests.web.conftest import Caller
from tests.web.console.conftest import Browser

SignedIn = Callable[..., Browser]
_SECRET = re.compile(r'id="secret"[^>]* value="(st_[\w-]+)"')


def known(app: Flask, workspace: str = "default") -> Sequence[ApiKey]:
    with app.extensions["sendtide"].get().store.read() as reader:
        return list(reader.keys(workspace))


def named(app: Flask, name: str) -> ApiKey:
    (found,) = [key for key in known(app) if key.name == name]
    return found


def make(browser: Browser, name: str, *scopes: str) -> str:
    """Makes a key by the form; its secret."""
    browser.get("/console/keys")
    found = _SECRET.search(browser.post("/console/keys", {"name": name, "scopes": list(scopes)}).text)
    assert found is not None
    return found[1]


def test_a_key_that_was_made_opens_what_its_scopes_say(app: Flask, signed_in: SignedIn) -> None:
    secret = make(signed_in("admin"), "shop", "decide", "feedback")
    shop = Caller(app, secret)
    assert named(app, "shop").scopes == ("decide", "feedback")
    assert shop("POST", "/v1/events", {"events": []}).status_code != 401
    assert shop("GET", "/v1/rules").status_code == 403


def test_a_secret_is_shown_once_and_never_again(signed_in: SignedIn) -> None:
    browser = signed_in("admin")
    secret = make(browser, "shop", "read")
    page = browser.get("/console/keys")
    assert "shop" in page.text
    assert "st_" not in page.text
    assert secret not in page.text


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"name": "", "scopes": ["read"]}, "A name of 1 to 256"),
        ({"name": "x" * 257, "scopes": ["read"]}, "A name of 1 to 256"),
        ({"name": "a\x00b", "scopes": ["read"]}, "A name of 1 to 256"),
        ({"name": "shop"}, "Choose at least one"),
        ({"name": "shop", "scopes": ["read", "everything"]}, "Choose at least one"),
    ],
)
def test_what_is_missing_is_said_and_what_was_typed_stays(
    app: Flask, signed_in: SignedIn, caplog: pytest.LogCaptureFixture, fields: dict[str, object], fault: str
) -> None:
    browser = signed_in("admin")
    with caplog.at_level(logging.INFO, "sendtide.audit"):
        page = browser.post("/console/keys", fields)
    assert page.status_code == 422
    assert fault in page.text
    assert ('value="read" checked' in page.text) == ("scopes" in fields)
    assert len(known(app)) == 1
    assert caplog.records == []


def test_a_key_is_revoked_after_a_confirmation(app: Flask, signed_in: SignedIn) -> None:
    browser = signed_in("admin")
    shop = Caller(app, make(browser, "shop", "read"))
    address = f"/console/keys/{named(app, 'shop').key_id}/revoke"
    asked = browser.get(address).text
    assert "Revoke this key?" in asked
    assert "signs you out" not in asked
    assert shop("GET", "/v1/rules").status_code == 200, "asking changes nothing"
    done = browser.post(address)
    assert "The key was revoked." in browser.get(done.headers["Location"]).text
    assert shop("GET", "/v1/rules").status_code == 401
    assert browser.get(address).status_code == browser.post(address).status_code == 409


def test_revoking_ones_own_key_is_warned_of_and_signs_out(app: Flask, signed_in: SignedIn) -> None:
    browser = signed_in("admin")
    (own,) = known(app)
    asked = browser.get(f"/console/keys/{own.key_id}/revoke").text
    assert "signs you out" in asked
    assert "No other key may administer" in asked
    browser.post(f"/console/keys/{own.key_id}/revoke")
    assert browser.get("/console/keys").headers["Location"].startswith("/console/sign-in")


def test_keys_are_for_admins_of_their_workspace(app: Flask, signed_in: SignedIn) -> None:
    make(signed_in("admin"), "shop", "read")
    address = f"/console/keys/{named(app, 'shop').key_id}/revoke"
    reader, other = signed_in("read", "decide", "feedback"), signed_in("admin", workspace="other")
    assert 'href="/console/keys"' not in reader.get("/console").text
    assert reader.get("/console/keys").status_code == reader.get(address).status_code == 403
    assert reader.post(address).status_code == 403
    assert reader.post("/console/keys", {"name": "mine", "scopes": ["admin"]}).status_code == 403
    assert named(app, "shop").key_id not in other.get("/console/keys").text
    assert other.get(address).status_code == other.post(address).status_code == 404
    assert named(app, "shop").revoked_at is None
    assert not [key for key in known(app) if key.name == "mine"]


def test_a_form_of_another_session_makes_and_ends_no_key(app: Flask, signed_in: SignedIn) -> None:
    browser, other = signed_in("admin"), signed_in("admin")
    before = known(app)
    for path, fields in (
        ("/console/keys", {"name": "mine", "scopes": ["admin"]}),
        (f"/console/keys/{before[0].key_id}/revoke", {}),
    ):
        for token in ({}, {"token": other.token}):
            assert browser.client.post(path, data={**fields, **token}).status_code == 403
    assert known(app) == before


def test_making_and_ending_a_key_is_noted_without_its_secret(
    app: Flask, signed_in: SignedIn, caplog: pytest.LogCaptureFixture
) -> None:
    browser = signed_in("admin")
    with caplog.at_level(logging.DEBUG):
        secret = make(browser, "shop", "read")
        key_id = named(app, "shop").key_id
        browser.post(f"/console/keys/{key_id}/revoke")
    made, ended = (vars(r) for r in caplog.records if r.name == "sendtide.audit")
    assert (made["action"], made["made_key"]) == ("make_key", key_id)
    assert (ended["action"], ended["ended_key"]) == ("revoke_key", key_id)
    assert made["key"] == ended["key"] != key_id
    assert not any(secret in str(vars(r)) for r in caplog.records)
