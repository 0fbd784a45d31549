"""In which form outcomes were reported that need no message, and which comparisons of groups that spoils.

An event that names a decision counts for it alone; one that names its recipient counts for each of their decisions in
whose window it lies. Either form is fair to every group while all events have it. But who names the decision where
somebody came from a message, and else the recipient, can't name one for a holdout: what is worth one order among the
treated is worth several there, and groups that buy alike seem to differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from optimizer.bandit.rewards import MESSAGE_OUTCOMES
from optimizer.service.compared import Compared
from storage.log import Group
from storage.records import Campaign

#: A form that no more than this share of a group's events have, or one, spoils no more than that.
FEW: Final = 0.01
#: So many events of a group are expected before none of them is strange (none of 5 comes by chance in 1 of 150 cases).
STRANGE: Final = 5.0


@dataclass(frozen=True)
class Forms:
    """How many events that count for some compared decisions name the decision, and how many the recipient alone.

    ``decisions`` is how many those are. One event counts once, however many decisions it counts for; in parts where
    some of those are not compared.
    """

    by_decision: float
    by_recipient: float
    decisions: int

    @property
    def events(self) -> float:
        """All of them."""
        return self.by_decision + self.by_recipient


#: By outcome and group.
Reported = Mapping[str, Mapping[Group, Forms]]


def reported(campaign: Campaign, compared: Compared) -> Reported:
    """The forms of what is of worth, needs no message and was reported of compared decisions."""
    found: dict[str, dict[Group, Forms]] = {}
    for name, weight in sorted(campaign.objective.items()):
        if name in MESSAGE_OUTCOMES or not (weight.fixed or weight.per_value):
            continue
        outcome = compared.ledger.outcomes[name]
        forms = {
            group: Forms(
                float(np.sum(outcome.named[part.rows])), float(np.sum(outcome.shared[part.rows])), int(part.rows.size)
            )
            for group, part in compared.groups.items()
            if part.rows.size
        }
        if any(one.events for one in forms.values()):
            found[name] = forms
    return found


def doubts(found: Reported, control: Group) -> list[dict[str, str]]:
    """Why a comparison of the treated with a control group can't be believed, by outcome.

    ``two_forms``: some events of the two groups name decisions and some recipients. ``unseen``: those of the treated
    name decisions, and of the holdout, which can hardly be named, there is none where ``STRANGE`` were to be expected.
    """
    told = []
    for name, groups in found.items():
        if not {"treated", control} <= groups.keys():
            continue
        doubt = _doubt(groups["treated"], groups[control], control)
        if doubt is not None:
            told.append({"outcome": name, "doubt": doubt})
    return told


def _doubt(treated: Forms, other: Forms, control: Group) -> str | None:
    both = (treated, other)
    if not (all(_few(one.by_decision, one) for one in both) or all(_few(one.by_recipient, one) for one in both)):
        return "two_forms"
    expected = treated.by_decision * other.decisions / treated.decisions
    return "unseen" if control == "holdout" and not other.events and expected >= STRANGE else None


def _few(events: float, of: Forms) -> bool:
    return events <= max(1.0, FEW * of.events)


def told_of(found: Reported) -> list[dict[str, Any]]:
    """The counts for an answer."""
    return [
        {
            "outcome": name,
            "groups": {
                group: {"by_decision": round(one.by_decision), "by_recipient": round(one.by_recipient)}
                for group, one in groups.items()
            },
        }
        for name, groups in found.items()
    ]
