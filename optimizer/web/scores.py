"""Scores: the chance of an outcome, for retargeting lists."""

from __future__ import annotations

from typing import Any

from optimizer.bandit.localtime import at_zone
from optimizer.errors import Invalid, SendtideError
from optimizer.service.requests import ScoreRequest
from optimizer.service.scores import Score, Scorer
from optimizer.web import examples, problems
from optimizer.web.operation import Answer, Call, Operations
from optimizer.web.schemas.scores import ScoreRowIn, ScoresIn, ScoresOut
from optimizer.web.validation import load

api = Operations("scores", "Learn")
_ROW = ScoreRowIn()


@api.operation(
    "POST",
    "/v1/scores",
    "Score recipients",
    body=ScoresIn,
    batch=True,
    rows="recipients",
    answers={200: ScoresOut},
    scope="read",
    problems=(404, 409),
    example=examples.SCORES,
)
def score_recipients(call: Call) -> Answer:
    """The calibrated chance of an outcome for each recipient without a message, with the best one, and the uplift
    between the two with its 95 % interval; one that holds 0 shows no effect. The chance with a message allows for not
    knowing which is best: it averages over the posterior's draws what each draw's best message has. Local hours of
    the day at which fewer than 50 of the campaign's messages were sent are left out (where none has so many: fewer than
    half of those at the hour that has the most). Where fewer than 100 decisions without a message have told of the
    outcome (an imported history of sends has none) nothing is known of the first and the uplift: they are null for all,
    and `lacking` says what is missing. Consent closes channels; caps, quiet hours and other rules are left to the
    decision. Nothing is stored or reserved, so the scope is `read`. 409 with the code `no_model`: the campaign has
    learned nothing yet. A bad row never spoils the others; whoever was erased is one, with the code `erased`."""
    told = call.loaded
    scorer = Scorer.of(call.services, call.workspace_id, told["campaign_id"], told["outcome"])
    shown = [_outcome(one, index) for index, one in enumerate(scorer.scores(_rows(told["recipients"])))]
    facts = {"campaign_id": told["campaign_id"], "outcome": told["outcome"], "policy_id": scorer.policy_id}
    return Answer({**facts, "lacking": scorer.lacking, "scores": shown})


def _rows(given: list[Any]) -> list[ScoreRequest | SendtideError]:
    requests: list[ScoreRequest | SendtideError] = []
    for index, row in enumerate(given):
        try:
            requests.append(load(_ROW, row, f"recipients.{index}."))
        except Invalid as error:
            requests.append(error)
    return requests


def _outcome(one: Score | SendtideError, index: int) -> dict[str, Any]:
    return _score(one) if isinstance(one, Score) else problems.of_error(one, index=index)


def _score(s: Score) -> dict[str, Any]:
    best = s.send_at and {
        "variant_id": s.variant_id,
        "channel": s.channel,
        "send_at": s.send_at,
        "send_at_local": at_zone(s.send_at, s.timezone),
    }
    chances = {
        "without_message": s.without_message,
        "with_message": s.with_message,
        "uplift": s.uplift,
        "uplift_low": s.uplift_low,
        "uplift_high": s.uplift_high,
    }
    return {"recipient_id": s.recipient_id, **chances, "best": best}
