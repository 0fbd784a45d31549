"""The rules that bind one campaign's messages on some channels, prepared once: what no recipient changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.caps import Caps
from storage.records import Campaign
from storage.rules import Blackout, Budget, Cap, Capacity, Fatigue, QuietHours, Rule

#: More rulebooks than this are not kept.
_KEPT = 512


def reports(rule: Rule) -> bool:
    """Whether the rule is told of: it masks, or is a dry run."""
    return rule.enabled and not rule.archived


def acts(rule: Rule) -> bool:
    """Whether the rule masks what it binds."""
    return rule.enabled and not rule.archived and not rule.dry_run


def binds(rule: Rule, channels: Sequence[str], campaign: Campaign) -> tuple[bool, ...]:
    """(C,) whether the rule binds a message of the campaign on each channel."""
    admits, category, campaign_id = rule.applies_to.admits, campaign.category, campaign.campaign_id
    return tuple(admits(channel=c, category=category, campaign_id=campaign_id) for c in channels)


class Clocked(NamedTuple):
    """A rule that closes slots, whatever the variant: any but a budget."""

    rule: Rule
    parameters: Cap | QuietHours | Blackout | Capacity


class Spending(NamedTuple):
    """A budget with the channels that it binds (C,)."""

    rule: Rule
    budget: Budget
    on: tuple[bool, ...]


class Rulebook:
    """The rules that bind a campaign's messages on at least one of some channels, and are no part of the policy.

    Attributes:
        rules: all that were given.
        order: the ids of those that bind, in the rules' order.
        slotwise: the R rules that close slots, the caps first.
        caps: the caps, judged together.
        channels: (R,) int64, how many channels each binds.
        closes: (C, R, 1, 1) bool, which channel each closes: none if it is a dry run.
        budgets: the budgets.
    """

    def __init__(self, rules: Sequence[Rule], channels: tuple[str, ...], campaign: Campaign) -> None:
        self.rules = tuple(rules)
        bound = [(rule, on) for rule in rules if reports(rule) and any(on := binds(rule, channels, campaign))]
        bound = [one for one in bound if not isinstance(one[0].parameters, Fatigue)]
        self.order = tuple(rule.rule_id for rule, _ in bound)
        capped = [(Clocked(r, p), on) for r, on in bound if isinstance(p := r.parameters, Cap)]
        others = [
            (Clocked(r, p), on) for r, on in bound if isinstance(p := r.parameters, QuietHours | Blackout | Capacity)
        ]
        self.slotwise = tuple(one for one, _ in capped + others)
        self.caps = Caps([(r.parameters, r.counts) for r, _ in bound if isinstance(r.parameters, Cap)])
        admits: NDArray[np.bool_] = np.array([on for _, on in capped + others], np.bool_)
        admits = admits.reshape(len(self.slotwise), len(channels))
        acting = np.array([acts(one.rule) for one in self.slotwise], np.bool_)
        self.channels = admits.sum(axis=1)
        self.closes = (admits & acting[:, None]).T[:, :, None, None]
        self.budgets = tuple(Spending(r, p, on) for r, on in bound if isinstance(p := r.parameters, Budget))


_books: dict[object, Rulebook] = {}


def rulebook(rules: Sequence[Rule], channels: tuple[str, ...], campaign: Campaign) -> Rulebook:
    """The rulebook of these very rules for a campaign; kept, since most questions meet the same rules."""
    # A kept book holds its rules, so their ids aren't given to others as long as it is kept.
    key = tuple(map(id, rules)), channels, campaign.category, campaign.campaign_id
    book = _books.get(key)
    if book is None:
        if len(_books) >= _KEPT:
            _books.clear()
        book = _books[key] = Rulebook(rules, channels, campaign)
    return book
