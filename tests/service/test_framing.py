"""What is seen of a recipient: attributes under the request's context, without what is hidden or not known."""

from __future__ import annotations

from optimizer.service.framing import seen_context
from storage.records import JsonObject, Recipient

STORED: JsonObject = {"plan": "pro", "age": 33, "left_at": None}


def seen(context: JsonObject, *hidden: str) -> JsonObject:
    return seen_context(Recipient("w", "u1", attributes=STORED), context, frozenset(hidden))


def test_the_request_wins_over_the_record() -> None:
    assert seen({"plan": "free", "cart": 80}) == {"plan": "free", "age": 33, "cart": 80}


def test_what_is_hidden_is_not_seen() -> None:
    assert seen({"cart": 80}, "age", "cart") == {"plan": "pro"}


def test_null_is_not_seen_and_in_a_request_hides_what_is_stored() -> None:
    assert seen({"plan": None, "cart": 0}) == {"age": 33, "cart": 0}
