"""What had happened to a recipient before an imported decision, as a live one is told it (see ``past``).

It is what is stored when the row comes, with a time before that of its decision, and what other rows of its chunk say
that is older: their messages and what came of them. So a file of events is imported before the history, and a history
oldest first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from optimizer.model.history import LENGTH
from storage.log import Happening
from storage.port import Reader

#: A delivery says nothing of the recipient (see ``storage.port.Reader.past``).
_DELIVERED = "delivered"


@dataclass(frozen=True, slots=True)
class Occasion:
    """An imported decision, as the later ones of its recipient look back on it.

    ``sent_at`` None = nothing was sent. ``outcomes``: the events that it brings, each with id, type and time.
    """

    recipient_id: str
    decided_at: datetime
    decision_id: str
    campaign_id: str
    variant_id: str | None
    channel: str | None
    sent_at: datetime | None
    outcomes: Sequence[tuple[str, str, datetime]] = ()

    def happenings(self) -> Iterator[Happening]:
        """What it adds to its recipient's past."""
        by = (self.channel, self.campaign_id, self.variant_id)
        if self.sent_at is not None:
            yield Happening(self.sent_at, self.decision_id, "sent", *by)
        for event_id, kind, at in self.outcomes:
            if kind != _DELIVERED:
                yield Happening(at, event_id, kind, *by)


def pasts(reader: Reader, workspace_id: str, rows: Sequence[Occasion]) -> list[Sequence[Happening]]:
    """What had happened before each of these decisions, oldest first; none of them is stored."""
    stored = reader.pasts_before(workspace_id, [(row.recipient_id, row.decided_at) for row in rows], limit=LENGTH)
    times = Counter(row.recipient_id for row in rows)
    brought: dict[str, list[Happening]] = {}
    for row in rows:
        if times[row.recipient_id] > 1:
            brought.setdefault(row.recipient_id, []).extend(row.happenings())
    found: list[Sequence[Happening]] = []
    for row in rows:
        past = stored.get((row.recipient_id, row.decided_at), ())
        own = [one for one in brought.get(row.recipient_id, ()) if one.at < row.decided_at]
        found.append(sorted([*past, *own], key=lambda one: (one.at, one.ref))[-LENGTH:] if own else past)
    return found
