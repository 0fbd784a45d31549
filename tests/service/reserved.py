"""Reservations laid straight into the store, at known times, and what the store then holds of them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from optimizer.service.record import message_of
from optimizer.service.wiring import Services
from storage.log import Decision, Message
from storage.rules import Capacity, Rule
from tests.service.conftest import START, WORKSPACE
from tests.storage.builders import make_decision

#: Counts every message in one period that holds all of time.
EVERYTHING = Rule(WORKSPACE, "everything", "capacity", Capacity(1_000_000_000, per_minutes=44_640 * 100_000))


def after(**span: float) -> datetime:
    """So long after the tests' start."""
    return START + timedelta(**span)


def reserve(services: Services, decision_id: str, hours: float = 6.0, **changes: Any) -> Decision:
    """A reserved message of the campaign ``spring`` to ``u1``, planned so many hours after the start."""
    values: dict[str, Any] = {
        "workspace_id": WORKSPACE,
        "decision_id": decision_id,
        "request_id": f"request of {decision_id}",
        "decided_at": START,
        "send_at": after(hours=hours),
        **changes,
    }
    decision = make_decision(**values)
    services.store.write(lambda writer: writer.add_decision(decision, message_of(decision)))
    return decision


def stored(services: Services, decision_id: str) -> Decision:
    """The decision as it stands now."""
    with services.store.read() as reader:
        found = reader.decision(WORKSPACE, decision_id)
    assert found is not None
    return found


def counted(services: Services, recipient_id: str = "u1") -> tuple[Message, ...]:
    """The messages that hold a place in the recipient's caps."""
    with services.store.read() as reader:
        return reader.messages(WORKSPACE, [recipient_id], after(days=-900), after(days=900)).get(recipient_id, ())


def used(services: Services) -> int:
    """How many messages the capacity rule ``EVERYTHING`` counts."""
    with services.store.read() as reader:
        return sum(reader.usage(WORKSPACE, [(EVERYTHING.rule_id, -1, 1)]).values())


def unanswered(services: Services, recipient_id: str = "u1") -> int:
    """The recipient's count of unanswered messages."""
    with services.store.read() as reader:
        return reader.unanswered(WORKSPACE, [recipient_id]).get(recipient_id, 0)


def told_of(services: Services) -> list[tuple[str, str | None, str | None]]:
    """What the change feed says: the kind, the decision, the reason."""
    with services.store.read() as reader:
        return [(one.kind, one.decision_id, one.detail) for one in reader.changes(WORKSPACE, after=0, limit=9)]
