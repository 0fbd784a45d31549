"""Scores: how likely an outcome is, with and without a message."""

from __future__ import annotations

from typing import Any

from marshmallow import fields, post_load

from optimizer.service.requests import ScoreRequest
from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Body, Problem, Shown, rows
from optimizer.web.schemas.containers import Context, Part
from optimizer.web.schemas.decisions import RecipientPatchIn
from optimizer.web.schemas.fields import Id, Number, Text, Time


class ScoreRowIn(Body):
    """One recipient. What is told inline goes over what is stored, and nothing of it is stored."""

    recipient_id = Id("Left out or unknown: scored by what is inline.", load_default=None, allow_none=True)
    context = Context("What is known of this moment; the model sees it over the attributes.", load_default=dict)
    recipient = Part(RecipientPatchIn, load_default=None)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> ScoreRequest:
        return ScoreRequest(**data)


class ScoresIn(Body):
    """Whom to score. Rows are checked one by one, see `ScoreRowIn`."""

    outcome = Id("converted, clicked, … any outcome that the model predicts.", required=True)
    campaign_id = Id("Whose model, variants, channels and default window.", required=True)
    recipients = rows(ScoreRowIn)


class BestMessageOut(Shown):
    """The message that makes the outcome likeliest."""

    variant_id = Id(required=True)
    channel = Id(required=True)
    send_at = Time(required=True)
    send_at_local = Time("The same on the recipient's wall clock.", required=True)


def _chance(about: str, *, least: float = 0.0) -> Number:
    return Number(about, minimum=least, maximum=1, required=True, allow_none=True)


class ScoreOut(Shown):
    """Calibrated chances of the outcome for one recipient."""

    recipient_id = Id("As it was asked; null: scored by what was inline alone.", required=True, allow_none=True)
    without_message = _chance("If nothing is sent; null: not known, see `lacking`.")
    with_message = _chance("With the best message, as far as it is known which; null: no channel is open.")
    uplift = _chance("with_message − without_message; null where either is.", least=-1.0)
    uplift_low = _chance("Lower end of the uplift's 95 % interval; null where `uplift` is.", least=-1.0)
    uplift_high = _chance("Upper end; an interval that holds 0 shows no effect.", least=-1.0)
    best = fields.Nested(BestMessageOut, required=True, allow_none=True)


class ScoresOut(Shown):
    """Scores in the order of the rows."""

    campaign_id = Id(required=True)
    outcome = Id(required=True)
    policy_id = Text("The policy whose model this is.", longest=limits.ID, required=True)
    lacking = Text(
        "Why `without_message` and `uplift` are null for all, and what to do; null: they are known.",
        longest=1_024,
        required=True,
        allow_none=True,
    )
    scores = fields.List(
        fields.Raw(metadata={"anyOf": [ScoreOut, Problem]}), required=True, metadata={"maxItems": limits.ROWS}
    )
