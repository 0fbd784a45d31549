"""Labels of stored events: judged as more arrives, the same in every order, put right by ``sendtide relabel``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.cli import main
from optimizer.config import Settings
from optimizer.service import settle, setup
from optimizer.service.ingest import ingest
from optimizer.service.relabel import Relabelled, relabel
from optimizer.service.requests import DecisionRequest, VendorEvent
from optimizer.service.webhooks import machines
from optimizer.service.webhooks.delivery import Signs
from optimizer.service.wiring import Services, open_services
from simulations.audit.requires import Reply
from simulations.drills.webhooks.senders import Happened, Standard
from storage.log import Decision
from storage.records import Campaign, Channel, Variant
from storage.sql.event_tables import EventReader
from storage.sql.webhook_tables import WebhookReader
from tests.web.conftest import NOW, Caller
from tests.web.webhooks.conftest import Hook, events_of

URL = "https://shop.example/"
NUMBERS = itertools.count()


def happened(number: int, type: str, seconds: float, decision: dict[str, Any], **more: Any) -> Happened:
    return Happened(number, type, NOW + timedelta(seconds=seconds), "m-1", decision["decision_id"], more)


def told(services: Services, decision: dict[str, Any]) -> dict[str, tuple[bool, str]]:
    found = events_of(services, decision["decision_id"])
    return {e.event_id.removeprefix("sendgrid:"): (e.automated, e.reason.partition(":")[0]) for e in found}


def test_a_third_link_turns_the_first_two_into_a_machines(
    hooks: dict[Any, Hook], services: Services, decision: dict[str, Any]
) -> None:
    hook = hooks["sendgrid"]
    hook.clock.forward(hours=1)
    for n in range(2):
        hook.say(happened(n, "clicked", 100 + n, decision, url=f"{URL}{n}"))
    assert told(services, decision) == {"sg-event-0": (False, ""), "sg-event-1": (False, "")}
    hook.say(happened(2, "clicked", 101, decision, url=f"{URL}2"))
    assert set(told(services, decision).values()) == {(True, "burst")}
    (first, *_) = events_of(services, decision["decision_id"])
    assert (first.confidence, len(first.flipped_after)) == (0.9, 1)


def test_the_arrival_and_the_confirm_are_evidence_too_whenever_they_come(
    ready: Caller, hooks: dict[Any, Hook], services: Services, decision: dict[str, Any]
) -> None:
    hook = hooks["sendgrid"]
    hook.clock.forward(minutes=10)
    hook.say(happened(1, "clicked", 21, decision))
    sent = {"sent_at": (NOW + timedelta(seconds=20)).isoformat()}
    assert ready("POST", f"/v1/decisions/{decision['decision_id']}/confirm", sent).status_code == 200
    assert told(services, decision)["sg-event-1"] == (True, "too_soon")
    hook.say(happened(2, "delivered", 19, decision))
    assert told(services, decision)["sg-event-1"] == (False, "")


@pytest.mark.parametrize(
    "reported",
    [
        (("opened", 0.0), ("delivered", 3.0)),
        (("delivered", 0.0), ("opened", 1.0)),
        (("delivered", 0.0), ("opened", 60.0)),
    ],
)
def test_a_read_receipt_is_a_persons_whenever_its_callback_comes(
    hooks: dict[Any, Hook], services: Services, decision: dict[str, Any], reported: tuple[tuple[str, float], ...]
) -> None:
    hook, start = hooks["twilio"], hooks["twilio"].clock.now
    for number, (type, seconds) in enumerate(reported):
        hook.clock.now = start + timedelta(seconds=seconds)
        assert hook.say(happened(number, type, 0.0, decision))[0].status_code == 204
    found = {e.type: (e.automated, e.reason) for e in events_of(services, decision["decision_id"])}
    assert found["opened"] == (False, "")
    assert relabel(services, "default").events == 0


@pytest.mark.parametrize(("stamp", "machine"), [(None, False), (NOW.isoformat(), True)])
def test_what_comes_without_a_time_is_not_judged_by_the_time_of_its_report(
    hooks: dict[Any, Hook], services: Services, decision: dict[str, Any], stamp: str | None, machine: bool
) -> None:
    hook = hooks["standard"]
    assert isinstance(hook.sender, Standard)
    for number, type in enumerate(("opened", "delivered")):
        record = hook.sender.record(happened(number, type, 0.0, decision))
        record["timestamp"] = stamp if type == "opened" else NOW.isoformat()
        assert hook.post(hook.sender.request(record, hook.clock.now)).get_json()["accepted"] == 1
    found = {e.type: e.automated for e in events_of(services, decision["decision_id"])}
    assert found["opened"] is machine


def test_what_a_caller_says_of_its_own_events_stands(
    ready: Caller, hooks: dict[Any, Hook], services: Services, decision: dict[str, Any]
) -> None:
    at = (NOW + timedelta(seconds=1)).isoformat()
    mine = {"event_id": "mine", "decision_id": decision["decision_id"], "type": "clicked", "occurred_at": at}
    ready("POST", "/v1/events", {"events": [mine, {**mine, "event_id": "machine", "automated": True}]})
    hooks["sendgrid"].clock.forward(minutes=1)
    hooks["sendgrid"].say(happened(1, "delivered", 0, decision))
    assert told(services, decision)["mine"] == (False, "")
    assert told(services, decision)["machine"] == (True, "")


def test_only_a_vendors_clock_says_what_came_before_the_arrival(
    ready: Caller, hooks: dict[Any, Hook], services: Services, decision: dict[str, Any]
) -> None:
    hooks["sendgrid"].clock.forward(minutes=30)
    hooks["sendgrid"].say(happened(1, "opened", 300, decision))
    late = (NOW + timedelta(minutes=20)).isoformat()
    mine = {"event_id": "mine", "decision_id": decision["decision_id"], "type": "delivered", "occurred_at": late}
    assert ready("POST", "/v1/events", {"events": [mine]}).status_code == 202
    assert told(services, decision)["sg-event-1"] == (False, "")
    hooks["sendgrid"].say(happened(2, "delivered", 301, decision))
    assert told(services, decision)["sg-event-1"] == (True, "before_delivery")


def test_a_better_rule_relabels_what_is_stored_and_only_once(
    hooks: dict[Any, Hook],
    services: Services,
    decision: dict[str, Any],
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hook = hooks["sendgrid"]
    hook.clock.forward(hours=1)
    hook.say(happened(1, "clicked", 100, decision, useragent="NewFilter/1.0"))
    hook.say(happened(2, "opened", 50, decision, useragent="Mozilla/5.0"))
    assert told(services, decision)["sg-event-1"] == (False, "")
    assert relabel(services, "default") == Relabelled(decisions=1)
    with monkeypatch.context() as better:
        better.setattr(machines, "_SCANNERS", re.compile("newfilter", re.IGNORECASE))
        better.setattr(machines, "_APPLE", "nothing")
        assert relabel(services, "default") == Relabelled(1, 2, 1, 1)
        assert told(services, decision) == {"sg-event-1": (True, "scanner"), "sg-event-2": (False, "")}
        assert relabel(services, "default") == Relabelled(decisions=1)
    told_by = CliRunner().invoke(main, ["relabel", "--json", "--database", database])
    assert told_by.exit_code == 0, told_by.output
    assert orjson.loads(told_by.stdout) == asdict(Relabelled(1, 2, 1, 1))
    assert relabel(services, "nobody") == Relabelled()


def test_what_a_machines_open_had_cleared_counts_again(
    ready: Caller, hooks: dict[Any, Hook], services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three messages: a machine opens the first before the second goes out; a person opens the third, and then the
    machine's open of it turns out to have been the only one."""
    hook = hooks["sendgrid"]
    sent = []
    for n in range(3):
        asked = {"campaign_id": "c", "recipient_id": "u9", "immediate": True}
        sent.append(ready("POST", "/v1/decisions", asked).get_json())
        path = f"/v1/decisions/{sent[-1]['decision_id']}/confirm"
        told = {"sent_at": hook.clock().isoformat(), "provider": "sendgrid", "message_id": f"m{n}"}
        assert ready("POST", path, told).status_code == 200
        hook.clock.forward(hours=1)
        if n != 1:
            hook.say(
                Happened(n, "opened", hook.clock(), f"m{n}", sent[-1]["decision_id"], {"useragent": "NewFilter/1.0"})
            )

    def unanswered() -> int:
        with services.store.read() as reader:
            return reader.unanswered("default", ["u9"]).get("u9", 0)

    assert unanswered() == 0
    with monkeypatch.context() as better:
        better.setattr(machines, "_SCANNERS", re.compile("newfilter", re.IGNORECASE))
        assert relabel(services, "default").now_automated == 2
        assert unanswered() == 3
    assert relabel(services, "default").now_people == 2
    assert unanswered() == 0
    hook.say(Happened(7, "clicked", hook.clock(), "m1", sent[1]["decision_id"], {"useragent": "Mozilla/5.0 (X11)"}))
    with monkeypatch.context() as better:
        better.setattr(machines, "_SCANNERS", re.compile("newfilter", re.IGNORECASE))
        relabel(services, "default")
        assert unanswered() == 0  # a person's click came after all three


def test_what_a_machine_opens_is_no_answer_from_the_start(
    ready: Caller, hooks: dict[Any, Hook], services: Services, decision: dict[str, Any]
) -> None:
    path = f"/v1/decisions/{decision['decision_id']}/confirm"
    assert ready("POST", path, {"sent_at": NOW.isoformat()}).status_code == 200
    hooks["sendgrid"].clock.forward(hours=1)
    hooks["sendgrid"].say(happened(1, "clicked", 600, decision, useragent="curl/8"))
    with services.store.read() as reader:
        assert reader.unanswered("default", ["u1"]) == {"u1": 1}
    hooks["sendgrid"].say(happened(2, "clicked", 900, decision))
    with services.store.read() as reader:
        assert reader.unanswered("default", ["u1"]) == {}


def test_messages_of_one_delivery_are_all_judged_before_a_recipients_unanswered_ones_are_counted(
    ready: Caller, hooks: dict[Any, Hook], services: Services
) -> None:
    hook = hooks["sendgrid"]
    asked = {"campaign_id": "c", "recipient_id": "u9", "immediate": True}
    sent = [ready("POST", "/v1/decisions", asked).get_json() for _ in range(2)]
    for one in sent:
        ready("POST", f"/v1/decisions/{one['decision_id']}/confirm", {"sent_at": NOW.isoformat()})
    hook.clock.forward(hours=1)
    hook.say(happened(0, "opened", 60, sent[0]))
    together = [happened(1, "delivered", 61, sent[0])]
    together += [happened(2 + n, "clicked", 300, sent[1], url=f"{URL}{n}") for n in range(3)]
    deliver(hook, together)
    with services.store.read() as reader:
        assert reader.unanswered("default", ["u9"]) == {"u9": 2}


def test_a_delivery_of_many_clicks_of_a_message_reads_its_events_as_often_as_one_of_few(
    hooks: dict[Any, Hook], services: Services, decision: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = hooks["sendgrid"]
    hook.clock.forward(hours=1)
    rows = rows_read(monkeypatch)
    clicks = [happened(n, "clicked", 10 * n, decision) for n in range(100)]
    deliver(hook, clicks[:2])
    few = len(rows)
    deliver(hook, clicks[2:])
    assert len(rows) == 2 * few
    assert rows[few:] == [100] * few


def test_once_a_thousand_clicks_of_a_message_are_known_no_further_one_looks_at_them(
    hooks: dict[Any, Hook], services: Services, decision: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = hooks["sendgrid"]
    hook.clock.forward(hours=4)
    clicks = [happened(n, "clicked", 10 * n, decision) for n in range(machines.MOST + 2)]
    deliver(hook, clicks[: machines.MOST - 1])
    rows = rows_read(monkeypatch)
    deliver(hook, clicks[machines.MOST - 1 : -1])
    assert max(rows) == machines.MOST + 1
    rows.clear()
    deliver(hook, clicks[-1:])
    assert rows == []
    labels = told(services, decision)
    assert [labels[f"sg-event-{n}"] for n in (machines.MOST - 1, machines.MOST, machines.MOST + 1)] == [
        (False, ""),
        (True, "too_many"),
        (True, "too_many"),
    ]
    assert relabel(services, "default").events == 0


def deliver(hook: Hook, together: list[Happened]) -> None:
    request = hook.sender.request([hook.sender.record(one) for one in together], hook.clock.now, hook.url)
    assert hook.post(request).get_json()["accepted"] == len(together)


def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events each reading of a message's events finds from now on."""
    found: list[int] = []
    for kind, name in ((EventReader, "events"), (WebhookReader, "vendor_words")):
        monkeypatch.setattr(kind, name, _counted(getattr(kind, name), found))
    return found


def _counted(read: Any, found: list[int]) -> Any:
    def reading(*asked: Any) -> Any:
        rows = read(*asked)
        found.append(len(rows))
        return rows

    return reading


def test_the_audit_knows_what_was_believed_at_each_position() -> None:
    always, turned = Reply("clicked", NOW, 0, 0, True), Reply("clicked", NOW, 0, 0, True, True, (5,))
    back = replace(turned, automated=False, flips=(5, 8))
    assert [always.by_person(p) for p in (5, 6)] == [True, True]
    assert [turned.by_person(p) for p in (5, 6)] == [True, False]
    assert [back.by_person(p) for p in (5, 6, 8, 9)] == [True, False, False, True]


# Whatever the order


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("labels")
    opened = open_services(Settings(database=f"sqlite:///{folder}/l.db"), lambda: NOW, seed="labels", watch=False)
    setup.ensure_workspace(opened, "w")
    campaign = Campaign("w", "c", (Variant("a"),), (Channel("email"),), created_at=NOW, updated_at=NOW)
    setup.put_campaign(opened, replace(campaign, allow_no_send=False))
    yield opened
    opened.close()


def vendor_event(n: int, type: str, at: datetime, decision_id: str, signs: Signs) -> VendorEvent:
    words = {"useragent": signs.user_agent, "ip": signs.address, "url": signs.url}
    return VendorEvent(
        type,
        at,
        f"{decision_id}-{n}",
        decision_id,
        provider="sendgrid",
        message_id=decision_id,
        vendor="sendgrid",
        words=words,
    )


STEP = st.tuples(
    st.sampled_from(["opened", "clicked", "clicked", "delivered"]),
    st.integers(0, 8),
    st.sampled_from(["", "curl/8"]),
    st.sampled_from(["1", "2", "3"]),
)


@given(steps=st.lists(STEP, min_size=2, max_size=6), chance=st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_stored_labels_and_rhythms_are_those_of_the_set_in_every_order(
    store: Services, steps: list[tuple[str, int, str, str]], chance: Any
) -> None:
    ends = []
    for _ in range(2):
        recipient = f"u{next(NUMBERS)}"
        asked = DecisionRequest("c", recipient, request_id=recipient, immediate=True)
        decision = store.decider.decide("w", asked)[0]
        if decision.status != "reserved":
            return
        todo: list[Any] = [_report(store, decision, n, step) for n, step in enumerate(steps)]
        todo.append(
            lambda d=decision: settle.confirm(
                store, "w", d.decision_id, NOW - timedelta(seconds=2), "sendgrid", d.decision_id
            )
        )
        chance.shuffle(todo)
        for one in todo:
            one()
        ends.append(_state(store, decision))
    assert ends[0] == ends[1]


def _report(store: Services, decision: Decision, n: int, step: tuple[str, int, str, str]) -> Any:
    type, seconds, agent, link = step
    event = vendor_event(
        n, type, NOW + timedelta(seconds=seconds / 2 - 2), decision.decision_id, Signs(user_agent=agent, url=link)
    )
    return lambda: ingest(store, "w", [event])


def _state(store: Services, decision: Decision) -> Any:
    with store.store.read() as reader:
        now = reader.decision("w", decision.decision_id)
        assert now is not None
        events = [
            (e.event_id.rpartition("-")[2], e.type, e.automated, e.confidence, e.reason)
            for e in reader.events("w", now)
        ]
        rhythm = reader.rhythms("w", [decision.recipient_id]).get(decision.recipient_id, ())
        return sorted(events), [(one.kind, one.hour, round(one.weight, 3)) for one in rhythm if one.weight]
