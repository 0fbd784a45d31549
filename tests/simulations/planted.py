"""Logs written by hand, for the audit to judge: decisions, rules and people as a test wants them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from simulations import audit as audits
from simulations.holdings import ByLedger, Entry
from storage.log import COUNTED, Decision, Message, Snapshot
from storage.port import Store
from storage.records import (
    Cap,
    Recipient,
    Rule,
    RuleParameters,
)

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)  # a Monday
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SHOP = "acme"


def reserved(ref: str, send_at: datetime | None, decided_at: datetime = NOW, **changes: object) -> Decision:
    """A reservation as the service logs it; without a time, a decision not to send."""
    where = str(changes.pop("timezone", "UTC"))
    overridden = changes.pop("overridden", ())
    snapshot = Snapshot(
        window_start=decided_at,
        window_end=decided_at + 30 * DAY,
        variants=("hello",),
        channels=("email", "sms"),
        timezone=where,
        timezone_source="default",
        overridden_rules=overridden,  # type: ignore[arg-type]  # tests pass fields by name
    )
    values: dict[str, object] = {
        "workspace_id": SHOP,
        "decision_id": ref,
        "request_id": ref,
        "request_hash": b"h",
        "campaign_id": "spring",
        "campaign_version": 1,
        "recipient_id": "u1",
        "status": "no_send" if send_at is None else "reserved",
        "group": "treated",
        "mode": "live",
        "decided_at": decided_at,
        "propensity": 0.5,
        "policy_id": "pol_cold",
        "action": 0,
        "actions": 8,
        "eligible_actions": 8,
        "eligible": b"\xff",
        "snapshot": snapshot,
        "variant_id": None if send_at is None else "hello",
        "channel": None if send_at is None else "email",
        "send_at": send_at,
        **changes,
    }
    return Decision(**values)  # type: ignore[arg-type]


def message_of(decision: Decision) -> Message | None:
    if decision.send_at is None or decision.channel is None or decision.status not in COUNTED:
        return None
    return Message(
        SHOP,
        decision.recipient_id,
        decision.sent_at or decision.send_at,
        decision.decision_id,
        decision.channel,
        decision.category,
        decision.campaign_id,
        decision.variant_id,
        decision.decision_id,
    )


def log(store: Store, *decisions: Decision) -> None:
    store.write(lambda w: w.add_decisions([(d, message_of(d)) for d in decisions]))


def put_rule(store: Store, parameters: RuleParameters, **changes: object) -> None:
    kind = "cap" if isinstance(parameters, Cap) else "quiet_hours"
    rule = replace(Rule(SHOP, "the-rule", kind, parameters), **changes)  # type: ignore[arg-type]
    store.write(lambda w: w.put_rule(rule))


def person(store: Store, **fields: object) -> None:
    recipient = replace(Recipient(SHOP, "u1", 1, updated_at=NOW - DAY), **fields)  # type: ignore[arg-type]
    store.write(lambda w: w.put_recipient(recipient))


def audited(store: Store, *entries: Entry, since: datetime | None = None) -> audits.Report:
    with store.read() as reader:
        return audits.audit(reader, SHOP, counting=ByLedger(entries) if entries else None, since=since)


def broken(report: audits.Report) -> list[tuple[str, str]]:
    return [(breach.kind, breach.decision_id) for breach in report.breaches]


def spaced(*send_at: datetime, **changes: object) -> list[Decision]:
    """Reservations d0, d1, … decided an hour apart, so that their order is certain."""
    return [reserved(f"d{i}", at, NOW + i * HOUR, **changes) for i, at in enumerate(send_at)]
