"""Webhooks: verified by the libraries that receivers use, in order, at least once, by one scheduler at a time."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import standardwebhooks
import svix.webhooks
import time_machine

from optimizer.service.endpoints import new_secret
from optimizer.service.wiring import Services
from tests.service.conftest import START, WORKSPACE
from tests.service.receiving import Receiver, change, push, put, receiver, services, state

__all__ = ["receiver", "services"]  # fixtures


@pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.webhooks.Webhook])
def test_what_is_sent_is_verified_by_the_receivers_library(
    services: Services, receiver: Receiver, library: Any
) -> None:
    _, secret = put(services, receiver.url)
    change(services, "a")
    with time_machine.travel(START, tick=False):
        assert push(services) == 1
        ((headers, body),) = receiver.got
        library(secret).verify(body, headers)
        assert orjson.loads(body) == {
            "type": "decision.displaced",
            "timestamp": START.isoformat().replace("+00:00", "Z"),
            "data": {
                "position": 1,
                "kind": "displaced",
                "decision_id": "dec_a",
                "campaign_id": "c",
                "policy_id": None,
                "replaced_id": None,
                "detail": "a",
            },
        }
        with pytest.raises(Exception, match="signature"):
            library(secret).verify(body.replace(b"dec_a", b"dec_b"), headers)
        with pytest.raises(Exception, match="signature"):
            library(new_secret()).verify(body, headers)


def test_what_is_sent_of_policies_names_the_one_that_serves_and_the_one_replaced(
    services: Services, receiver: Receiver
) -> None:
    put(services, receiver.url)
    both = {"policy_id": "pol_cold", "replaced_id": "pol_1"}
    services.store.write(lambda writer: writer.add_change(WORKSPACE, "rolled_back", START, campaign_id="c", **both))
    assert push(services) == 1
    ((_, body),) = receiver.got
    assert orjson.loads(body)["type"] == "policy.rolled_back"
    assert orjson.loads(body)["data"].items() >= both.items()


def test_while_secrets_change_both_verify(services: Services, receiver: Receiver) -> None:
    _, old = put(services, receiver.url)
    new = new_secret()
    assert old is not None
    assert put(services, receiver.url, secrets=(new, old))[1] is None
    change(services, "a")
    with time_machine.travel(START, tick=False):
        push(services)
        ((headers, body),) = receiver.got
        assert len(headers["webhook-signature"].split(" ")) == 2
        for secret in (old, new):
            assert standardwebhooks.Webhook(secret).verify(body, headers)
    put(services, receiver.url, secrets=(new,))
    assert put(services, receiver.url)[1] is None
    change(services, "b")
    with time_machine.travel(START, tick=False):
        push(services)
        headers, body = receiver.got[1]
        assert standardwebhooks.Webhook(new).verify(body, headers)
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(old).verify(body, headers)


def test_an_endpoint_gets_what_changes_from_then_on_in_order_and_only_its_kinds(
    services: Services, receiver: Receiver
) -> None:
    change(services, "before")
    put(services, receiver.url, kinds=("displaced", "promoted"))
    change(services, "1", "2")
    change(services, "no", kind="expired")
    change(services, "no", workspace="other")
    change(services, "3", kind="promoted")
    change(services, "no", "no", kind="revoked")
    assert push(services) == 3
    assert receiver.details() == ["1", "2", "3"]
    assert [orjson.loads(body)["type"] for _, body in receiver.got][-1] == "policy.promoted"
    assert len(set(receiver.ids())) == 3
    assert (state(services).behind, state(services).delivery.delivered) == (0, 3)
    assert push(services) == 0
    assert len(receiver.got) == 3
