"""What rivals were tuned to, on seeds that no comparison uses, and how every setting that was tried came out.

``sendtide simulate SCENARIO --tune`` writes ``tuned.json`` beside this file; a comparison reads it and prints it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import orjson

PATH = Path(__file__).with_name("tuned.json")
#: Scenarios without a tuning of their own use this one's: their worlds differ in one thing each.
FALLBACK = "stationary"


@cache
def stored(path: Path = PATH) -> Mapping[str, Any]:
    """The tunings of a file."""
    return orjson.loads(path.read_bytes()) if path.exists() else {}


def write(everything: Mapping[str, Any], path: Path = PATH) -> None:
    """Makes these the tunings of a file."""
    path.write_bytes(orjson.dumps(everything, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
    stored.cache_clear()


def record(policy: str, scenario: str) -> Mapping[str, Any] | None:
    """The tuning that holds for a policy in a scenario: ``scenario, options, tried, seeds, decisions``; None = none."""
    for name in (scenario, FALLBACK):
        found = stored().get(name, {}).get(policy)
        if found is not None:
            return {"scenario": name, **found}
    return None


def own(policy: str, scenario: str) -> Mapping[str, Any]:
    """The tuning of a policy in this very scenario; empty where there was none."""
    found: Mapping[str, Any] = stored().get(scenario, {}).get(policy, {})
    return found


def options(policy: str, scenario: str) -> dict[str, Any]:
    """The options found best; empty when the policy was not tuned."""
    found = record(policy, scenario)
    return dict(found["options"]) if found is not None else {}


def store(scenario: str, policy: str, found: Mapping[str, Any]) -> None:
    """Keeps a tuning."""
    everything: dict[str, Any] = orjson.loads(PATH.read_bytes()) if PATH.exists() else {}
    everything.setdefault(scenario, {})[policy] = dict(found)
    write(everything)
