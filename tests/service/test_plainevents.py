"""Events that are stored together leave what they leave when each is stored by itself."""

from __future__ import annotations

import ast
import json
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from optimizer.config import Settings
from optimizer.service import ingest as ingesting
from optimizer.service import settle, setup
from optimizer.service.ingest import ingest
from optimizer.service.plainevents import Plain, split
from optimizer.service.requests import EventInput, IngestReport, VendorEvent
from optimizer.service.wiring import Services, open_services
from storage.errors import OneByOne
from storage.records import EventMapping, Recipient
from storage.webhooks import WebhookSource
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign
from tests.service.reserved import after, reserve
from tests.storage.conftest import dump

pytestmark = pytest.mark.usefixtures("steps_of_one")

NAMES: list[dict[str, Any]] = [
    *({"decision_id": name} for name in ("sent", "sent", "other", "reserved", "late", "gone", "unknown")),
    {"provider": "ses", "message_id": "message of sent"},
    {"provider": "ses", "message_id": "nobody's"},
    {"recipient_id": "u1"},
    {"recipient_id": "u2", "campaign_id": "spring"},
    {"recipient_id": "u3", "campaign_id": "nope"},
    {"request_id": "request"},
]
TYPES = [
    "delivered",
    "opened",
    "clicked",
    "converted",
    "Paid",
    "Page Viewed",
    "failed",
    "bounced",
    "unsubscribed",
    "Left",
    "Lost",
]
MAPPED = {"Paid": "converted", "Left": "unsubscribed", "Lost": "failed"}
EVENT = st.fixed_dictionaries(
    {
        "event_id": st.sampled_from([f"e{i}" for i in range(30)]),
        "type": st.sampled_from([*TYPES[:6] * 4, *TYPES]),
        "named": st.sampled_from(NAMES),
        "minutes": st.integers(0, 90),
        "automated": st.booleans(),
        "value": st.sampled_from([None, 2.5]),
        "vendor": st.sampled_from(["", "", "", "", "sendgrid"]),
    }
)


def event(one: dict[str, Any]) -> EventInput:
    facts: dict[str, Any] = {name: one[name] for name in ("event_id", "type", "automated", "value")} | one["named"]
    facts["occurred_at"] = START + timedelta(hours=6, minutes=one["minutes"])
    facts["properties"] = {"page": one["minutes"]} if one["minutes"] % 2 else {}
    if one["vendor"] and not {"recipient_id", "request_id"} & set(one["named"]):
        return VendorEvent(**facts, vendor=one["vendor"], words={"sg_machine_open": one["automated"]})
    return EventInput(**facts)


def prepared(services: Services, *, vendors: bool) -> None:
    setup.ensure_workspace(services, WORKSPACE)
    setup.put_campaign(services, campaign(event_mapping={kind: EventMapping(to) for kind, to in MAPPED.items()}))
    people = [Recipient(WORKSPACE, one, timezone=zone) for one, zone in (("u1", "Asia/Tokyo"), ("u2", None))]
    setup.put_recipients(services, WORKSPACE, people)
    for name, person in (("sent", "u1"), ("other", "u2"), ("reserved", "u1"), ("late", "u2")):
        reserve(services, name, 30.0 if name == "reserved" else 6.0, recipient_id=person)
    reserve(services, "second", 6.0, recipient_id="u1")
    reserve(
        services, "gone", 5.0, recipient_id="u2", status="expired", close_reason="unconfirmed", closed_at=after(hours=7)
    )
    for name in ("sent", "other", "second"):
        settle.confirm(services, WORKSPACE, name, after(hours=6), "ses", f"message of {name}")
    if vendors:
        source = WebhookSource(WORKSPACE, "hook", "sendgrid", version=1)
        services.store.write(lambda writer: writer.put_webhook_source(source))


def outcome(envelopes: Sequence[Sequence[EventInput]], *, together: bool, vendors: bool) -> Any:
    """What is reported, and what is stored, whatever the order of rows."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        path = Path(folder) / "t.db"
        clock = FakeClock()
        services = open_services(Settings(database=f"sqlite:///{path}"), clock, seed=7, watch=False)
        try:
            clock.forward(hours=7)
            prepared(services, vendors=vendors)
            clock.forward(hours=4)
            if not together:
                patched.setattr(ingesting, "split", lambda _w, _i, found, _t, _m: (Plain(), found))
            reports = [ingest(services, WORKSPACE, one) for one in envelopes]
        finally:
            services.close()
        tables = dump(path, WORKSPACE)
        return reports, {name: sorted(map(repr, tables[name])) for name in tables if name not in ("meta", "api_keys")}


@given(envelopes=st.lists(st.lists(EVENT, max_size=14), min_size=1, max_size=3), vendors=st.booleans())
@settings(max_examples=30, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
def test_together_or_one_by_one_makes_no_difference(envelopes: list[list[dict[str, Any]]], vendors: bool) -> None:
    events = [[event(one if vendors else {**one, "vendor": ""}) for one in envelope] for envelope in envelopes]
    by_both = [outcome(events, together=together, vendors=vendors) for together in (True, False)]
    assert by_both[0] == by_both[1]


REPORTED = st.fixed_dictionaries(
    {
        "event_id": st.sampled_from([f"v{i}" for i in range(30)]),
        "type": st.sampled_from(["clicked"] * 6 + ["opened", "delivered", "delivered", *TYPES]),
        "named": st.sampled_from([{"decision_id": "sent"}, {"decision_id": "second"}, *NAMES[:8]]),
        "seconds": st.integers(-6, 12),
        "agent": st.sampled_from(["", "", "curl/8"]),
        "link": st.sampled_from("123"),
    }
)


def reported(one: dict[str, Any]) -> EventInput:
    return VendorEvent(
        one["type"],
        START + timedelta(hours=6, seconds=one["seconds"] / 2),
        one["event_id"],
        vendor="sendgrid",
        words={"useragent": one["agent"], "ip": "203.0.113.7", "url": one["link"]},
        **one["named"],
    )


def settled(tables: dict[str, list[str]]) -> Any:
    """What is stored, but for how often a label turned round within one position, and the last digits of sums."""
    rows = {name: [ast.literal_eval(row) for row in tables[name]] for name in ("events", "rhythms")}
    events = [(*row[:-2], len(json.loads(row[-2] or b"[]")) % 2, row[-1]) for row in rows["events"]]
    rhythms = [(*row[:-1], f"{row[-1]:.9e}") for row in rows["rhythms"] if row[-1]]
    return {**tables, "events": events, "rhythms": rhythms, "rewrites": None}


@given(envelopes=st.lists(st.lists(REPORTED | EVENT, max_size=16), min_size=1, max_size=2))
@settings(max_examples=30, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
def test_what_vendors_report_at_once_leaves_what_it_leaves_one_by_one(envelopes: list[list[dict[str, Any]]]) -> None:
    events = [[reported(one) if "agent" in one else event(one) for one in envelope] for envelope in envelopes]
    at_once, tables = outcome(events, together=True, vendors=True)
    singly, same = outcome([[one] for envelope in events for one in envelope], together=True, vendors=True)
    for name in ("accepted", "duplicates", "unmatched"):
        assert sum(getattr(one, name) for one in at_once) == sum(getattr(one, name) for one in singly)
    assert settled(tables) == settled(same)


def test_ordinary_events_are_stored_together(services: Services, clock: FakeClock) -> None:
    clock.forward(hours=7)
    prepared(services, vendors=True)
    kinds = ("delivered", "opened", "clicked", "Paid", "Page Viewed")
    made = [EventInput(type=kind, occurred_at=START, event_id=kind, decision_id="sent") for kind in kinds]

    def work(writer: Any) -> tuple[int, int]:
        found, _ = ingesting._correlate_all(services, writer, WORKSPACE, made, clock())
        plain, others = split(writer, WORKSPACE, found, {}, {})
        return len(plain.rows), len(others)

    assert services.store.write(work) == (5, 0)


def test_an_envelope_whose_event_another_write_stores_meanwhile_is_stored_one_by_one(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.forward(hours=7)
    prepared(services, vendors=False)

    def taken(*_: object) -> None:
        raise OneByOne("events")

    monkeypatch.setattr(Plain, "store", lambda self, *rest: taken(*rest) if self.rows else None)
    made = [EventInput(type="clicked", occurred_at=START, event_id="e", decision_id="sent")] * 2
    assert ingest(services, WORKSPACE, made) == IngestReport(1, 1, 0, ())
