"""History files: logged rows become decisions of ours, or are refused with the reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from optimizer.model.history import HISTORY, Past, read
from optimizer.service import setup
from optimizer.service.erasing import erase
from optimizer.service.feedback import load
from optimizer.service.imports import import_file
from optimizer.service.importtargets import BadRow
from optimizer.service.wiring import Services
from storage.records import Campaign, Channel, Recipient, Variant
from tests.service.asking import meanwhile
from tests.service.conftest import START, WORKSPACE, campaign
from tests.service.rows import decisions, history_rows, logged, write

DAY = timedelta(days=1)


@pytest.mark.parametrize("suffix", [".csv", ".ndjson", ".parquet"])
def test_the_same_history_twice_is_once(services: Services, spring: Campaign, tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path / f"h{suffix}", history_rows(12))
    first, again = (import_file(services, WORKSPACE, "history", file) for _ in range(2))

    assert (first.stored, first.resumed) == (12, 0)
    assert (again.stored, again.resumed) == (0, 12)
    assert len(decisions(services)) == 12


def test_a_history_that_has_grown_adds_only_what_is_new(services: Services, spring: Campaign, tmp_path: Path) -> None:
    file = tmp_path / "h.csv"
    import_file(services, WORKSPACE, "history", write(file, history_rows(12)))
    report = import_file(services, WORKSPACE, "history", write(file, history_rows(20)))
    assert (report.stored, report.known) == (8, 12)


@pytest.mark.parametrize("context", [{"context.plan": "pro"}, {"context": {"plan": "pro", HISTORY: [[1, 2]]}}])
def test_an_imported_decision_knows_what_its_recipient_had_done_before_it(
    services: Services, spring: Campaign, tmp_path: Path, context: dict[str, Any]
) -> None:
    def row(who: str, days: float, variant: str, **outcomes: Any) -> dict[str, Any]:
        at = {"send_at": (START - days * DAY).isoformat()}
        sent = {"recipient_id": who, "campaign_id": "spring", "variant_id": variant, "channel": "email", **at}
        return {**sent, **context, "outcome.clicked": 0, "outcome.delivered": 1, **outcomes}

    views = [
        {
            "type": "viewed",
            "recipient_id": "u1",
            "occurred_at": (START - d * DAY).isoformat(),
            "properties.topic": topic,
        }
        for d, topic in ((12, "shoes"), (8, "hats"))
    ]
    first = [row("u1", 10, "mens", **{"outcome.clicked": 1}), row("u1", 9, "womens"), row("u2", 9, "mens")]
    import_file(services, WORKSPACE, "events", write(tmp_path / "e.ndjson", views))
    import_file(services, WORKSPACE, "history", write(tmp_path / "h.ndjson", first))
    import_file(services, WORKSPACE, "history", write(tmp_path / "later.ndjson", [row("u1", 7, "mens")]))
    day, mens, womens = 24 * 60, ("", "email", "spring/mens"), ("", "email", "spring/womens")
    found = {(d.recipient_id, (START - d.decided_at).days): d.snapshot.context for d in decisions(services)}
    assert {who: read(context) for who, context in found.items()} == {
        ("u1", 10): [Past(2 * day, "viewed", "shoes")],
        ("u1", 9): [
            Past(3 * day, "viewed", "shoes"),
            Past(day, "sent", *mens),
            Past(day, "clicked", *mens),
        ],
        ("u2", 9): [],
        ("u1", 7): [
            Past(5 * day, "viewed", "shoes"),
            Past(3 * day, "sent", *mens),
            Past(3 * day, "clicked", *mens),
            Past(2 * day, "sent", *womens),
            Past(day, "viewed", "hats"),
        ],
    }
    assert all({**context, HISTORY: ()} == {"plan": "pro", HISTORY: ()} for context in found.values())
    with services.store.read() as reader:
        assert [one.name for one in reader.attributes(WORKSPACE)] == ["plan"]


def test_equal_rows_of_a_history_are_two_decisions(services: Services, spring: Campaign, tmp_path: Path) -> None:
    row = history_rows(1)[0]
    assert import_file(services, WORKSPACE, "history", write(tmp_path / "h.csv", [row, row])).stored == 2


def test_a_logged_row_becomes_a_decision_over_all_actions_at_its_time(
    services: Services, spring: Campaign, tmp_path: Path
) -> None:
    row = {
        "recipient_id": "u1",
        "campaign_id": "spring",
        "variant_id": "womens",
        "channel": "push",
        "send_at": "2026-02-20T10:00:00+01:00",
        "decided_at": "2026-02-20T08:00:00Z",
        "propensity": 0.25,
        "context": {"age": 30},
        "context.plan": "pro",
        "outcome.clicked": "2026-02-20T09:30:00Z",
        "outcome.converted": 49.5,
        "outcome.unsubscribed": 0,
    }
    import_file(services, WORKSPACE, "history", write(tmp_path / "h.ndjson", [row]))

    (found,) = logged(services)
    decision = found.decision
    assert (decision.policy_id, decision.imported, decision.status) == ("pol_imported", True, "sent")
    assert (decision.variant_id, decision.channel, decision.propensity) == ("womens", "push", 0.25)
    # 2 variants x 1 slot x 2 channels + no_send; womens = 1, push = 1: a = 1 * 2 + 1.
    assert (decision.action, decision.actions, decision.eligible_actions) == (3, 5, 5)
    assert decision.send_at == datetime(2026, 2, 20, 9, tzinfo=UTC)
    assert decision.decided_at == datetime(2026, 2, 20, 8, tzinfo=UTC)
    assert decision.snapshot.context == {"age": 30, "plan": "pro"}
    events = {event.type: event for event in found.events}
    assert set(events) == {"clicked", "converted"}
    assert events["clicked"].occurred_at == datetime(2026, 2, 20, 9, 30, tzinfo=UTC)
    assert (events["converted"].value, events["converted"].occurred_at) == (49.5, decision.send_at)


def test_a_row_without_a_variant_is_a_decision_not_to_send(
    services: Services, spring: Campaign, tmp_path: Path
) -> None:
    row = {
        "recipient_id": "u1",
        "campaign_id": "spring",
        "variant_id": None,
        "decided_at": "2026-02-20T08:00:00Z",
        "outcome.converted": 3,
    }
    import_file(services, WORKSPACE, "history", write(tmp_path / "h.csv", [row]))

    (found,) = logged(services)
    assert (found.decision.status, found.decision.action, found.decision.send_at) == ("no_send", 4, None)
    assert found.decision.propensity is None
    assert [event.occurred_at for event in found.events] == [found.decision.decided_at]


@pytest.mark.parametrize(
    ("propensity", "kept"), [(None, None), (0, None), (-1, None), (1e-15, None), (1, 1.0), (0.01, 0.01)]
)
def test_a_missing_non_positive_or_vanishing_propensity_is_kept_for_training_only(
    services: Services, spring: Campaign, tmp_path: Path, propensity: float | None, kept: float | None
) -> None:
    rows = [{**history_rows(1)[0], "propensity": propensity}]
    import_file(services, WORKSPACE, "history", write(tmp_path / "h.csv", rows))

    with services.store.read() as reader:
        (row,) = load(reader, WORKSPACE, services.clock()).rows
    assert row.decision.propensity == kept
    assert row.trainable
    assert row.evaluable is (kept is not None)
    assert row.reward == 1.0


HISTORY_FAULTS = [
    ({"campaign_id": "nope"}, "no campaign 'nope'"),
    ({"variant_id": "kids"}, "'kids' is not one of the campaign's: mens, womens"),
    ({"channel": "fax"}, "'fax' is not one of the campaign's: email, push"),
    ({"channel": None}, "channel: missing"),
    ({"send_at": None}, "send_at: missing"),
    ({"send_at": "2026-02-20 10:00:00"}, "with an offset"),
    ({"send_at": "2027-01-01T00:00:00Z"}, "must not be after now"),
    ({"decided_at": "2026-03-01T00:00:00Z"}, "must not be after send_at"),
    ({"propensity": 1.5}, "must not be above 1"),
    ({"propensity": "many"}, "'many' must be a finite number"),
    ({"outcome.clicked": "soon"}, "'soon' must be empty, a number, true or false, or an RFC 3339 time"),
    ({"outcome.clicked": "2026-01-01T00:00:00Z"}, "must lie between decided_at and now"),
    ({"variant_id": None, "outcome.opened": 1}, "needs a message"),
]


@pytest.mark.parametrize(("change", "named"), HISTORY_FAULTS)
def test_a_history_row_that_contradicts_itself_is_refused_with_the_reason(
    services: Services, spring: Campaign, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    seen: list[BadRow] = []
    file = write(tmp_path / "h.csv", [{**history_rows(1)[0], **change}])
    report = import_file(services, WORKSPACE, "history", file, on_bad=seen.append)
    assert (report.bad, report.stored) == (1, 0)
    assert named in seen[0].error.detail
    assert decisions(services) == []


def test_an_only_channel_need_not_be_named_and_archived_variants_are_known(services: Services, tmp_path: Path) -> None:
    setup.put_campaign(services, campaign(channels=(Channel("email"),)))
    setup.put_campaign(services, campaign(channels=(Channel("email"),), variants=(Variant("kids"),)))
    file = write(tmp_path / "h.csv", [{**history_rows(1)[0], "channel": None}])
    assert import_file(services, WORKSPACE, "history", file).stored == 1
    assert decisions(services)[0].channel == "email"


def test_sent_history_counts_against_caps_like_any_message(
    services: Services, spring: Campaign, tmp_path: Path
) -> None:
    import_file(services, WORKSPACE, "history", write(tmp_path / "h.csv", history_rows(3)))
    with services.store.read() as reader:
        found = reader.messages(WORKSPACE, ["u0", "u1", "u2"], START - 11 * DAY, START)
    assert {person: len(messages) for person, messages in found.items()} == {"u0": 1, "u1": 1, "u2": 1}


@pytest.mark.parametrize("earlier", [(), ("u9",)], ids=["whole columns", "row by row"])
def test_an_erasure_while_a_history_is_imported_counts(
    services: Services, spring: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: tuple[str, ...]
) -> None:
    for one in ("u1", *earlier):
        setup.put_recipient(services, Recipient(WORKSPACE, one))
    for one in earlier:
        erase(services, WORKSPACE, one)
    bad: list[BadRow] = []
    file = write(tmp_path / "h.csv", history_rows(9))
    meanwhile(services, monkeypatch, lambda: erase(services, WORKSPACE, "u1"))
    done = import_file(services, WORKSPACE, "history", file, on_bad=bad.append)
    assert (done.stored, [(one.line, one.error.code) for one in bad]) == (7, [(3, "erased"), (10, "erased")])
    assert "u1" not in {decision.recipient_id for decision in decisions(services)}
    setup.put_recipient(services, Recipient(WORKSPACE, "u1"))
    assert import_file(services, WORKSPACE, "history", file).stored == 2


def test_a_stored_zone_that_this_host_lacks_refuses_its_rows_alone(
    services: Services, spring: Campaign, tmp_path: Path
) -> None:
    rows = history_rows(4)
    setup.put_recipient(services, Recipient(WORKSPACE, rows[1]["recipient_id"], timezone="America/Nowhere"))
    bad: list[BadRow] = []
    done = import_file(services, WORKSPACE, "history", write(tmp_path / "h.csv", rows), on_bad=bad.append)
    assert (done.stored, [(one.line, one.error.code) for one in bad]) == (3, [(3, "unknown_zone")])
