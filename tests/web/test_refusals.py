"""What refusals say: which field, which value, what is allowed, each of it once."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from tests.web.conftest import Caller, key

REFUSED: dict[str, tuple[str, str, Any, str, str]] = {
    "an attribute without a name": (
        "PUT",
        "/v1/recipients/u",
        {"attributes": {"": 1}},
        "attributes",
        "Names must be 1 to 256 characters without control characters. Got ''.",
    ),
    "a channel without a name": (
        "PUT",
        "/v1/recipients/u",
        {"channels": {"": True}},
        "channels",
        "Names must be 1 to 256 characters without control characters. Got ''.",
    ),
    "a cap without a window": ("PUT", "/v1/rules/r", {"kind": "cap", "limit": 1}, "window", "Missing; it is required."),
    "a cap with no window": (
        "PUT",
        "/v1/rules/r",
        {"kind": "cap", "limit": 1, "window": None},
        "window",
        "null is not allowed. Got null.",
    ),
    "a cursor of nowhere": (
        "GET",
        "/v1/decisions?cursor=zzz",
        None,
        "query.cursor",
        "'zzz' is not a cursor that the list of decisions gave. Allowed: the cursor of the page before.",
    ),
    "a cursor of no rule": (
        "GET",
        "/v1/rules?cursor=zzz",
        None,
        "query.cursor",
        "'zzz' is not a cursor that this list gave. Allowed: the cursor of the page before.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_names_field_value_and_what_is_allowed(admin: Caller, case: str) -> None:
    method, path, body, field, message = REFUSED[case]
    told = admin(method, path, body)
    assert (told.status_code, told.get_json()["errors"]) == (422, {field: [message]})


@pytest.mark.parametrize(
    ("row", "got"), [(5, "5"), ("u1", '"u1"'), (None, "null"), ([1, 2], "a list of 2 items"), (True, "true")]
)
def test_a_row_that_is_no_object_is_told_what_it_was(ready: Caller, row: object, got: str) -> None:
    batch = {"campaign_id": "c", "recipients": [row]}
    (told,) = ready("POST", "/v1/decisions/batch", batch).get_json()["decisions"]
    assert told["errors"] == {"recipients.0": [f"Must be an object. Got {got}."]}
    (told,) = ready("POST", "/v1/events", {"events": [row]}).get_json()["rejected"]
    assert told["detail"] == f"events.0: Must be an object. Got {got}."


@pytest.mark.parametrize(
    ("path", "scope", "needed"),
    [("/v1/keys", "read", "needs admin"), ("/v1/campaigns", "decide", "needs read (or admin)")],
)
def test_a_lacking_scope_is_named_once(app: Flask, path: str, scope: str, needed: str) -> None:
    refused = Caller(app, key(app, scope))("GET", path)
    assert refused.status_code == 403
    assert refused.get_json()["detail"].endswith(needed)
