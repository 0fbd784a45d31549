"""Asks for decisions, puts rules, and lets something happen between a decision's read and its write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from optimizer.service import setup
from optimizer.service.decide import Decider
from optimizer.service.requests import DecisionRequest
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.rules import Rule, RuleKind, RuleParameters, Selector
from tests.service.conftest import WORKSPACE


def ask(services: Services, recipient: str = "u1", campaign: str = "spring", **fields: object) -> Decision:
    """One decision."""
    request = DecisionRequest(campaign_id=campaign, recipient_id=recipient, **fields)  # type: ignore[arg-type]
    return services.decider.decide(WORKSPACE, request)[0]


def ask_all(services: Services, requests: Sequence[DecisionRequest], run: str = "run1") -> list[Decision]:
    """A batch, every row of which is decided."""
    answers = services.decider.decide_batch(WORKSPACE, requests, run)
    decided = [answer for answer in answers if isinstance(answer, Decision)]
    assert len(decided) == len(requests)
    return decided


def another(services: Services) -> Services:
    """The service as another process has it: callers of one process are served one group after the other."""
    parts = (services.store, services.policies, services.catalog, services.salt, services.clock)
    return replace(services, decider=Decider(*parts))


def put_rule(
    services: Services, rule_id: str, kind: RuleKind, parameters: RuleParameters, **fields: Selector | bool
) -> Rule:
    """Stores a rule."""
    rule = Rule(WORKSPACE, rule_id, kind, parameters, **fields)  # type: ignore[arg-type]
    return setup.put_rule(services, rule)[0]


def meanwhile(services: Services, monkeypatch: pytest.MonkeyPatch, event: Callable[[], object]) -> None:
    """Lets ``event`` happen once, after the next decision's read and before its write."""
    real = services.store.write

    def write(work: object, *, recipients: object = ()) -> object:
        monkeypatch.setattr(services.store, "write", real)
        event()
        return real(work, recipients=recipients)  # type: ignore[arg-type]

    monkeypatch.setattr(services.store, "write", write)


def stored(services: Services, decision: Decision) -> Decision:
    """The decision as it stands now."""
    with services.store.read() as reader:
        found = reader.decision(WORKSPACE, decision.decision_id)
    assert found is not None
    return found
