"""What is used of capacities and budgets, and how many messages recipients left unanswered."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from math import gcd
from typing import Any, Final

from storage.codec import from_micros, to_micros, unpack_rule
from storage.log import Message
from storage.rules import Budget, Capacity, Rule, Selector
from storage.sql.tables import Tables
from storage.usage import counted_by, period_of, taken

#: The counter that holds the time of the last prune, in microseconds: what ended before is neither kept nor booked.
_PRUNED_TO: Final = "usage_from"
#: The counter that holds the latest time of a message that a prune deleted: it may lie behind that of the prune.
_FORGOTTEN_TO: Final = "usage_whole_from"
_LATEST: Final = """
INSERT INTO counters (workspace_id, name, value) VALUES (?, ?, ?)
ON CONFLICT (workspace_id, name) DO UPDATE
SET value = CASE WHEN excluded.value > counters.value THEN excluded.value ELSE counters.value END
"""
_EVER: Final = -(2**63)

_USED: Final = """
SELECT period, used FROM usage WHERE workspace_id = ? AND rule_id = ? AND period >= ? AND period <= ? AND used <> 0
"""
_SUMMED_RULES: Final = """
SELECT rule_id, version, document FROM rules WHERE workspace_id = ? AND summed = 1
"""
_BOOK: Final = """
INSERT INTO usage (workspace_id, rule_id, period, used) VALUES (?, ?, ?, ?)
ON CONFLICT (workspace_id, rule_id, period) DO UPDATE SET used = usage.used + excluded.used
"""
# Spans are cut from a time before all others (the year 1, in microseconds), since division would round times before
# 1970 up; it is a whole number of days before 1970, so spans end where periods do.
_SPANS: Final = "SELECT (at + 62135596800000000) / ?, AMOUNT FROM messages WHERE workspace_id = ?"
_SINCE: Final = " AND at >= ?"
_YEAR_ONE: Final = -62_135_596_800_000_000
_MINUTE: Final = 60_000_000
#: Clocks of all zones differ from UTC by a multiple of this (since 1972).
_ZONE_MINUTES: Final = 15

_UNANSWERED: Final = """
SELECT recipient_id, unanswered FROM engagement WHERE workspace_id = ? AND recipient_id IN ({marks}) AND unanswered > 0
"""
_ADD_UNANSWERED: Final = """
INSERT INTO engagement (workspace_id, recipient_id, unanswered) VALUES (?1, ?2, CASE WHEN ?3 > 0 THEN ?3 ELSE 0 END)
ON CONFLICT (workspace_id, recipient_id) DO UPDATE
SET unanswered = CASE WHEN engagement.unanswered + ?3 > 0 THEN engagement.unanswered + ?3 ELSE 0 END
"""


class UsageReader(Tables):
    """Queries on sums."""

    def usage(self, workspace_id: str, spans: Sequence[tuple[str, int, int]]) -> dict[tuple[str, int], int]:
        """See ``storage.port``."""
        return {
            (rule_id, period): used
            for rule_id, first, last in spans
            for period, used in self._rows(_USED, (workspace_id, rule_id, first, last))
        }

    def summed(self, rule: Rule, since: datetime) -> dict[int, int]:
        """See ``storage.port``."""
        return dict(self._sums(rule, _SINCE, to_micros(since)))

    def _sums(self, rule: Rule, which: str = "", *values: int) -> Counter[int]:
        """What the workspace's messages take of a rule, by period; ``which`` is a further condition on them.

        A message costs one turn of a bare loop, and its period is that of its span.
        """
        parameters = rule.parameters
        if not isinstance(parameters, Capacity | Budget):
            raise AssertionError(f"rule {rule.rule_id} shares no limit")
        span = _span_minutes(parameters) * _MINUTE
        chosen, admitted = _admitting(rule.counts)
        statement = _SPANS.replace("AMOUNT", "1" if isinstance(parameters, Capacity) else "cost") + chosen + which
        by_span: defaultdict[int, int] = defaultdict(int)
        for number, amount in self._query(statement, (span, rule.workspace_id, *admitted, *values)):
            by_span[number] += amount
        sums: Counter[int] = Counter()
        for number, amount in by_span.items():
            sums[period_of(parameters, from_micros(number * span + _YEAR_ONE))] += amount
        return sums

    def unanswered(self, workspace_id: str, recipient_ids: Sequence[str]) -> dict[str, int]:
        """See ``storage.port``."""
        return dict(self._rows_in(_UNANSWERED, (workspace_id,), recipient_ids))

    def forgotten_until(self, workspace_id: str) -> datetime | None:
        """See ``storage.retention``."""
        times = [self._time(workspace_id, name) for name in (_PRUNED_TO, _FORGOTTEN_TO)]
        return max((time for time in times if time is not None), default=None)

    def _time(self, workspace_id: str, counter: str) -> datetime | None:
        row = self._row("SELECT value FROM counters WHERE workspace_id = ? AND name = ?", (workspace_id, counter))
        return None if row is None else from_micros(row[0])


class UsageWriter(UsageReader):
    """Keeps the sums; who changes messages says so by ``_book``."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._summed: dict[str, tuple[tuple[Rule, int], ...]] = {}

    def add_unanswered(self, workspace_id: str, recipient_id: str, count: int) -> None:
        """See ``storage.port``."""
        self._query(_ADD_UNANSWERED, (workspace_id, recipient_id, count))

    def clear_unanswered(self, workspace_id: str, recipient_id: str) -> None:
        """See ``storage.port``."""
        self._query("DELETE FROM engagement WHERE workspace_id = ? AND recipient_id = ?", (workspace_id, recipient_id))

    def _book(self, added: Iterable[Message], removed: Iterable[Message] = ()) -> None:
        """Adds to the sums what these messages take, and subtracts what those took."""
        sums: Counter[tuple[str, str, int]] = Counter()
        for sign, messages in ((1, added), (-1, removed)):
            for message in messages:
                for rule, first in self._summed_rules(message.workspace_id):
                    share = taken(rule, message)
                    if share is not None and share[0] >= first:
                        sums[message.workspace_id, rule.rule_id, share[0]] += sign * share[1]
        changed = [(*key, used) for key, used in sums.items() if used]
        if changed:
            for workspace_id in sorted({key[0] for key in sums}):
                self._hold_log(workspace_id)
            self._send_many(_BOOK, changed)

    def _summed_rules(self, workspace_id: str) -> tuple[tuple[Rule, int], ...]:
        """The rules whose sums are kept, each with the first period that is; read once per transaction."""
        found = self._summed.get(workspace_id)
        if found is None:
            rules = [unpack_rule(workspace_id, *row) for row in self._rows(_SUMMED_RULES, (workspace_id,))]
            pruned_to = self._pruned_to(workspace_id) if rules else None
            found = self._summed[workspace_id] = tuple((rule, _first_period(rule, pruned_to)) for rule in rules)
        return found

    def _sum_anew(self, before: Rule | None, rule: Rule) -> None:
        """Brings a rule's sums to its new version. It must be stored already."""
        self._summed.pop(rule.workspace_id, None)
        counted = counted_by(rule)
        if counted == (None if before is None else counted_by(before)):
            return
        key = (rule.workspace_id, rule.rule_id)
        self._query("DELETE FROM usage WHERE workspace_id = ? AND rule_id = ?", key)
        if counted is not None:  # the cost grows with the ledger, and others wait to write meanwhile
            first = _first_period(rule, self._pruned_to(rule.workspace_id))
            sums = self._sums(rule)
            self._query_many(_BOOK, [(*key, at, used) for at, used in sums.items() if used and at >= first])

    def _forget_usage(self, workspace_id: str, before: datetime) -> None:
        """Deletes the sums of periods that ended by ``before``; from now on they are kept no more."""
        self._query(_LATEST, (workspace_id, _PRUNED_TO, to_micros(before)))
        self._summed.pop(workspace_id, None)
        self._query_many(
            "DELETE FROM usage WHERE workspace_id = ? AND rule_id = ? AND period < ?",
            [(workspace_id, rule.rule_id, first) for rule, first in self._summed_rules(workspace_id)],
        )

    def _note_forgotten(self, workspace_id: str, latest: int | None) -> None:
        """Messages up to this time (None = none) are deleted, and still counted."""
        if latest is not None:
            self._query(_LATEST, (workspace_id, _FORGOTTEN_TO, latest))

    def _pruned_to(self, workspace_id: str) -> datetime | None:
        return self._time(workspace_id, _PRUNED_TO)


def _first_period(rule: Rule, pruned_to: datetime | None) -> int:
    """The first period that had not ended by then."""
    if pruned_to is None or not isinstance(rule.parameters, Capacity | Budget):
        return _EVER
    return period_of(rule.parameters, pruned_to)


def _span_minutes(parameters: Capacity | Budget) -> int:
    """A length of time that divides the rule's periods, whatever the zone, and a day."""
    if isinstance(parameters, Capacity):
        return gcd(parameters.per_minutes, _ZONE_MINUTES)
    return _ZONE_MINUTES


def _admitting(selector: Selector) -> tuple[str, list[str]]:
    """``Selector.admits`` as conditions on a message, with their parameters."""
    conditions = ""
    values: list[str] = []
    for column, only, but in (
        ("channel", selector.channels, selector.except_channels),
        ("category", selector.categories, selector.except_categories),
        ("campaign_id", selector.campaigns, selector.except_campaigns),
    ):
        if only is not None:
            conditions += f" AND {column} IN ({', '.join('?' * len(only))})"
        if but is not None:  # a message without a campaign is none of the campaigns
            conditions += f" AND ({column} IS NULL OR {column} NOT IN ({', '.join('?' * len(but))}))"
        values += [*(only or ()), *(but or ())]
    return conditions, values
