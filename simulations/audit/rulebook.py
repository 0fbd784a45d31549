"""Which rules were in force at a reservation, from the history of every rule."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from simulations.audit.holdings import Held
from storage.rules import Rule, Selector


def selects(selector: Selector, message: Held) -> bool:
    """Whether a selector speaks of this message: each list that is given must agree."""
    wanted = (
        (selector.channels, message.channel),
        (selector.categories, message.category),
        (selector.campaigns, message.campaign_id),
    )
    unwanted = (
        (selector.except_channels, message.channel),
        (selector.except_categories, message.category),
        (selector.except_campaigns, message.campaign_id),
    )
    if any(names is not None and value not in names for names, value in wanted):
        return False
    return not any(names is not None and value in names for names, value in unwanted)


def masks(rule: Rule) -> bool:
    """Whether a version of a rule masked anything: not switched off, archived or only reporting."""
    return rule.enabled and not rule.archived and not rule.dry_run


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one rule at a position: the version in force; ``lost``: it was another, no longer known."""

    rule: Rule
    lost: bool = False


class Rulebook:
    """Every version of every rule, and which of them was in force when.

    A version is in force for decisions above its ``changed_after``, until the next version's. Of a rule whose first
    versions are not stored it is only known that there was another before.
    """

    def __init__(self, history: Iterable[Rule]) -> None:
        by_id: dict[str, list[Rule]] = defaultdict(list)
        for rule in sorted(history, key=lambda r: r.version):
            by_id[rule.rule_id].append(rule)
        self.versions: dict[str, Sequence[Rule]] = dict(sorted(by_id.items()))
        self._marks = sorted({rule.changed_after for versions in by_id.values() for rule in versions})
        self._standing: dict[int, tuple[Standing, ...]] = {}

    def standing(self, position: int) -> tuple[Standing, ...]:
        """The rules that stood at a position, those that masked nothing left out."""
        stretch = bisect_left(self._marks, position)
        if stretch not in self._standing:
            found = (standing_of(versions, position) for versions in self.versions.values())
            self._standing[stretch] = tuple(one for one in found if one is not None and (one.lost or masks(one.rule)))
        return self._standing[stretch]


def standing_of(versions: Sequence[Rule], position: int) -> Standing | None:
    """The version of a rule that was in force at a position (versions ascend); None before its first."""
    known = [rule for rule in versions if rule.changed_after < position]
    if known:
        return Standing(known[-1])
    return Standing(versions[0], lost=True) if versions[0].version > 1 else None


def binds(rule: Rule, message: Held) -> bool:
    """Whether a rule in force had to be kept by this reservation."""
    return message.judged and rule.rule_id not in message.overridden and selects(rule.applies_to, message)
