"""Faults for a service under test: each switches one enforcement off, and the audit must find what comes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import get_args
from unittest import mock

from optimizer.bandit import consent, requires
from optimizer.bandit.localtime import zone
from optimizer.service import displace, drafting
from optimizer.service.catalog import Catalog, View
from storage.log import Decision
from storage.port import Reader
from storage.records import Campaign
from storage.rules import Cap, Rule, RuleKind

#: Kinds of rules whose rules a mutant forgets, and what else is enforced.
OF_RULES: tuple[str, ...] = get_args(RuleKind)
OTHERS = ("adapt", "requires", "consent", "suppression", "timezone", "priority")
KINDS = (*OF_RULES, *OTHERS)

_real_view, _real_newest = Catalog.view, Catalog.newest


@contextlib.contextmanager
def mutated(kind: str | None) -> Iterator[None]:
    """Switches the enforcement of one of ``KINDS`` off in this process; None leaves it alone."""
    if kind is None:
        yield
        return
    with _FAULTS[kind]() if kind in _FAULTS else _forgetting(lambda rule: None if rule.kind == kind else rule):
        yield


@contextlib.contextmanager
def _forgetting(change: Callable[[Rule], Rule | None]) -> Iterator[None]:
    """Decisions see the rules as ``change`` gives them back; None = not at all."""

    def changed(found: View) -> View:
        rules = (change(rule) for rule in found.rules)
        return replace(found, rules=tuple(rule for rule in rules if rule is not None))

    def view(self: Catalog, reader: Reader, workspace_id: str, *, keep: bool = True) -> View:
        return changed(_real_view(self, reader, workspace_id, keep=keep))

    def newest(self: Catalog, workspace_id: str) -> View | None:
        found = _real_newest(self, workspace_id)
        return None if found is None else changed(found)

    with mock.patch.multiple(Catalog, view=view, newest=newest):
        yield


def _unadapted(rule: Rule) -> Rule:
    cap = rule.parameters
    return replace(rule, parameters=replace(cap, adapt=None)) if isinstance(cap, Cap) else rule


def _anyone(
    decisions: Iterable[Decision],
    campaign: Campaign,  # noqa: ARG001 - as what it stands in for
    standing: Callable[[str], Campaign | None],  # noqa: ARG001
    now: datetime,
) -> tuple[Decision, ...]:
    """Every reservation may be displaced, whatever its campaign's priority."""
    return tuple(d for d in decisions if d.status == "reserved" and d.send_at is not None and d.send_at > now)


def _nothing(*_: Sequence[object]) -> None:
    """No channel is closed."""


_FAULTS: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
    "adapt": partial(_forgetting, _unadapted),
    "requires": partial(mock.patch.object, requires, "opening", lambda *_: 0),
    "consent": partial(mock.patch.object, consent, "not_agreed", _nothing),
    "suppression": partial(mock.patch.object, consent, "suppressed", _nothing),
    "timezone": partial(mock.patch.object, drafting, "resolve_zone", lambda *_: (zone("UTC"), "default")),
    "priority": partial(mock.patch.object, displace, "weaker", _anyone),
}
