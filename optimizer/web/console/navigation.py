"""The console's navigation: every page that can be gone to directly, in order.

A new area is one line here, its words under ``nav`` in every language, and its module in ``console/__init__.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flask import request, url_for


@dataclass(frozen=True, slots=True)
class Area:
    """One entry: the page it leads to, and the endpoints that belong under it."""

    name: str
    endpoint: str
    members: tuple[str, ...] = ()


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
    Area("policies", "policies", ("policy", "compare", "confirm_promote", "confirm_roll_back")),
    Area("training", "training", ("run",)),
)


def links() -> list[Link]:
    """The navigation of the page that is being made."""
    at = (request.endpoint or "").removeprefix("console.")
    return [Link(a.name, url_for(f"console.{a.endpoint}"), at == a.endpoint or at in a.members) for a in AREAS]
