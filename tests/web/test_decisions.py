"""Decisions over HTTP: shape of the answers, batches, what becomes of a reservation."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import orjson
import pytest

from storage.errors import StoreUnavailable
from tests.web.conftest import CAMPAIGN, Caller, moved_afar

ASK: dict[str, Any] = {"campaign_id": "c", "recipient_id": "u"}
NDJSON = {"Content-Type": "application/x-ndjson"}


def test_a_decision_has_the_shape_of_the_contract(ready: Caller) -> None:
    asked = {**ASK, "request_id": "r", "metadata": {"order": "77"}, "recipient": {"timezone": "Europe/Berlin"}}
    reply = ready("POST", "/v1/decisions", asked)
    told = reply.get_json()
    assert reply.status_code == 201
    assert told["decision_id"].startswith("dec_")
    assert (told["request_id"], told["campaign_id"], told["recipient_id"]) == ("r", "c", "u")
    assert (told["status"], told["group"], told["metadata"]) == ("reserved", "treated", {"order": "77"})
    assert told["action"]["send_at"].endswith("Z")
    assert told["action"]["send_at_local"].endswith("+01:00")
    assert told["propensity"] * told["eligible_actions"] == pytest.approx(1)
    assert told["window"] == {"start": "2026-11-24T09:00:00Z", "end": "2026-11-25T09:00:00Z"}
    assert (told["timezone"], told["timezone_source"]) == ("Europe/Berlin", "recipient")


def test_a_decision_says_so_when_the_zone_is_unknown(ready: Caller) -> None:
    assert ready("POST", "/v1/decisions", ASK).get_json()["timezone_source"] == "default"
    ready("PATCH", "/v1/campaigns/c", {"timezone": "Asia/Tokyo"})
    told = ready("POST", "/v1/decisions", ASK).get_json()
    assert (told["timezone"], told["timezone_source"]) == ("Asia/Tokyo", "campaign")


def test_the_record_of_a_decision_holds_its_eligible_set(ready: Caller) -> None:
    made = ready("POST", "/v1/decisions", {**ASK, "context": {"cart": 3}}).get_json()
    record = ready("GET", f"/v1/decisions/{made['decision_id']}").get_json()
    assert {k: record[k] for k in made} == made
    mask = np.unpackbits(np.frombuffer(base64.b64decode(record["eligible"]), np.uint8))[: record["actions"]]
    assert mask.sum() == record["eligible_actions"]
    assert mask[record["action_index"]] == 1
    assert record["snapshot"]["context"] == {"cart": 3}
    assert (record["snapshot"]["variants"], record["snapshot"]["channels"]) == (["a", "b"], ["email"])


def test_the_record_of_somebody_who_already_got_a_message_tells_their_rhythm(ready: Caller) -> None:
    asked = {**ASK, "recipient": {"timezone": "Europe/Berlin"}}
    first = ready("POST", "/v1/decisions", asked).get_json()
    ready("POST", f"/v1/decisions/{first['decision_id']}/confirm")
    second = ready("POST", "/v1/decisions", asked).get_json()
    reply = ready("GET", f"/v1/decisions/{second['decision_id']}")
    assert reply.status_code == 200
    assert reply.get_json()["snapshot"]["effects"]["rhythm"]


def test_a_preview_reserves_and_logs_nothing(ready: Caller) -> None:
    reply = ready("POST", "/v1/decisions", {**ASK, "preview": True})
    assert reply.status_code == 200
    assert reply.get_json()["action"] is not None
    assert ready("GET", "/v1/decisions").get_json()["decisions"] == []


def test_holdout_and_paused_answer_no_action(ready: Caller) -> None:
    ready("PATCH", "/v1/campaigns/c", {"groups": {"holdout": 1}})
    told = ready("POST", "/v1/decisions", ASK).get_json()
    assert (told["status"], told["group"], told["action"], told["propensity"]) == ("no_send", "holdout", None, 1.0)
    ready("PUT", "/v1/workspace", {"mode": "paused"})
    told = ready("POST", "/v1/decisions", ASK).get_json()
    assert (told["status"], told["action"], told["mode"]) == ("withheld", None, "paused")


def test_claim_confirm_and_release_over_http(ready: Caller) -> None:
    first = ready("POST", "/v1/decisions", ASK).get_json()["decision_id"]
    at = f"/v1/decisions/{first}"
    assert ready("POST", f"{at}/claim").get_json()["status"] == "claimed"
    body = {"sent_at": "2026-11-24T09:00:00Z", "provider": "ses", "message_id": "m"}
    assert ready("POST", f"{at}/confirm", body).get_json()["status"] == "sent"
    assert ready("GET", at).get_json()["message_id"] == "m"
    refused = ready("POST", f"{at}/release", {})
    assert (refused.status_code, refused.get_json(force=True)["errors"]["status"][0][:4]) == (409, "sent")
    second = ready("POST", "/v1/decisions", ASK).get_json()["decision_id"]
    released = ready("POST", f"/v1/decisions/{second}/release", {"reason": "stock"})
    assert released.get_json()["status"] == "released"
    assert ready("POST", f"/v1/decisions/{second}/claim").status_code == 409
    assert ready("POST", f"/v1/decisions/{second}/confirm", {"message_id": "x"}).status_code == 422
    assert ready("POST", f"/v1/decisions/{second}/confirm").get_json()["status"] == "sent"


def test_a_batch_answers_every_row_in_order_and_a_bad_row_spoils_none(ready: Caller) -> None:
    rows: list[Any] = [
        {"recipient_id": "u0", "context": {"b": 2}, "request_id": "mine"},
        {"recipient_id": ""},
        7,
        None,
        {"recipient_id": "u4", "surprise": 1},
        {"recipient_id": "u5", "recipient": {"timezone": "Mars/Base"}},
        {"recipient_id": "u6", "recipient": {"timezone": "Asia/Tokyo"}, "metadata": {"row": 6}},
    ]
    batch = {"campaign_id": "c", "context": {"a": 1}, "variants": ["b"], "recipients": rows}
    reply = ready("POST", "/v1/decisions/batch", batch)
    assert reply.status_code == 200
    told = reply.get_json()["decisions"]
    assert ["decision_id" in one for one in told] == [True, False, False, False, False, False, True]
    assert [one["index"] for one in told if "index" in one] == [1, 2, 3, 4, 5]
    assert all(one["status"] == 422 and one["code"] and one["errors"] for one in told if "index" in one)
    assert list(told[5]["errors"]) == ["recipients.5.recipient.timezone"]
    assert {told[0]["action"]["variant_id"], told[6]["action"]["variant_id"]} == {"b"}
    assert (told[6]["timezone"], told[6]["metadata"]) == ("Asia/Tokyo", {"row": 6})
    record = ready("GET", f"/v1/decisions/{told[0]['decision_id']}").get_json()
    assert (record["snapshot"]["context"], record["request_id"]) == ({"a": 1, "b": 2}, "mine")


def test_rows_of_a_batch_see_the_reservations_before_them(ready: Caller) -> None:
    ready("PUT", "/v1/rules/cap", {"kind": "cap", "limit": 1, "window": {"rolling_hours": 168}})
    batch = {"campaign_id": "c", "recipients": [{"recipient_id": "u"}] * 2}
    told = ready("POST", "/v1/decisions/batch", batch).get_json()["decisions"]
    assert [one["status"] for one in told] == ["reserved", "withheld"]


def test_ndjson_answers_line_by_line(ready: Caller) -> None:
    lines = [
        b'{"campaign_id":"c","recipient_id":"u0"}',
        b"",
        b'{"campaign_id":',
        b'{"campaign_id":"nope","recipient_id":"u1"}',
        b"\xff\xfe",
        b"[]",
        b'{"campaign_id":"c","recipient_id":"u2"}\r',
        b"   ",
    ]
    reply = ready("POST", "/v1/decisions/batch", b"\n".join(lines), headers=NDJSON)
    assert (reply.status_code, reply.content_type) == (200, "application/x-ndjson")
    told = [orjson.loads(line) for line in reply.data.splitlines()]
    assert [one.get("recipient_id") for one in told] == ["u0", None, None, None, None, "u2"]
    assert [one["status"] for one in told[1:5]] == [400, 422, 400, 400]
    assert [one["index"] for one in told[1:5]] == [1, 2, 3, 4]


def test_a_row_and_its_batch_have_one_context_and_it_is_no_larger_than_any_other(ready: Caller) -> None:
    batch = {"campaign_id": "c", "context": {f"shared{i}": i for i in range(150)}}
    own = [{f"own{i}": [i] for i in range(25)}, {f"own{i}": [i] for i in range(26)}, {"shared1": "other"}]
    rows = [{"recipient_id": f"u{i}", "context": context} for i, context in enumerate(own)]
    whole, large, over = ready("POST", "/v1/decisions/batch", {**batch, "recipients": rows}).get_json()["decisions"]
    assert (whole["status"], over["status"]) == ("reserved", "reserved")
    assert large["errors"]["recipients.1.context"] == [
        "with the batch's it holds 202 values; allowed: 200, those in lists and objects counted"
    ]


def test_an_empty_batch_answers_nothing(ready: Caller) -> None:
    assert ready("POST", "/v1/decisions/batch", {"campaign_id": "c", "recipients": []}).get_json() == {"decisions": []}
    assert ready("POST", "/v1/decisions/batch", b"\n", headers=NDJSON).data == b""


def failing_write(caller: Caller, monkeypatch: pytest.MonkeyPatch, number: int, fault: StoreUnavailable) -> None:
    """Lets one write of the store fail, counted from now."""
    store = caller.app.extensions["sendtide"].get().store
    real, seen = store.write, iter(range(1, 1_000_000))

    def write(work: Any, **options: Any) -> Any:
        if next(seen) == number:
            raise fault
        return real(work, **options)

    monkeypatch.setattr(store, "write", write)


def recorded(caller: Caller) -> int:
    return len(caller("GET", "/v1/decisions?limit=500").get_json()["decisions"])


def test_a_store_that_fails_within_a_batch_makes_problems_of_the_rows_that_it_did_not_take(
    ready: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Any] = [{"recipient_id": f"u{i}"} for i in range(600)]
    rows[599] = 7
    failing_write(ready, monkeypatch, 2, StoreUnavailable("disk full", fate_unknown=True))
    reply = ready("POST", "/v1/decisions/batch", {"campaign_id": "c", "recipients": rows})
    told = reply.get_json()["decisions"]
    assert reply.status_code == 200
    assert [one["status"] for one in told] == ["reserved"] * 250 + [503] * 349 + [422]
    assert [one["index"] for one in told[250:]] == list(range(250, 600))
    assert {one["code"] for one in told[250:599]} == {"store_unavailable"}
    assert ["during a commit" in one["detail"] for one in told[250:599]] == [True] * 250 + [False] * 99
    assert recorded(ready) == 250


def test_a_store_that_fails_before_anything_of_a_batch_is_recorded_refuses_all_of_it(
    ready: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_write(ready, monkeypatch, 1, StoreUnavailable("disk full"))
    batch = {"campaign_id": "c", "recipients": [{"recipient_id": f"u{i}"} for i in range(300)]}
    assert ready("POST", "/v1/decisions/batch", batch).status_code == 503
    assert recorded(ready) == 0


def test_a_batch_that_is_recorded_is_answered_although_the_store_fails_then(
    ready: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    decider = ready.app.extensions["sendtide"].get().decider

    def fail(*_: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(decider, "_as_they_stand", fail)
    told = ready("POST", "/v1/decisions/batch", {"campaign_id": "c", "recipients": [{"recipient_id": "u"}]}).get_json()
    assert [one["status"] for one in told["decisions"]] == ["reserved"]


KEYED = {"Idempotency-Key": "monday"}
PAIR: list[Any] = [{"recipient_id": "u0", "context": {"n": 1}}, {"recipient_id": "u1"}]


def batch_of(rows: list[Any], **more: Any) -> dict[str, Any]:
    return {"campaign_id": "c", "recipients": rows, **more}


def test_a_batch_again_under_its_key_answers_the_same(ready: Caller) -> None:
    rows = [*PAIR, {"recipient_id": ""}, {"recipient_id": "u2", "request_id": "mine"}]
    first = ready("POST", "/v1/decisions/batch", batch_of(rows), headers=KEYED).get_json()
    again = ready("POST", "/v1/decisions/batch", batch_of(rows), headers=KEYED).get_json()
    assert again == first
    assert recorded(ready) == 3
    alone = {"campaign_id": "c", **PAIR[1], "request_id": first["decisions"][1]["request_id"]}
    reply = ready("POST", "/v1/decisions", alone)
    assert (reply.status_code, reply.get_json()) == (200, first["decisions"][1])


@pytest.mark.parametrize(
    "other",
    [
        batch_of([{"recipient_id": "u9"}, {"recipient_id": "u8"}]),
        batch_of(PAIR[::-1]),
        batch_of(PAIR[:1]),
        batch_of([*PAIR, {"recipient_id": "u2"}]),
        batch_of([*PAIR, {"recipient_id": ""}]),
        batch_of([7, PAIR[1]]),
        batch_of([{**PAIR[0], "context": {"n": 2}}, PAIR[1]]),
        batch_of([{**PAIR[0], "request_id": "mine"}, PAIR[1]]),
        batch_of(PAIR, immediate=True),
    ],
    ids=["others", "reordered", "fewer", "more", "more, bad", "one bad", "one changed", "one named", "all changed"],
)
def test_another_batch_under_the_same_key_is_409_and_nothing_of_it_is_reserved(
    ready: Caller, other: dict[str, Any]
) -> None:
    assert ready("POST", "/v1/decisions/batch", batch_of(PAIR), headers=KEYED).status_code == 200
    reply = ready("POST", "/v1/decisions/batch", other, headers=KEYED)
    assert (reply.status_code, reply.get_json()["code"]) == (409, "request_id_reused")
    assert recorded(ready) == 2
    assert ready("POST", "/v1/decisions/batch", other, headers={"Idempotency-Key": "tuesday"}).status_code == 200


def test_a_batch_that_was_cut_off_goes_on_under_its_key_and_no_other_does(
    ready: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"recipient_id": f"u{i}"} for i in range(300)]
    with monkeypatch.context() as broken:
        failing_write(ready, broken, 2, StoreUnavailable("disk full"))
        cut = ready("POST", "/v1/decisions/batch", batch_of(rows), headers=KEYED).get_json()["decisions"]
    assert ready("POST", "/v1/decisions/batch", batch_of(rows[:299]), headers=KEYED).status_code == 409
    assert recorded(ready) == 250
    whole = ready("POST", "/v1/decisions/batch", batch_of(rows), headers=KEYED).get_json()["decisions"]
    assert whole[:250] == cut[:250]
    assert recorded(ready) == 300


def test_a_batch_goes_on_under_its_key_when_one_of_its_people_was_erased(ready: Caller) -> None:
    first = ready("POST", "/v1/decisions/batch", batch_of(PAIR), headers=KEYED).get_json()["decisions"]
    ready("DELETE", "/v1/recipients/u0")
    again = ready("POST", "/v1/decisions/batch", batch_of(PAIR), headers=KEYED).get_json()["decisions"]
    assert (again[0]["code"], again[1]) == ("erased", first[1])
    other = batch_of([PAIR[0], {"recipient_id": "u9"}])
    assert ready("POST", "/v1/decisions/batch", other, headers=KEYED).status_code == 409


def test_a_batch_of_recipients_stores_the_good_and_lists_the_bad(admin: Caller) -> None:
    rows: list[Any] = [{"recipient_id": "a", "timezone": "UTC"}, {"timezone": "UTC"}, 7, {"recipient_id": "a"}]
    told = admin("POST", "/v1/recipients/batch", {"recipients": rows}).get_json()
    assert told["stored"] == 2
    assert [r["index"] for r in told["rejected"]] == [1, 2]
    assert admin("GET", "/v1/recipients/a").get_json()["timezone"] is None


def test_a_plain_channel_and_weight_are_short_for_objects(admin: Caller) -> None:
    told = admin(
        "PUT", "/v1/campaigns/c", {**CAMPAIGN, "objective": {"opened": 0.1, "sold": {"per_value": 2}}}
    ).get_json()
    assert told["channels"] == [{"id": "email", "cost": 0.0}]
    assert told["objective"] == {"opened": 0.1, "sold": {"fixed": 0.0, "per_value": 2.0, "max_value": None}}


def test_a_method_of_exploration_comes_back_with_its_number_if_it_has_one(admin: Caller) -> None:
    chosen = {"method": "softmax", "temperature": 0.5}
    told = admin("PUT", "/v1/campaigns/c", {**CAMPAIGN, "exploration": chosen}).get_json()
    assert told["exploration"] == {"rate": 0.02, **chosen}
    told = admin("PATCH", "/v1/campaigns/c", {"exploration": {"temperature": None, "method": "uniform"}}).get_json()
    assert told["exploration"] == {"rate": 0.02, "method": "uniform"}


def test_only_variants_and_channels_are_required_and_defaults_are_the_contracts(admin: Caller) -> None:
    least = {"variants": [{"id": "a"}], "channels": ["email"]}
    told = admin("PUT", "/v1/campaigns/c", least).get_json()
    assert told["groups"] == {"holdout": 0.05, "random": 0.05, "baseline": 0.0}
    assert (told["slot_minutes"], told["default_window_hours"], told["category"]) == (60, 24.0, "marketing")
    assert (told["objective"], told["mode"]) == ({"clicked": 1.0}, "live")
    assert told["exploration"] == {"rate": 0.02, "method": "posterior_bank"}
    told = admin("PUT", "/v1/campaigns/t", {**least, "category": "transactional"}).get_json()
    assert told["groups"] == {"holdout": 0.0, "random": 0.0, "baseline": 0.0}
    told = admin("PUT", "/v1/campaigns/t", {**least, "category": "transactional", "groups": {"random": 0.1}}).get_json()
    assert told["groups"] == {"holdout": 0.0, "random": 0.1, "baseline": 0.0}


def test_transactional_campaigns_send_always_unless_they_say_that_not_sending_is_a_choice(admin: Caller) -> None:
    """A receipt is owed: sixty questions would see about thirty ``no_send``, were it drawn beside the message."""
    receipts = {"category": "transactional", "variants": [{"id": "rcpt"}], "channels": ["email"]}
    assert admin("PUT", "/v1/campaigns/c", receipts).get_json()["allow_no_send"] is False
    rows = [{"recipient_id": f"u{number}"} for number in range(60)]
    told = admin("POST", "/v1/decisions/batch", {"campaign_id": "c", "immediate": True, "recipients": rows}).get_json()
    assert {one["status"] for one in told["decisions"]} == {"reserved"}

    assert admin("PUT", "/v1/campaigns/c", {**receipts, "allow_no_send": True}).get_json()["allow_no_send"] is True
    assert admin("PATCH", "/v1/campaigns/c", {"priority": 3}).get_json()["allow_no_send"] is True, (
        "it keeps what it has"
    )
    assert admin("PUT", "/v1/campaigns/m", {**receipts, "category": "news"}).get_json()["allow_no_send"] is True


def test_a_decision_in_a_zone_that_this_host_lacks_is_told_in_utc(ready: Caller) -> None:
    made = ready("POST", "/v1/decisions", ASK).get_json()["decision_id"]
    afar = moved_afar(ready, made)
    told = ready("GET", f"/v1/decisions/{afar}").get_json()
    assert told["timezone"] == "America/Nowhere"
    assert told["action"]["send_at_local"] == told["action"]["send_at"]
    listed = ready("GET", "/v1/decisions").get_json()["decisions"]
    assert {one["decision_id"] for one in listed} == {made, afar}
    assert ready("POST", f"/v1/decisions/{afar}/claim").get_json()["status"] == "claimed"
    why = ready("GET", f"/v1/decisions/{afar}/explanation")
    assert (why.status_code, "America/Nowhere" in why.get_json()["detail"]) == (404, True)
