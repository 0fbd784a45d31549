"""Rows of a history, column by column: decisions of one campaign, with their messages and what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from optimizer.bandit.localtime import known_zone
from optimizer.bandit.rewards import MESSAGE_OUTCOMES
from optimizer.model.history import HISTORY
from optimizer.service import history
from optimizer.service import recipients as people
from optimizer.service.cells import OBJECT_VALUES, Cells, instant, outcome
from optimizer.service.erased import any_erased
from optimizer.service.framing import resolve_zone
from optimizer.service.history import Frame
from optimizer.service.ids import IMPORTED_POLICY
from optimizer.service.importedpast import Occasion, pasts
from optimizer.service.past import as_told
from optimizer.service.rowparts import Table
from optimizer.service.wholecolumns import Memos, first_seen, joined, member, plain_ids, require, require_names
from storage.bulk import NewLogged, NewOutcomes
from storage.codec import from_micros, pack_member, to_micros
from storage.decision_codec import Details
from storage.errors import OneByOne
from storage.log import Snapshot
from storage.port import Reader, Writer
from storage.records import Recipient

_EPOCH: Final = from_micros(0)
#: What an outcome's cell says: None = it didn't happen; else its value and when, in microseconds.
_Happened = tuple[float | None, int | None] | None


@dataclass(frozen=True)
class _Sent:
    """What was sent, by column; no variant = nothing. Times in microseconds."""

    variants: Sequence[str | None]
    channels: Sequence[str | None]
    decided_at: Sequence[int]
    send_at: Sequence[int]


@dataclass
class HistoryColumns:
    """Reads chunks of one file. ``typed``: as of ``Cells``."""

    typed: bool
    _memos: Memos[Any] = field(init=False)

    def __post_init__(self) -> None:
        self._memos = Memos(self._meaning)

    def campaign_of(self, table: Table) -> str:
        """The campaign that all rows name.

        Raises:
            Unusual: there are several, or none.
        """
        require("campaign_id" in table.columns)
        named = set(plain_ids(table.columns["campaign_id"]))
        require(len(named) == 1)
        return named.pop()

    def read(self, table: Table, frame: Frame, reader: Reader, now: datetime) -> NewLogged:
        """A chunk's decisions.

        Args:
            table: the rows, all of ``frame``'s campaign.
            frame: that campaign.
            reader: what is stored of their recipients.
            now: nothing lies after it.

        Raises:
            Unusual: they are to be read row by row.
        """
        columns = table.columns
        require_names(columns)
        for name in columns:
            require(name in history.COLUMNS or name.startswith(("context.", "outcome.")))
        require(f"context.{HISTORY}" not in columns)
        recipients = plain_ids(columns["recipient_id"])
        zones = reader.timezones(frame.campaign.workspace_id, recipients)
        clocks = {zones.get(one) or frame.campaign.timezone or "UTC" for one in recipients}
        require(None not in map(known_zone, clocks))
        sent = self._sent(table, frame, to_micros(now))
        contexts = [self._memos.of(name, cells) for name, cells in columns.items() if name.startswith("context.")]
        require(len(contexts) <= OBJECT_VALUES)
        propensities = self._column(table, "propensity")
        require(all(one is None or one <= 1 for one in propensities))
        names = history.row_names(frame.campaign, recipients, table.dicts(), table.lines)
        ids = [f"dec{name}" for name in names]
        outcomes = self._outcomes(table, ids, sent, to_micros(now))
        contexts.append(_pasts(reader, frame, recipients, ids, sent, outcomes))
        pairs = list(zip(sent.variants, sent.channels, strict=True))
        costs, actions = ({pair: told(*pair) for pair in set(pairs)} for told in (frame.cost, frame.action))
        return NewLogged(
            campaign_id=frame.campaign.campaign_id,
            campaign_version=frame.campaign.version,
            category=frame.campaign.category,
            policy_id=IMPORTED_POLICY,
            actions=frame.size,
            eligible=frame.eligible,
            ids=ids,
            request_ids=[f"imp{name}" for name in names],
            recipients=recipients,
            decided_at=sent.decided_at,
            send_at=sent.send_at,
            propensities=list(map(history.known_propensity, propensities)),
            action=[actions[pair] for pair in pairs],
            variants=sent.variants,
            channels=sent.channels,
            costs=[costs[pair] for pair in pairs],
            details=_details(frame, zones, recipients, sent, [costs[p] for p in pairs], joined(contexts, len(ids))),
            outcomes=outcomes,
        )

    def _sent(self, table: Table, frame: Frame, now: int) -> _Sent:
        variants = self._column(table, "variant_id")
        only = frame.channels[0] if len(frame.channels) == 1 else None
        told = self._column(table, "channel")
        channels = [None if v is None else c or only for v, c in zip(variants, told, strict=True)]
        require(set(variants) <= {None, *frame.variants} and set(channels) <= {None, *frame.channels})
        require(all(v is None or c is not None for v, c in zip(variants, channels, strict=True)))
        require(frame.campaign.allow_no_send or None not in variants)
        sends, decisions = self._column(table, "send_at"), self._column(table, "decided_at")
        require(all(s is not None or d is not None for s, d in zip(sends, decisions, strict=True)))
        send_at = [d if s is None else s for s, d in zip(sends, decisions, strict=True)]
        decided_at = [s if d is None else d for s, d in zip(sends, decisions, strict=True)]
        require(max(send_at) <= now and all(d <= s for s, d in zip(send_at, decided_at, strict=True)))
        return _Sent(variants, channels, decided_at, send_at)

    def _outcomes(self, table: Table, ids: Sequence[str], sent: _Sent, now: int) -> NewOutcomes:
        found: list[tuple[int, str, int, float | None]] = []
        for column in sorted(name for name in table.columns if name.startswith("outcome.")):
            name = column.partition(".")[2]
            told: list[_Happened] = self._memos.of(column, table.columns[column])
            for i, one in enumerate(told):
                if one is None:
                    continue
                value, at = one
                silent = sent.variants[i] is None
                require(not (silent and name in MESSAGE_OUTCOMES))
                at = (sent.decided_at if silent else sent.send_at)[i] if at is None else at
                require(sent.decided_at[i] <= at <= now)
                found.append((i, name, at, value))
        found.sort(key=lambda one: one[0])  # stable: by name within a decision
        places, types, times, values = zip(*found, strict=True) if found else ((),) * 4
        names = history.outcome_ids([(ids[i], name) for i, name in zip(places, types, strict=True)])
        return NewOutcomes(now, places, names, types, times, values)

    def _column(self, table: Table, name: str) -> list[Any]:
        return self._memos.of(name, table.columns.get(name, (None,) * len(table)))

    def _meaning(self, name: str, cell: Any) -> Any:
        if name.startswith("context."):
            return member(name, cell, typed=self.typed)
        one = Cells({name: cell}, typed=self.typed)
        if name.startswith("outcome."):
            said = outcome(name, one.nested("outcome").get(name.partition(".")[2]))
            return said and (said[0], None if said[1] is None else to_micros(said[1]))
        if name in ("send_at", "decided_at"):
            return None if one.value(name) is None else to_micros(instant(name, cell))
        return one.number(name) if name == "propensity" else one.id(name)

    def store(self, writer: Writer, workspace_id: str, table: Table, found: NewLogged) -> None:
        """Stores them; ``OneByOne`` when they are not all new, something counts them, or somebody was erased once."""
        if any_erased(writer, workspace_id):
            raise OneByOne("decisions about people who may have been erased")
        writer.add_new_logged(workspace_id, found)
        known = {attribute.name: attribute for attribute in writer.attributes(workspace_id)}
        people.sight(writer, workspace_id, known, first_seen(known, table.columns, "context", typed=self.typed))


def _pasts(
    reader: Reader, frame: Frame, recipients: Sequence[str], ids: Sequence[str], sent: _Sent, outcomes: NewOutcomes
) -> list[str]:
    """What each context says of its recipient's past."""
    happened: dict[int, list[tuple[str, str, datetime]]] = {}
    brought = zip(outcomes.places, outcomes.ids, outcomes.types, outcomes.occurred_at, strict=True)
    for place, event_id, kind, at in brought:
        happened.setdefault(place, []).append((event_id, kind, from_micros(at)))
    occasions = [
        Occasion(
            recipient_id=recipient_id,
            decided_at=from_micros(sent.decided_at[i]),
            decision_id=ids[i],
            campaign_id=frame.campaign.campaign_id,
            variant_id=sent.variants[i],
            channel=sent.channels[i],
            sent_at=None if sent.variants[i] is None else from_micros(sent.send_at[i]),
            outcomes=happened.get(i, ()),
        )
        for i, recipient_id in enumerate(recipients)
    ]
    found = pasts(reader, frame.campaign.workspace_id, occasions)
    return [
        pack_member(as_told(past, one.decided_at), HISTORY) if past else ""
        for one, past in zip(occasions, found, strict=True)
    ]


def _details(
    frame: Frame,
    zones: Mapping[str, str | None],
    recipients: Sequence[str],
    sent: _Sent,
    costs: Sequence[int],
    contexts: Sequence[str],
) -> list[bytes]:
    """The documents of the decisions."""
    known: dict[tuple[str | None, int], Details] = {}
    packed = []
    for recipient_id, send_at, cost, context in zip(recipients, sent.send_at, costs, contexts, strict=True):
        kind = (zones.get(recipient_id), cost)
        details = known.get(kind)
        if details is None:
            details = known[kind] = Details.of(_snapshot(frame, kind[0], cost))
        packed.append(details.pack(send_at, context[1:]))
    return packed


def _snapshot(frame: Frame, timezone: str | None, cost: int) -> Snapshot:
    campaign = frame.campaign
    where, source = resolve_zone(Recipient(campaign.workspace_id, "", timezone=timezone), campaign)
    return history.snapshot(frame, (where.name, source), _EPOCH, cost, {})
