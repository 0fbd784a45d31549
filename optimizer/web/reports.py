"""Reports of campaigns."""

from __future__ import annotations

from optimizer.service.card import card
from optimizer.service.insights import insights
from optimizer.service.report import report
from optimizer.web.operation import Answer, Call, Operations
from optimizer.web.schemas.cards import InsightsOut, PolicyCardOut
from optimizer.web.schemas.reports import ReportOut, ReportQuery

api = Operations("reports", "Report")


@api.operation(
    "GET",
    "/v1/campaigns/{campaign_id}/report",
    "Report on a campaign",
    query=ReportQuery,
    answers={200: ReportOut},
    scope="read",
    problems=(404,),
)
def get_report(call: Call) -> Answer:
    """Value by group, lift over holdout, random and baseline by intention to treat, by variant, channel and hour, what
    rules masked, and whether the groups have the sizes that they should. Intervals are valid at any time of looking and
    count by recipient."""
    return Answer(report(call.services, call.workspace_id, call.path["campaign_id"], **call.query))


@api.operation(
    "GET",
    "/v1/campaigns/{campaign_id}/insights",
    "Read what the words of variants go with",
    answers={200: InsightsOut},
    scope="read",
    problems=(404, 409),
)
def get_insights(call: Call) -> Answer:
    """Which words and features of the active variants go with a higher response: what came of their messages, with
    bounds, and what the served model believes, which begins at no difference and for rare outcomes stays near it.
    409 with the code `no_model`: the campaign has learned nothing yet."""
    return Answer(insights(call.services, call.workspace_id, call.path["campaign_id"]))


@api.operation(
    "GET",
    "/v1/policies/{policy_id}/card",
    "Read a policy's card",
    answers={200: PolicyCardOut},
    scope="read",
    problems=(404,),
)
def get_policy_card(call: Call) -> Answer:
    """What it was trained on, which features matter to it, how its predictions compare with what came of them, the
    gate's verdict, and who put it into service."""
    return Answer(card(call.services, call.workspace_id, call.path["policy_id"]))
