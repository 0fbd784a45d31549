"""Logs written by hand, for the audit to judge: decisions, rules and people as a test wants them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from simulations import audit as audits
from storage.log import COUNTED, Decision, Event, Message, Snapshot, Status
from storage.port import Store
from storage.records import Recipient
from storage.rules import Blackout, Budget, Cap, Capacity, Fatigue, QuietHours, Rule, RuleKind, RuleParameters

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)  # a Monday
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SHOP = "acme"


_KINDS: dict[type[RuleParameters], RuleKind] = {
    Cap: "cap",
    QuietHours: "quiet_hours",
    Blackout: "blackout",
    Capacity: "capacity",
    Budget: "budget",
    Fatigue: "fatigue",
}
_OF_SNAPSHOT = ("cost", "unanswered", "limits", "risks", "displaced")


def reserved(ref: str, send_at: datetime | None, decided_at: datetime = NOW, **changes: Any) -> Decision:
    """A reservation as the service logs it; without a time, a decision not to send."""
    snapshot = Snapshot(
        window_start=decided_at,
        window_end=decided_at + 30 * DAY,
        variants=("hello",),
        channels=("email", "sms"),
        timezone=changes.pop("timezone", "UTC"),
        timezone_source="default",
        overridden_rules=changes.pop("overridden", ()),
        **{name: changes.pop(name) for name in _OF_SNAPSHOT if name in changes},
    )
    values: dict[str, Any] = {
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
    return Decision(**values)


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
        decision.snapshot.cost,
    )


def log(store: Store, *decisions: Decision) -> None:
    """Commits decisions in this order."""
    store.write(lambda w: w.add_decisions([(d, message_of(d)) for d in decisions]))


def changed(store: Store, ref: str, status: Status, **fields: Any) -> None:
    """Commits what becomes of a decision, now."""
    with store.read() as reader:
        stored = reader.decision(SHOP, ref)
    if stored is None:
        raise LookupError(ref)
    after = replace(stored, status=status, **fields)
    store.write(lambda w: w.update_decision(after, message_of(after)))


def released(store: Store, ref: str, at: datetime = NOW) -> None:
    """Gives a place back."""
    changed(store, ref, "released", closed_at=at, close_reason="released")


def heard(store: Store, ref: str, type_: str, at: datetime, **fields: Any) -> None:
    """Commits an event of a decision."""
    event = Event(SHOP, f"{type_}-{ref}-{at}", type_, at, at, matched=True, decision_id=ref, recipient_id="u1")
    store.write(lambda w: w.add_event(replace(event, **fields)))


def put_rule(store: Store, parameters: RuleParameters, **changes: Any) -> Rule:
    """Commits the first version of a rule."""
    rule = replace(Rule(SHOP, "the-rule", _KINDS[type(parameters)], parameters), **changes)
    store.write(lambda w: w.put_rule(rule))
    return rule


def person(store: Store, **fields: Any) -> None:
    """Commits the first version of the recipient ``u1`` (or of another)."""
    recipient = replace(Recipient(SHOP, "u1", 1, updated_at=NOW - DAY), **fields)
    store.write(lambda w: w.put_recipient(recipient))


def audited(store: Store) -> audits.Report:
    with store.read() as reader:
        return audits.audit(reader, SHOP)


def broken(report: audits.Report) -> list[tuple[str, str]]:
    return [(breach.kind, breach.decision_id) for breach in report.breaches]


def tally(report: audits.Report, rule_id: str = "the-rule") -> dict[str, int]:
    """The verdicts on one rule, added up over its kinds."""
    found: dict[str, int] = {}
    for (name, _), counts in report.tallies.items():
        for verdict, count in counts.items():
            if name == rule_id and count:
                found[verdict] = found.get(verdict, 0) + count
    return found


def spaced(*send_at: datetime, **changes: Any) -> list[Decision]:
    """Reservations d0, d1, … decided an hour apart."""
    return [reserved(f"d{i}", at, NOW + i * HOUR, **changes) for i, at in enumerate(send_at)]
