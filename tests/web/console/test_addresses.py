"""Addresses of pages: each is of the id that it was made of, whatever stands on the way."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import pytest
from flask import Flask, url_for

from tests.web.conftest import Caller
from tests.web.console.conftest import Browser

SignedIn = Callable[..., Browser]
ODD = ("..", ".", "...", "%2e%2e", "%2F", "50%", "a b+c?d#e", "\\..\\u1", "Ünï\u202e\U0001f30a")
WITH_SLASHES = ("x/../u1", "./u1", "../rules/r/switch/archived", "/u1", "//u1", "a/", "/", "x%2F..%2Fu1")
PAGES = [
    *((name, "recipient_id", ODD + WITH_SLASHES) for name in ("recipient", "confirm_erase", "export_recipient")),
    ("rule", "rule_id", ODD),
    ("edit_rule", "rule_id", ODD),
    ("campaign", "campaign_id", ODD),
    ("decision", "decision_id", (*ODD, "../erase/u1")),
]


@pytest.mark.parametrize(("page", "part", "ids"), PAGES, ids=[page for page, _, _ in PAGES])
def test_a_link_leads_to_its_own_page_through_browsers_and_proxies(
    app: Flask, page: str, part: str, ids: tuple[str, ...]
) -> None:
    for one in ids:
        named: dict[str, Any] = {part: one}
        with app.test_request_context():
            link = url_for(f"console.{page}", **named)
        resolved = urlsplit(urljoin("http://host/console/start", link)).path
        assert resolved == link
        # Some proxies undo the quoting, resolve the path, and quote it again.
        proxied = quote(posixpath.normpath(unquote(link)), safe="/")
        for path in (resolved, proxied):
            found, parts = app.url_map.bind("host").match(unquote(path))
            assert (found, parts) == (f"console.{page}", named)


def test_a_slash_that_somebody_typed_is_one_of_the_id(signed_in: SignedIn, ready: Caller) -> None:
    ready("PUT", "/v1/recipients/a%2Fb", {"attributes": {"plan": "pro"}})
    for path in ("/console/recipients/a/b", "/console/recipients/a%2Fb"):
        assert "<h1>a/b</h1>" in signed_in("read").get(path).text
