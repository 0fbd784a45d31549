"""Signing in and out: what a session is, what ends it, what no form gets past."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask

from optimizer.service import setup
from optimizer.service.keyring import hash_secret
from optimizer.web.console.attempts import MOST, Attempts
from optimizer.web.console.session import COOKIE, Seal, Session
from storage.errors import StoreUnavailable
from tests.web.conftest import NOW, StillClock, key
from tests.web.console.conftest import Browser

SignedIn = Callable[..., Browser]


def test_without_a_session_every_page_leads_to_the_sign_in_and_back(app: Flask, stranger: Browser) -> None:
    first = stranger.get("/console")
    assert (first.status_code, first.headers["Location"]) == (303, "/console/sign-in")
    assert stranger.get("/console/").headers["Location"] == "/console"
    back = stranger.sign_in(key(app, "read"), next="/console?x=%C3%9C&y=1")
    assert (back.status_code, back.headers["Location"]) == (303, "/console?x=%C3%9C&y=1")
    assert stranger.get("/console").status_code == 200
    assert stranger.get("/console/sign-in").headers["Location"] == "/console"


def test_the_bare_address_leads_to_the_console(app: Flask, stranger: Browser) -> None:
    answer = stranger.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/console")
    assert stranger.client.head("/").status_code == 303
    assert stranger.client.post("/").status_code == 405


@pytest.mark.parametrize("name", ["endpoint", "_scheme", "_method", "_anchor", "_external", "self", "values"])
def test_any_name_may_stand_in_a_query(app: Flask, stranger: Browser, name: str) -> None:
    wanted = f"/console/campaigns?{name}=x&{name}=%C3%9C"
    assert stranger.get(f"/console/sign-in?{name}=x").status_code == 200
    sent = stranger.get(wanted).headers["Location"]
    assert stranger.get(sent).status_code == 200
    back = stranger.sign_in(key(app, "read"), next=parse_qs(urlsplit(sent).query)["next"][0])
    assert back.headers["Location"] == wanted
    assert stranger.get(wanted).status_code == 200
    assert stranger.get(f"/console/policies/none?{name}=x").status_code == 404


@pytest.mark.parametrize(
    "wanted",
    [
        "https://example.org/",
        "//example.org",
        "/consoles",
        "/console\\@example.org",
        "/console/../v1/keys\r\nX: y",
        "/console/../evil",
        "/console/campaigns/..%2F../%2E%2e/%2e./evil?x=1",
        "/console/..",
        "/console/sign-in",
        "/docs",
        "javascript:alert(1)",
        "",
    ],
)
def test_a_sign_in_leads_nowhere_but_into_the_console(app: Flask, stranger: Browser, wanted: str) -> None:
    assert stranger.sign_in(key(app, "read"), next=wanted).headers["Location"] == "/console/start"


def test_the_cookie_is_for_the_console_alone_and_holds_no_key(app: Flask, stranger: Browser) -> None:
    secret = key(app, "admin")
    given = stranger.sign_in(secret).headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/console"} <= {part.strip() for part in given.split(";")}
    assert "Secure" not in given
    assert secret not in given
    assert hash_secret(secret).hex() not in given


def test_over_https_the_cookie_is_secure(app: Flask, stranger: Browser) -> None:
    page = stranger.get("/console/sign-in", base_url="https://sendtide.example")
    assert "Secure" in page.headers["Set-Cookie"]


@pytest.mark.parametrize("secret", ["", "st_nonsense", "Ünïcödé \U0001f30a", "\x00", "x" * 100_000])
def test_an_unknown_key_opens_nothing(stranger: Browser, secret: str) -> None:
    answer = stranger.sign_in(secret)
    assert answer.status_code == 401
    assert "This key is unknown or was revoked." in answer.text
    assert stranger.get("/console").status_code == 303


def test_a_key_that_may_not_read_opens_nothing(app: Flask, stranger: Browser) -> None:
    assert stranger.sign_in(key(app, "decide", "feedback")).status_code == 403
    assert stranger.get("/console").status_code == 303


def test_signing_in_needs_the_forms_token(app: Flask, stranger: Browser) -> None:
    stranger.get("/console/sign-in")
    for token in ("", "0" * 64, "Ü"):
        answer = stranger.client.post("/console/sign-in", data={"token": token, "key": key(app, "read")})
        assert answer.status_code == 400
    assert stranger.get("/console").status_code == 303


def test_revoking_the_key_ends_its_sessions_at_once(app: Flask, stranger: Browser) -> None:
    services = app.extensions["sendtide"].get()
    made, secret = setup.create_key(services, "default", "soon gone", ["admin"])
    stranger.sign_in(secret)
    assert stranger.get("/console").status_code == 200
    setup.revoke_key(services, "default", made.key_id)
    assert stranger.get("/console").status_code == 303


def test_a_session_ends_after_twelve_hours(signed_in: SignedIn, clock: StillClock) -> None:
    browser = signed_in("read")
    clock.forward(hours=11, minutes=59)
    assert browser.get("/console").status_code == 200
    clock.forward(minutes=1)
    assert browser.get("/console").status_code == 303


def test_signing_out_ends_the_session(signed_in: SignedIn) -> None:
    browser = signed_in("read")
    assert browser.post("/console/sign-out").headers["Location"] == "/console/sign-in"
    assert browser.get("/console").status_code == 303


def test_a_copy_of_the_cookie_opens_nothing_after_the_sign_out(app: Flask, signed_in: SignedIn) -> None:
    browser, other = signed_in("read"), signed_in("read")
    copied = browser.client.get_cookie(COOKIE, path="/console")
    assert copied is not None
    browser.post("/console/sign-out")
    thief = Browser(app.test_client())
    thief.client.set_cookie(COOKIE, copied.value, path="/console")
    assert thief.get("/console").status_code == 303
    assert thief.post("/console/training").headers["Location"] == "/console/sign-in"
    assert other.get("/console").status_code == 200, "another session of the same kind goes on"


def test_nobody_is_signed_out_by_a_foreign_form(signed_in: SignedIn) -> None:
    browser = signed_in("read")
    assert browser.client.post("/console/sign-out", data={"token": "0" * 64}).status_code == 403
    assert browser.get("/console").status_code == 200


def test_a_cookie_that_was_tampered_with_is_none(signed_in: SignedIn) -> None:
    browser = signed_in("read")
    held = browser.client.get_cookie(COOKIE, path="/console")
    assert held is not None
    for forged in (held.value[:-1], held.value[1:], "." + held.value, "{}", "a.b", ""):
        browser.client.set_cookie(COOKIE, forged, path="/console")
        assert browser.client.get("/console").status_code == 303
    browser.client.set_cookie(COOKIE, held.value, path="/console")
    assert browser.client.get("/console").status_code == 200


def test_another_installations_secret_opens_nothing() -> None:
    session = Session("nonce", datetime(2026, 11, 24, tzinfo=UTC), "default", "key_1")
    ours, theirs = Seal(b"a" * 32), Seal(b"b" * 32)
    assert ours.opened(ours.sealed(session), session.since) == session
    assert theirs.opened(ours.sealed(session), session.since) is None
    assert ours.is_token(session, ours.token(session))
    assert not theirs.is_token(session, ours.token(session))


def test_the_secret_is_the_installations_and_stays(app: Flask, signed_in: SignedIn) -> None:
    signed_in("read")
    store = app.extensions["sendtide"].get().store
    with store.read() as reader:
        secret = reader.meta("console_secret")
    assert secret is not None
    assert len(bytes.fromhex(secret)) == 32
    signed_in("read")
    with store.read() as reader:
        assert reader.meta("console_secret") == secret


def test_a_form_without_the_sessions_token_does_nothing(app: Flask, signed_in: SignedIn) -> None:
    browser, other = signed_in("read"), signed_in("read")
    for token in ("", other.token, "0" * 64):
        for path in ("/console/sign-out", "/console/preferences"):
            assert browser.client.post(path, data={"token": token, "theme": "dark"}).status_code == 403
    assert browser.get("/console").status_code == 200
    assert 'data-theme="auto"' in browser.get("/console").text


@pytest.mark.parametrize("path", ["/console/sign-in", "/console/sign-out", "/console/preferences", "/console/training"])
def test_a_form_has_a_size(signed_in: SignedIn, path: str) -> None:
    browser = signed_in("admin")
    answer = browser.post(path, {"key": "x" * 300_000})
    assert answer.status_code == 413
    assert "That was too large" in answer.text


def test_failed_attempts_are_limited_by_address(app: Flask, stranger: Browser, clock: StillClock) -> None:
    for _ in range(MOST):
        assert stranger.sign_in("wrong").status_code == 401
    answer = stranger.sign_in("wrong")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
    assert "60 seconds" in answer.text
    elsewhere = Browser(app.test_client())
    elsewhere.get("/console/sign-in")
    from_there = elsewhere.post("/console/sign-in", {"key": "wrong"}, environ_base={"REMOTE_ADDR": "192.0.2.7"})
    assert from_there.status_code == 401
    clock.forward(minutes=1)
    assert stranger.sign_in("wrong").status_code == 401


def test_wrong_keys_keep_nobody_out_who_has_a_right_one(app: Flask, stranger: Browser) -> None:
    for _ in range(MOST + 1):
        stranger.sign_in("wrong")
    assert stranger.sign_in("wrong").status_code == 429
    assert Browser(app.test_client()).sign_in(key(app, "read")).status_code == 303


def test_attempts_forget_what_is_long_ago_and_who_is_far_back() -> None:
    attempts = Attempts()
    for n in range(10_050):
        attempts.failed(f"address {n}", NOW)
    assert len(attempts._failed) == 10_000
    assert attempts.wait_seconds("address 10049", NOW) == 0


def test_language_and_theme_are_kept_in_cookies(signed_in: SignedIn) -> None:
    browser = signed_in("read")
    assert '<html lang="en" data-theme="auto">' in browser.get("/console").text
    answer = browser.post("/console/preferences", {"language": "ru", "theme": "dark", "next": "/console"})
    assert answer.headers["Location"] == "/console"
    assert '<html lang="ru" data-theme="dark">' in browser.get("/console").text
    browser.post("/console/preferences", {"language": "../en", "theme": '"><script>'})
    assert '<html lang="ru" data-theme="dark">' in browser.get("/console").text


def test_the_browsers_language_is_the_default(stranger: Browser) -> None:
    page = stranger.get("/console/sign-in", headers={"Accept-Language": "fr, ru;q=0.8, en;q=0.5"})
    assert '<html lang="ru"' in page.text


def test_pages_have_a_strict_policy_and_are_kept_by_nobody(signed_in: SignedIn, stranger: Browser) -> None:
    browser = signed_in("read")
    pages = [browser.get("/console"), browser.get("/console/nowhere"), stranger.get("/console/sign-in")]
    assert [page.status_code for page in pages] == [200, 404, 200]
    for page in pages:
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "form-action 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.content_type == "text/html; charset=utf-8"


def test_a_names_odd_characters_stay_text(app: Flask, stranger: Browser) -> None:
    name = "<img src=x onerror=alert(1)> & \"'{{ 7*7 }} \u202eÜ"
    services = app.extensions["sendtide"].get()
    key, secret = setup.create_key(services, "default", "plain", ["read"])
    older = replace(key, name=name)  # as one may be stored that was made before names had to be printable
    services.store.write(lambda writer: writer.put_key(older))
    stranger.sign_in(secret)
    page = stranger.get("/console").text
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; &#34;&#39;{{ 7*7 }} \u202eÜ" in page


def test_a_store_that_is_down_is_told_on_a_page(
    app: Flask, signed_in: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = signed_in("read")
    store = app.extensions["sendtide"].get().store

    def fail() -> None:
        raise StoreUnavailable("/secret/path is full", 7)

    with monkeypatch.context() as broken:
        broken.setattr(type(store), "read", lambda _: fail())
        page = browser.get("/console")
    assert page.status_code == 503
    assert "The store can’t be used right now" in page.text
    assert "/secret/path" not in page.text


def test_a_bug_is_told_on_a_page_without_its_words(
    app: Flask, signed_in: SignedIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    browser = signed_in("read")
    store = app.extensions["sendtide"].get().store

    def fail() -> None:
        raise ZeroDivisionError("inner words")

    with monkeypatch.context() as broken:
        broken.setattr(type(store), "read", lambda _: fail())
        page = browser.get("/console")
    assert page.status_code == 500
    assert "inner words" not in page.text
    assert page.headers["X-Request-Id"] in page.text
    assert "inner words" in caplog.text


def test_signing_in_and_out_is_noted_in_the_audit_log(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    secret = key(app, "read")
    browser = Browser(app.test_client())
    with caplog.at_level(logging.INFO, "sendtide.audit"):
        browser.sign_in(secret)
        browser.get("/console")
        browser.post("/console/sign-out")
    noted = [vars(r) for r in caplog.records if r.name == "sendtide.audit"]
    assert [one["action"] for one in noted] == ["sign_in", "sign_out"]
    assert all(one["key"].startswith("key_") and one["key_name"] == "test" for one in noted)
    assert secret not in str(noted)
