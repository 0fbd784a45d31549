"""What a rule would have masked."""

from __future__ import annotations

from typing import get_args

from marshmallow import fields

from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Shown, moment, state
from optimizer.web.schemas.fields import Flag, Id, Whole
from storage.rules import RuleKind


def _count(about: str) -> Whole:
    return Whole(about, maximum=limits.POSITION, required=True)


class PreviewFiguresOut(Shown):
    """What a rule would have done to some decisions, beyond what was masked when they were made."""

    decisions = _count("Looked at.")
    touched = _count("Of which it would have masked an action.")
    actions = _count("That it would have masked; of a capacity or budget: the messages.")
    messages = _count("Planned or sent, that it would have masked.")
    silenced = _count("Decisions that no message would have been left to; of a capacity or budget: 0, not known.")


class CampaignPreviewOut(PreviewFiguresOut):
    """The decisions of one campaign."""

    campaign_id = Id(required=True)


class RulePreviewOut(PreviewFiguresOut):
    """All decisions that were looked at."""

    rule_id = Id(required=True)
    kind = state(get_args(RuleKind))
    since = moment("The first moment that was looked at.")
    until = moment()
    complete = Flag(
        "Whether these are all live decisions of the last seven days (if not, the newest), and all that was used "
        "before of a capacity or budget in their periods is known (if not, retention deleted some of it).",
        required=True,
    )
    by_campaign = fields.List(fields.Nested(CampaignPreviewOut), required=True)
