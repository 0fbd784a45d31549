"""The first page: is it healthy, is it paying."""

from __future__ import annotations

from flask import Response

from optimizer.web.console.pages import Visit, console


@console.page("")
def overview(visit: Visit) -> Response:
    """How the workspace stands."""
    with visit.services.store.read() as reader:
        workspace = reader.workspace(visit.workspace_id)
        campaigns = reader.campaigns(visit.workspace_id, limit=100)
        newest = reader.decisions(visit.workspace_id, limit=1)
    return visit.show(
        "overview.html",
        workspace=workspace,
        campaigns=[c for c in campaigns.items if c.status == "active"],
        newest=newest.items[0] if newest.items else None,
    )
