"""Patches that come between one another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from optimizer.service.changing import change_recipient
from tests.web.conftest import Caller


def test_a_patch_without_if_match_is_made_anew_when_someone_wrote_in_between(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin("PUT", "/v1/recipients/d", {"attributes": {"x": 1}})

    def raced(*args: Any) -> Any:
        admin("PUT", "/v1/recipients/d", {"attributes": {"x": 1, "theirs": 2}})
        return change_recipient(*args)

    monkeypatch.setattr("optimizer.web.recipients.change_recipient", raced)
    reply = admin("PATCH", "/v1/recipients/d", {"attributes": {"mine": 3}})
    assert reply.get_json()["attributes"] == {"x": 1, "theirs": 2, "mine": 3}
    admin("PUT", "/v1/recipients/d", {})
    lost = admin("PATCH", "/v1/recipients/d", {"attributes": {"mine": 4}}, headers={"If-Match": '"4"'})
    assert lost.status_code == 412


def test_patches_that_come_together_all_hold(admin: Caller) -> None:
    admin("PUT", "/v1/recipients/d", {})
    with ThreadPoolExecutor(16) as callers:
        told = list(callers.map(lambda i: admin("PATCH", "/v1/recipients/d", {"attributes": {f"a{i}": i}}), range(48)))
    assert {reply.status_code for reply in told} == {200}
    assert admin("GET", "/v1/recipients/d").get_json()["attributes"] == {f"a{i}": i for i in range(48)}
