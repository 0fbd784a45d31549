"""Past questions as prices need them: what the last days' log tells of demand, and a sample of it.

A question is a decision that a policy drew or would have drawn, withheld ones and ``no_send`` included: leaving those
out would hide the very demand that a limit turned away.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from optimizer.service.record import message_of
from storage.log import Decision
from storage.port import Reader
from storage.rules import Rule
from storage.usage import taken

#: How far back demand is looked at: a whole week, so that each weekday counts once.
LOOK_BACK = timedelta(days=7)
#: Messages from this long ago on were decided within ``LOOK_BACK``, but for windows of more than two days.
SETTLED = LOOK_BACK - timedelta(days=2)
#: Questions that are scored anew at most.
SAMPLE = 2_000
_PAGE = 500
_DAY = timedelta(days=1)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass
class Recipients:
    """All questions of some recipients, about ``SAMPLE`` together: of those whose ids hash lowest."""

    below: int = 1 << 64
    kept: dict[str, list[Decision]] = field(default_factory=dict)
    size: int = 0

    def add(self, decision: Decision) -> None:
        """Takes a question in if its recipient is among the chosen; lets recipients go when there are too many."""
        name = decision.recipient_id
        if _hash(name) >= self.below:
            return
        self.kept.setdefault(name, []).append(decision)
        self.size += 1
        while self.size > SAMPLE and len(self.kept) > 1:
            highest = max(self.kept, key=_hash)
            self.below = _hash(highest)
            self.size -= len(self.kept.pop(highest))

    def decisions(self) -> list[Decision]:
        """The questions, newest first for each recipient."""
        return [decision for mine in self.kept.values() for decision in mine]


@dataclass(frozen=True)
class Past:
    """What the last days' log tells of demand.

    Attributes:
        sample: questions at random, at most ``SAMPLE``.
        typical: how many questions a day has, as a question sees it: a week with a single busy day has its size.
        busy: that over the mean day's.
        whole: all questions of some recipients.
        taken: by rule, what the questions' messages took of it in the ``SETTLED`` span, and what all decisions' did.
    """

    sample: tuple[Decision, ...]
    typical: float
    busy: float
    whole: tuple[Decision, ...]
    taken: Mapping[str, tuple[int, int]]


def read_past(
    reader: Reader, workspace_id: str, campaigns: Set[str], rules: Sequence[Rule], now: datetime, *, whole: bool
) -> Past:
    """Reads the last days' decisions once, newest first.

    Args:
        reader: the snapshot.
        workspace_id: whose log.
        campaigns: those whose policies can carry prices.
        rules: capacity and budget rules.
        now: the present.
        whole: whether all questions of some recipients are wanted too.
    """
    recipients, days = Recipients(), [0] * (LOOK_BACK // _DAY)
    took = {rule.rule_id: (0, 0) for rule in rules}
    oldest = now

    def questions() -> Iterator[Decision]:
        nonlocal oldest
        for decision in _since(reader, workspace_id, now - LOOK_BACK):
            asked = decision.campaign_id in campaigns and decision.group == "treated" and decision.mode == "live"
            for rule_id, amount in _amounts(decision, rules, now - SETTLED):
                mine, everybody = took[rule_id]
                took[rule_id] = mine + amount * asked, everybody + amount
            if asked:
                oldest = decision.decided_at
                days[min(len(days) - 1, (now - decision.decided_at) // _DAY)] += 1
                if whole:
                    recipients.add(decision)
                yield decision

    # Ids are keyed hashes: the smallest are a random sample, and the same one however often it is asked for.
    sample = heapq.nsmallest(SAMPLE, questions(), key=lambda d: d.decision_id)
    full = days[: max(1, (now - oldest) // _DAY)]
    typical = sum(n * n for n in full) / sum(full) if sum(full) else 0.0
    busy = typical / (sum(full) / len(full)) if typical else 1.0
    return Past(tuple(sample), typical, busy, tuple(recipients.decisions()), took)


def _amounts(decision: Decision, rules: Sequence[Rule], since: datetime) -> Iterator[tuple[str, int]]:
    """What a decision's message takes of each rule, if it is for ``since`` or later."""
    message = message_of(decision)
    if message is None or message.at < since:
        return
    for rule in rules:
        found = taken(rule, message)
        if found is not None:
            yield rule.rule_id, found[1]


def _since(reader: Reader, workspace_id: str, since: datetime) -> Iterator[Decision]:
    cursor: str | None = None
    while True:
        page = reader.decisions(workspace_id, limit=_PAGE, cursor=cursor)
        for decision in page.items:
            if decision.decided_at < since:
                return
            if not decision.imported:
                yield decision
        cursor = page.cursor
        if cursor is None:
            return


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8, person=b"sendtide.prices").digest())
