"""Past questions as prices need them: what the last days' log tells of demand, and a sample of it.

A question is a decision that a policy drew or would have drawn, withheld ones and ``no_send`` included: leaving those
out would hide the very demand that a limit turned away. Whoever prices again and again keeps a ``Watched``, which reads
only what came since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import blake2b

from optimizer.service.record import message_of
from optimizer.service.stopped import stopped_whole
from storage.log import Decision, items_of
from storage.port import Reader
from storage.rules import Budget, Capacity, Rule
from storage.usage import period_of, taken

#: How far back demand is looked at: a whole week, so that each weekday counts once.
LOOK_BACK = timedelta(days=7)
#: Messages from this long ago on were decided within ``LOOK_BACK``, but for windows of more than two days.
SETTLED = LOOK_BACK - timedelta(days=2)
#: Questions that are scored anew at most. Their scores are kept, so the number costs in the first minute only.
SAMPLE = 4_000
#: Decisions are committed in nearly the order of their times; those of the last so long are read again.
LATE = timedelta(minutes=5)
_PAGE = 500
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Past:
    """What the last days' log tells of demand.

    Attributes:
        sample: questions at random, at most ``SAMPLE``.
        typical: how many questions a day has, as a question sees it: a week with a single busy day has its size.
        busy: that over the mean day's.
        whole: all questions of some recipients.
        taken: by rule, what the questions' messages took of it in the ``SETTLED`` span; what all decisions' did, but of
            campaigns that send no more; and what those took since the period began that the span begins in.
    """

    sample: tuple[Decision, ...]
    typical: float
    busy: float
    whole: tuple[Decision, ...]
    taken: Mapping[str, tuple[int, int, int]]


@dataclass
class Chosen:
    """Some of a stream's decisions: all those whose names hash low enough for about ``SAMPLE`` of them to be kept.

    Names are ids of decisions, for a sample of questions, or of recipients, for all questions of a sample of people. At
    any time everything in the span whose name lies ``below`` is here, so what is here is a random sample of it.
    """

    by_recipient: bool
    below: int = 1 << 64
    kept: dict[int, list[Decision]] = field(default_factory=dict)  # by the hash of the name
    size: int = 0
    oldest: datetime | None = None

    def add(self, decision: Decision) -> None:
        """Takes a decision in if its name hashes low; lets names go when there are twice as many as wanted."""
        name = _hash(decision.recipient_id if self.by_recipient else decision.decision_id)
        if name >= self.below:
            return
        self.kept.setdefault(name, []).append(decision)
        self.size += 1
        self.oldest = min(decision.decided_at, self.oldest or decision.decided_at)
        if self.size > 2 * SAMPLE and len(self.kept) > 1:
            self._let_go()

    def _let_go(self) -> None:
        for name in sorted(self.kept, reverse=True)[:-1]:
            self.below = name
            self.size -= len(self.kept.pop(name))
            if self.size <= SAMPLE:
                break

    def forget(self, before: datetime) -> None:
        """Drops what was decided before a time."""
        if self.oldest is None or self.oldest >= before:
            return
        left = {name: [d for d in mine if d.decided_at >= before] for name, mine in self.kept.items()}
        self.kept = {name: mine for name, mine in left.items() if mine}
        self.size = sum(len(mine) for mine in self.kept.values())
        self.oldest = min((d.decided_at for mine in self.kept.values() for d in mine), default=None)

    def decisions(self) -> tuple[Decision, ...]:
        """At most ``SAMPLE`` decisions (but all of one name together), lowest names first."""
        out: list[Decision] = []
        for name in sorted(self.kept):
            if out and len(out) + len(self.kept[name]) > SAMPLE:
                break
            out += self.kept[name]
        return tuple(out)


@dataclass
class Watched:
    """The last days' demand of one workspace, kept up to date by reading what came since.

    Args:
        campaigns: those whose policies can carry prices.
        rules: capacity and budget rules.
        whole: whether all questions of some recipients are wanted too.
    """

    campaigns: frozenset[str]
    rules: tuple[Rule, ...]
    whole: bool
    until: datetime | None = None
    recent: dict[str, datetime] = field(default_factory=dict)
    asked: dict[datetime, int] = field(default_factory=dict)
    took: dict[tuple[str, str, datetime], tuple[int, int]] = field(default_factory=dict)
    sample: Chosen = field(default_factory=lambda: Chosen(by_recipient=False))
    people: Chosen = field(default_factory=lambda: Chosen(by_recipient=True))

    def read(self, reader: Reader, workspace_id: str, now: datetime) -> Past:
        """Reads what came since the last time (at first the whole span), and tells what the span shows now."""
        since = now - LOOK_BACK
        first = since if self.until is None else max(since, self.until - LATE)
        for decision in _since(reader, workspace_id, first):
            if decision.decision_id not in self.recent:
                self._add(decision)
        self.until = now
        self.recent = {name: at for name, at in self.recent.items() if at >= now - LATE}
        self._forget(since)
        return self._past(now, self._ended(reader, workspace_id))

    @property
    def thin(self) -> bool:
        """Whether demand has fallen so far that the sample should be drawn anew from the whole span."""
        return self.sample.below < 1 << 64 and self.sample.size < SAMPLE // 2

    def _add(self, decision: Decision) -> None:
        self.recent[decision.decision_id] = decision.decided_at
        asks = decision.campaign_id in self.campaigns and decision.group == "treated" and decision.mode == "live"
        message = message_of(decision)
        for rule in self.rules if message is not None else ():
            amount = taken(rule, message) if message is not None else None
            if message is not None and amount is not None:
                key = rule.rule_id, decision.campaign_id, _hour(message.at)
                mine, everybody = self.took.get(key, (0, 0))
                self.took[key] = mine + amount[1] * asks, everybody + amount[1]
        if asks:
            hour = _hour(decision.decided_at)
            self.asked[hour] = self.asked.get(hour, 0) + 1
            self.sample.add(decision)
            if self.whole:
                self.people.add(decision)

    def _forget(self, before: datetime) -> None:
        self.asked = {hour: count for hour, count in self.asked.items() if hour >= before - _HOUR}
        self.took = {key: amounts for key, amounts in self.took.items() if key[2] >= before}
        self.sample.forget(before)
        self.people.forget(before)

    def _ended(self, reader: Reader, workspace_id: str) -> frozenset[str]:
        """The campaigns that took of a rule and send no more, being archived or paused."""
        known = {name: reader.campaign(workspace_id, name) for name in {campaign for _, campaign, _ in self.took}}
        return frozenset(name for name, one in known.items() if one is None or stopped_whole(one) is not None)

    def _taken(self, now: datetime, ended: frozenset[str]) -> dict[str, tuple[int, int, int]]:
        """See ``Past.taken``."""
        rules, since = {rule.rule_id: rule for rule in self.rules}, now - SETTLED
        found = {name: [0, 0, 0] for name in rules}
        for (name, campaign, hour), (mine, everybody) in self.took.items():
            if campaign in ended:
                parameters = rules[name].parameters
                if isinstance(parameters, Capacity | Budget):
                    found[name][2] += everybody * (period_of(parameters, hour) >= period_of(parameters, since))
            elif hour >= since:
                found[name][0] += mine
                found[name][1] += everybody
        return {name: (mine, everybody, gone) for name, (mine, everybody, gone) in found.items()}

    def _past(self, now: datetime, ended: frozenset[str] = frozenset()) -> Past:
        days = [0] * (LOOK_BACK // _DAY + 1)
        for hour, count in self.asked.items():
            days[max(0, (now - hour - _HOUR) // _DAY)] += count
        span = max(1, min(LOOK_BACK, now - min(self.asked, default=now)) // _DAY)
        full = days[:span]
        # Of the day before these only a part is known, and left out, unless it had more questions than any of them: a
        # mailing that all were asked for at once is the demand, wherever the last days' borders fall.
        if span < LOOK_BACK // _DAY and days[span] > max(full):
            full = days[: span + 1]
        typical = sum(n * n for n in full) / sum(full) if sum(full) else 0.0
        return Past(
            sample=self.sample.decisions(),
            typical=typical,
            busy=max(1.0, typical * len(full) / sum(full)) if typical else 1.0,
            whole=self.people.decisions(),
            taken=self._taken(now, ended),
        )


def watched(
    known: dict[str, Watched], workspace_id: str, campaigns: Set[str], rules: Sequence[Rule], *, whole: bool
) -> Watched:
    """The workspace's demand as it is known; begun anew where the campaigns or rules are others, or it became thin."""
    one, wanted = known.get(workspace_id), (frozenset(campaigns), tuple(rules), whole)
    if one is None or one.thin or (one.campaigns, one.rules, one.whole) != wanted:
        one = known[workspace_id] = Watched(*wanted)
    return one


def _since(reader: Reader, workspace_id: str, since: datetime) -> Iterator[Decision]:
    for decision in items_of(lambda at: reader.decisions(workspace_id, limit=_PAGE, cursor=at)):
        if decision.decided_at < since:
            return
        if not decision.imported and not decision.snapshot.erased:
            yield decision


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8, person=b"sendtide.prices").digest())
