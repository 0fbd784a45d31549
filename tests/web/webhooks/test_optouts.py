"""What vendors tell of people who had opted out before, and of those who come back."""

from __future__ import annotations

from typing import Any

import pytest

from optimizer.service.feedback import load
from optimizer.service.wiring import Services
from simulations.drills.webhooks.senders import Happened
from tests.web.conftest import CAMPAIGN, Caller, StillClock
from tests.web.webhooks.conftest import Hook

OF_THE_LIST = ("email", "marketing")
OF_THE_ADDRESS = ("email", "*")
#: By vendor: the type and the facts of a failure to send to somebody who had opted out, and what that refuses.
OPTED_OUT: dict[str, tuple[str, dict[str, Any], tuple[str, str]]] = {
    "sendgrid": ("dropped", {"reason": "Unsubscribed Address"}, OF_THE_LIST),
    "mailgun": ("failed", {"severity": "permanent", "reason": "suppress-unsubscribe"}, OF_THE_LIST),
    **{f"twilio {code}": ("failed", {"ErrorCode": code}, OF_THE_ADDRESS) for code in ("21610", "63033", "63014")},
    "twilio undelivered": ("undelivered", {"ErrorCode": "21610"}, OF_THE_ADDRESS),
}


@pytest.fixture(autouse=True)
def _harmful(ready: Caller, decision: dict[str, Any], clock: StillClock) -> None:
    """An unsubscription costs much; the message was to go out five minutes ago."""
    assert decision["status"] == "reserved"
    harm = {**CAMPAIGN, "objective": {"clicked": 1, "unsubscribed": -20, "complained": -20}}
    assert ready("PUT", "/v1/campaigns/c", harm).status_code == 200
    clock.forward(minutes=5)


def refused(ready: Caller) -> set[tuple[str, str]]:
    record = ready("GET", "/v1/recipients/u1").get_json()
    return {(one["channel"], one["category"]) for one in record.get("suppressed", [])}


def say(hook: Hook, type: str, number: int, decision: dict[str, Any], **more: Any) -> None:
    hook.clock.forward(minutes=1)
    happened = Happened(number, type, hook.clock.now, f"m-{number}", decision["decision_id"], more)
    assert hook.say(happened)[0].status_code in (200, 204)


def come_back(ready: Caller, clock: StillClock, decision: dict[str, Any], **more: str) -> None:
    clock.forward(minutes=1)
    event = {"type": "resubscribed", "decision_id": decision["decision_id"], "occurred_at": clock.now.isoformat()}
    assert ready("POST", "/v1/events", {"events": [event | more]}).get_json()["accepted"] == 1


@pytest.mark.parametrize("case", OPTED_OUT)
def test_a_message_to_somebody_who_had_opted_out_did_no_harm_and_gives_its_place_back(
    ready: Caller, hooks: dict[Any, Hook], services: Services, decision: dict[str, Any], case: str
) -> None:
    type, more, what = OPTED_OUT[case]
    say(hooks[case.split()[0]], type, 1, decision, **more)
    assert refused(ready) == {what}
    assert ready("GET", f"/v1/decisions/{decision['decision_id']}").get_json()["status"] == "released"
    with services.store.read() as reader:
        (row,) = load(reader, "default", services.clock()).rows
    assert (row.failed, row.trainable, row.reward) == (True, False, 0.0)


@pytest.mark.parametrize("case", OPTED_OUT)
def test_who_comes_back_is_written_to_though_a_message_failed_in_between(
    ready: Caller, hooks: dict[Any, Hook], decision: dict[str, Any], case: str
) -> None:
    hook = hooks[case.split()[0]]
    type, more, what = OPTED_OUT[case]
    say(hook, type, 1, decision, **more)
    come_back(ready, hook.clock, decision, **({"refuses": "channel"} if what == OF_THE_ADDRESS else {}))
    assert refused(ready) == set()
    say(hook, type, 2, decision, **more)
    assert refused(ready) == {what}, "the vendor's list says so still"


def test_sendgrids_own_word_of_coming_back_is_enough(
    ready: Caller, hooks: dict[Any, Hook], decision: dict[str, Any]
) -> None:
    hook = hooks["sendgrid"]
    say(hook, "group_unsubscribe", 1, decision)
    say(hook, "dropped", 2, decision, reason="Unsubscribed Address")
    say(hook, "group_resubscribe", 3, decision)
    assert refused(ready) == set()


def test_a_standard_webhook_of_coming_back_may_name_its_channel(
    ready: Caller, hooks: dict[Any, Hook], decision: dict[str, Any]
) -> None:
    for number, (type, left) in enumerate((("unsubscribed", {OF_THE_LIST}), ("resubscribed", set()))):
        say(hooks["standard"], type, number, decision)  # as ``email.unsubscribed``
        assert refused(ready) == left


@pytest.mark.parametrize(
    ("vendor", "type", "more"),
    [
        ("sendgrid", "dropped", {"reason": "Bounced Address"}),
        ("sendgrid", "dropped", {"reason": "Spam Reporting Address"}),
        ("mailgun", "failed", {"severity": "permanent", "reason": "suppress-complaint"}),
        ("twilio", "failed", {"ErrorCode": "30005"}),
    ],
)
def test_who_comes_back_to_a_list_keeps_complaint_and_dead_address(
    ready: Caller, hooks: dict[Any, Hook], decision: dict[str, Any], vendor: str, type: str, more: dict[str, Any]
) -> None:
    say(hooks[vendor], type, 1, decision, **more)
    come_back(ready, hooks[vendor].clock, decision, refuses="channel")
    assert refused(ready) == {OF_THE_ADDRESS}
