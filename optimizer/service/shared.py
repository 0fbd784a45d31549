"""What is used of limits that all recipients share, and a cheap test whether that closes the same as before.

The counters move with every commit, anywhere. What they close moves seldom: when a capacity's period fills up, or when
so little is left of a budget that some message may be too dear. Only those places are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from optimizer.bandit.eligibility import Question, scarcity
from storage.log import Message
from storage.records import Campaign
from storage.rules import MICROS, Capacity, Rule
from storage.usage import Usage, limit_in, scarce, taken

#: A rule and a period of it.
Place = tuple[str, int]


@dataclass(frozen=True)
class Shared:
    """One state of what is used; ``tight`` are the places where little is left, with what that is.

    Two states with equal ``tight`` close the same actions and open again at the same times, for messages that cost no
    more than ``dearest`` (micros).
    """

    rules: tuple[Rule, ...] = ()
    dearest: int = 0
    usage: Usage = field(default_factory=dict)
    tight: Mapping[Place, int] = field(default_factory=dict)

    @classmethod
    def of(cls, rules: Sequence[Rule], usage: Usage, dearest: int) -> Shared:
        """The state of these rules; those that share no limit are left out."""
        own = tuple(rule for rule in rules if scarce(rule))
        return cls(own, dearest)._with(usage)

    def booked(self, added: Iterable[Message], removed: Iterable[Message]) -> Shared:
        """The state once these messages count, and those no longer do.

        What is removed may lie in a period that was not read: then it is in nobody's window, and its sum means nothing.
        """
        changed: dict[Place, int] = {}
        for sign, messages in ((1, added), (-1, removed)):
            for message in messages:
                for rule in self.rules:
                    found = taken(rule, message)
                    if found is not None:
                        place = (rule.rule_id, found[0])
                        changed[place] = changed.get(place, self.usage.get(place, 0)) + sign * found[1]
        return self._with(changed) if changed else self

    def _with(self, changed: Mapping[Place, int]) -> Shared:
        by_id = {rule.rule_id: rule for rule in self.rules}
        tight = {place: left for place, left in self.tight.items() if place not in changed}
        for place, used in changed.items():
            left = _tight(by_id[place[0]], place[1], used, self.dearest)
            if left is not None:
                tight[place] = left
        return Shared(self.rules, self.dearest, {**self.usage, **changed}, tight)

    def closes_as(self, other: Shared, question: Question) -> bool:
        """Whether both close the same actions of a question, rule by rule, so that its reasons are the same too.

        Both must know the periods of the question's window. A dry run closes nothing, and only its report is at stake:
        where it may have changed, the answer is no.
        """
        if self is other or self.tight == other.tight:
            return True
        places = [p for p in {**self.tight, **other.tight} if self.tight.get(p) != other.tight.get(p)]
        moved = [rule for rule in self.rules if any(rule.rule_id == place[0] for place in places)]
        return not any(rule.dry_run for rule in moved) and all(
            scarcity(question, (rule,), self.usage) == scarcity(question, (rule,), other.usage) for rule in moved
        )


NOTHING_SHARED = Shared()


def dearest_of(campaigns: Iterable[Campaign]) -> int:
    """At least what the dearest message of these campaigns costs, in micros."""
    costs = [
        max((v.cost for v in campaign.variants), default=0.0) + max((c.cost for c in campaign.channels), default=0.0)
        for campaign in campaigns
    ]
    return int(MICROS * max(costs, default=0.0)) + 1


def _tight(rule: Rule, period: int, used: int, dearest: int) -> int | None:
    """What is left where it is so little that it closes something, or may; of a full capacity it's all the same."""
    parameters = rule.parameters
    if isinstance(parameters, Capacity):
        return 0 if used + 1 > limit_in(parameters, period) else None
    left = limit_in(parameters, period) - used  # type: ignore[arg-type]
    return left if left < dearest else None
