"""A browser without a screen: keeps cookies, finds the token of a page's forms, follows where it is sent."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import Client, TestResponse

from tests.web.conftest import key

_TOKEN = re.compile(r'name="token" value="(\w+)"')


@dataclass
class Browser:
    """One visitor of the console."""

    client: Client
    token: str = ""

    def get(self, path: str, **options: Any) -> TestResponse:
        """Loads a page, and remembers the token of its forms."""
        return self._seen(self.client.get(path, **options))

    def post(self, path: str, fields: dict[str, Any] | None = None, **options: Any) -> TestResponse:
        """Sends a form with the token of the page that was loaded last."""
        return self._seen(self.client.post(path, data={"token": self.token, **(fields or {})}, **options))

    def sign_in(self, secret: str, **fields: str) -> TestResponse:
        """Loads the sign-in and sends a key."""
        self.get("/console/sign-in")
        return self.post("/console/sign-in", {"key": secret, **fields})

    def _seen(self, answer: TestResponse) -> TestResponse:
        found = _TOKEN.search(answer.text)
        self.token = found[1] if found else self.token
        return answer


@pytest.fixture
def stranger(app: Flask) -> Browser:
    return Browser(app.test_client())


@pytest.fixture
def signed_in(app: Flask) -> Callable[..., Browser]:
    """Makes a visitor who is signed in with a key of these scopes."""

    def made(*scopes: str, workspace: str = "default") -> Browser:
        browser = Browser(app.test_client())
        assert browser.sign_in(key(app, *scopes, workspace=workspace)).status_code == 303
        browser.get("/console")
        return browser

    return made
