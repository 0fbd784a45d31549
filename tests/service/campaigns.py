"""Made-up logs of a campaign with groups, written straight into the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np

from optimizer.service.wiring import Services
from storage.log import Decision, Event, Group, Snapshot
from storage.records import Campaign, Channel, GroupShares, OutcomeWeight, Variant
from tests.service.conftest import START, campaign

SHARES = GroupShares(holdout=0.2, random=0.1)
GROUP_OF: Sequence[Group] = ("treated",) * 7 + ("random",) + ("holdout",) * 2


def shop(**changes: Any) -> Campaign:
    """Orders count their amount; an e-mail costs .1."""
    values: dict[str, Any] = {
        "variants": (Variant("mens"), Variant("womens")),
        "channels": (Channel("email", cost=0.1),),
        "objective": {"converted": OutcomeWeight(per_value=1.0), "unsubscribed": OutcomeWeight(fixed=-5.0)},
        "attribution_hours": {"converted": 24.0, "unsubscribed": 24.0},
        "groups": SHARES,
    }
    return campaign(**{**values, **changes})


def decision(number: int, group: Group, **changes: Any) -> Decision:
    """A decision of recipient ``number``, sent at once unless the group is holdout."""
    silent = group == "holdout"
    decided = START + timedelta(minutes=number % 1_440)
    made = Decision(
        workspace_id="acme",
        decision_id=f"dec_{number}",
        request_id=f"r{number}",
        request_hash=b"",
        campaign_id="spring",
        campaign_version=1,
        recipient_id=f"u{number}",
        status="no_send" if silent else "sent",
        group=group,
        mode="live",
        decided_at=decided,
        propensity=0.5,
        policy_id="pol_cold",
        action=0,
        actions=4,
        eligible_actions=4,
        eligible=b"\xf0",
        snapshot=Snapshot(decided, decided + timedelta(hours=2), ("mens", "womens"), ("email",), "UTC", "recipient"),
        variant_id=None if silent else ("mens", "womens")[number % 2],
        channel=None if silent else "email",
        send_at=None if silent else decided,
        sent_at=None if silent else decided,
    )
    return replace(made, **changes)


def order(of: Decision, amount: float, **changes: Any) -> Event:
    """An order of a decision's recipient, an hour after it."""
    at = of.decided_at + timedelta(hours=1)
    made = Event(
        of.workspace_id,
        f"order-{of.decision_id}",
        "converted",
        at,
        at,
        matched=True,
        recipient_id=of.recipient_id,
        value=amount,
    )
    return replace(made, **changes)


def write(services: Services, decisions: Sequence[Decision], events: Sequence[Event] = ()) -> None:
    """Stores a log."""

    def work(writer: Any) -> None:
        writer.add_decisions([(one, None) for one in decisions])
        writer.add_events(events)

    services.store.write(work)


def buyers(services: Services, chances: dict[Group, float], recipients: int = 4_000, seed: int = 1) -> None:
    """A log of one decision a recipient, each of a group's buying for 10 with its chance."""
    rng = np.random.default_rng(seed)
    made = [decision(number, GROUP_OF[number % 10]) for number in range(recipients)]
    write(services, made, [order(one, 10.0) for one in made if rng.random() < chances[one.group]])
