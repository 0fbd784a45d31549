"""What every store keeps: a campaign's decisions and events as columns, the same facts as its records."""

from __future__ import annotations

from dataclasses import replace

from storage.columns import EventColumns
from storage.log import Decision, Reason
from storage.port import Store, Writer
from tests.storage.builders import WORKSPACE, at, make_decision, make_event, make_message

MICROS = 1_000_000


def micros(decision: Decision) -> int:
    moment = decision.decided_at
    return int(moment.timestamp()) * MICROS + moment.microsecond


def log(store: Store, *decisions: Decision) -> None:
    store.write(lambda writer: writer.add_decisions([(one, make_message(one)) for one in decisions]))


def events(store: Store, *types: str, properties_of: tuple[str, ...] = ()) -> list[tuple[object, ...]]:
    with store.read() as reader:
        chunks = list(
            reader.event_columns(WORKSPACE, "spring", at(0), at(10), types=types, properties_of=properties_of)
        )
    return sorted((row for chunk in chunks for row in rows_of(chunk)), key=repr)


def rows_of(chunk: EventColumns) -> list[tuple[object, ...]]:
    columns = (chunk.position, chunk.recipient, chunk.type, chunk.occurred, chunk.value, chunk.properties)
    return list(zip(*columns, strict=True))


def test_decisions_come_as_columns_with_the_facts_of_their_records(store: Store) -> None:
    message = make_decision(
        reasons=(Reason("cap", "cap", 3), Reason("quiet", "quiet_hours", 2, at(9), dry_run=True)), sent_at=at(2)
    )
    now_or_never = replace(message.snapshot, immediate=True, timezone="UTC")
    silent = make_decision(
        decision_id="dec_2",
        request_id="r2",
        recipient_id="u2",
        status="withheld",
        group="holdout",
        mode="shadow",
        action=None,
        variant_id=None,
        channel=None,
        send_at=None,
        snapshot=now_or_never,
        campaign_version=4,
    )
    log(store, message, silent)
    with store.read() as reader:
        (chunk,) = reader.decision_columns(WORKSPACE, "spring", at(0), at(10))
        stored = reader.decisions_by_id(WORKSPACE, ["dec_1", "dec_2"])
    order = sorted(range(2), key=lambda row: chunk.position[row])
    assert [chunk.position[row] for row in order] == [stored["dec_1"].position, stored["dec_2"].position]
    noon, day = micros(message), 24 * 3600 * MICROS
    assert [chunk.recipient[row] for row in order] == ["u1", "u2"]
    assert [chunk.version[row] for row in order] == [1, 4]
    assert [chunk.status[row] for row in order] == ["reserved", "withheld"]
    assert [chunk.group[row] for row in order] == ["treated", "holdout"]
    assert [chunk.mode[row] for row in order] == ["live", "shadow"]
    assert [chunk.decided[row] for row in order] == [noon, noon]
    assert [chunk.latest[row] for row in order] == [noon + day, noon], "an immediate one has its start alone"
    assert [chunk.variant[row] for row in order] == ["mens", None]
    assert [chunk.channel[row] for row in order] == ["email", None]
    assert [chunk.planned[row] for row in order] == [noon + day // 4, -1]
    assert [chunk.sent[row] for row in order] == [noon + day // 12, -1]
    assert [chunk.timezone[row] for row in order] == ["Europe/Berlin", "UTC"]
    assert [tuple(chunk.reasons[row]) for row in order] == [
        (("cap", "cap", 3, False), ("quiet", "quiet_hours", 2, True)),
        (),
    ]


def test_columns_keep_to_the_campaign_the_period_and_what_was_decided_here(store: Store) -> None:
    log(
        store,
        make_decision(),
        make_decision(decision_id="other", request_id="r2", campaign_id="autumn"),
        make_decision(decision_id="late", request_id="r3", decided_at=at(10)),
        make_decision(decision_id="early", request_id="r4", decided_at=at(-0.001)),
        make_decision(decision_id="old", request_id="r5", imported=True),
        make_decision(decision_id="foreign", request_id="r6", workspace_id="w2"),
    )
    with store.read() as reader:
        chunks = list(reader.decision_columns(WORKSPACE, "spring", at(0), at(10)))
        mine = reader.decision(WORKSPACE, "dec_1")
        assert list(reader.decision_columns(WORKSPACE, "none", at(0), at(10))) == []
    assert mine is not None
    assert [list(chunk.position) for chunk in chunks] == [[mine.position]]


def test_events_come_with_the_decision_or_the_recipient_that_they_name(store: Store) -> None:
    log(store, make_decision(), make_decision(decision_id="other", request_id="r2", campaign_id="autumn"))
    free = make_event(type="converted", decision_id=None, recipient_id="u1", value=5.0, properties={"revenue": 7})
    told = [
        make_event(event_id="open", properties={"revenue": 1}),
        make_event(event_id="scan", automated=True),
        make_event(event_id="elsewhere", decision_id="other"),
        make_event(event_id="unasked", type="bounced"),
        replace(free, event_id="bought"),
        replace(free, event_id="here", campaign_id="spring"),
        replace(free, event_id="there", campaign_id="autumn"),
        replace(free, event_id="before", occurred_at=at(-1)),
        replace(free, event_id="stranger", recipient_id="u9"),
        replace(free, event_id="unmatched", message_id="m", provider="p", matched=False),
    ]
    store.write(lambda writer: writer.add_events(told))
    with store.read() as reader:
        mine = reader.decision(WORKSPACE, "dec_1")
    assert mine is not None
    seven = micros(make_decision()) + 7 * 3600 * MICROS
    opened: tuple[object, ...] = (mine.position, None, "opened", seven, None, {})
    bought: tuple[object, ...] = (None, "u1", "converted", seven, 5.0, {"revenue": 7})
    assert events(store, "opened") == [opened]
    assert events(store, "opened", "converted", properties_of=("converted",)) == sorted(
        [opened, bought, bought], key=repr
    )
    assert events(store) == []


def test_events_come_the_same_among_few_and_among_many(store: Store) -> None:
    log(store, make_decision())
    store.write(lambda writer: writer.add_event(make_event(event_id="open")))
    among_few = events(store, "opened")
    others = [make_event(event_id=f"e{i}", decision_id=f"unknown{i}", matched=False) for i in range(40)]
    store.write(lambda writer: writer.add_events(others))
    assert len(among_few) == 1
    assert events(store, "opened") == among_few


def test_a_long_log_comes_whole(store: Store) -> None:
    count = 10_003

    def work(writer: Writer) -> None:
        rows = [make_decision(decision_id=f"d{i}", request_id=f"r{i}", recipient_id=f"u{i}") for i in range(count)]
        writer.add_decisions([(one, None) for one in rows])
        writer.add_events([make_event(event_id=f"e{i}", decision_id=f"d{i}") for i in range(count)])

    store.write(work)
    assert len({position for position, *_ in events(store, "opened")}) == count
    with store.read() as reader:
        sizes = [len(chunk.position) for chunk in reader.decision_columns(WORKSPACE, "spring", at(0), at(1))]
    assert sum(sizes) == count
    assert len(sizes) > 1
