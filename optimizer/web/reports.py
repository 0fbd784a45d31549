"""Reports of campaigns."""

from __future__ import annotations

from optimizer.service.report import report
from optimizer.web.operation import Answer, Call, Operations
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
