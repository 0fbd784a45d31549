"""The console: what the service does, for people. Pages made on the server, a little script, nothing from elsewhere.

``pages`` guards every page, ``entry`` signs in and out, ``navigation`` lists the areas, ``words/`` holds the languages;
every other module is an area.
"""

from optimizer.web.console import (
    campaigns,
    data,
    decisions,
    entry,
    keys,
    overview,
    policies,
    recipients,
    rules,
    start,
    training,
)
from optimizer.web.console.pages import console

__all__ = [
    "campaigns",
    "console",
    "data",
    "decisions",
    "entry",
    "keys",
    "overview",
    "policies",
    "recipients",
    "rules",
    "start",
    "training",
]
