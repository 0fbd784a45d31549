"""The console's navigation: every page that can be gone to directly, in order.

A new area is one line here, its words under ``nav`` in every language, and its module in ``console/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from flask import request, url_for

from storage.records import Scope


@dataclass(frozen=True, slots=True)
class Area:
    """One entry: the page it leads to, the endpoints that belong under it; who lacks its scope doesn't see it."""

    name: str
    endpoint: str
    members: tuple[str, ...] = ()
    scope: Scope = "read"


@dataclass(frozen=True, slots=True)
class Link:
    """An entry as a page shows it."""

    name: str
    address: str
    current: bool


AREAS: Final = (
    Area("overview", "overview"),
    Area("campaigns", "campaigns", ("campaign",)),
    Area("decisions", "decisions", ("decision",)),
    Area("recipients", "recipients", ("recipient", "confirm_erase", "erase_recipient")),
    Area("rules", "rules", ("rule", "confirm_switch", "new_rule", "edit_rule", "try_rule", "save_rule")),
    Area("policies", "policies", ("policy", "compare", "confirm_promote", "confirm_roll_back")),
    Area("training", "training", ("run",)),
    Area("data", "data"),
    Area("keys", "keys", ("make_key", "confirm_revoke"), scope="admin"),
    Area("start", "start", ("make_campaign", "make_source")),
)


def links(may: Callable[[Scope], bool]) -> list[Link]:
    """The navigation of the page that is being made, for somebody who may do this."""
    at = (request.endpoint or "").removeprefix("console.")
    shown = [area for area in AREAS if may(area.scope)]
    return [Link(a.name, url_for(f"console.{a.endpoint}"), at == a.endpoint or at in a.members) for a in shown]
