"""A training run ends as what became of its campaigns tells: published, rejected, skipped."""

from __future__ import annotations

from typing import Any

import pytest

from optimizer.errors import Conflict
from optimizer.service import runs, training
from optimizer.service.training import carry_out
from optimizer.service.wiring import Services
from storage.policies import TrainingRun
from tests.service.conftest import WORKSPACE, FakeClock
from tests.service.test_retrain import audience, shop

__all__ = ["shop"]


@pytest.mark.parametrize(
    ("decisions", "status"),
    [
        (["publish", "reject"], "published"),
        (["unchanged", "repriced"], "published"),
        (["skipped", "reject"], "rejected"),
        (["superseded"], "rejected"),
        (["refused", "waits"], "rejected"),
        (["skipped", "waits", "unchanged"], "skipped"),
        ([], "skipped"),
    ],
)
@pytest.mark.parametrize("kind", ["retrain", "refresh"])
def test_a_run_ends_as_its_verdicts_tell(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, kind: Any, decisions: list[str], status: str
) -> None:
    told = [{"campaign_id": f"c{n}", "decision": decision} for n, decision in enumerate(decisions)]
    monkeypatch.setattr(training, kind, lambda *_: told)
    ended = carry_out(services, TrainingRun(WORKSPACE, "run_1", kind, "running", clock.now))
    assert (ended.status, list(ended.verdicts)) == (status, told)


@pytest.mark.parametrize("effect", [0.5, 0.0])
def test_a_run_that_was_taken_for_dead_publishes_and_rejects_nothing_more(
    shop: Services, clock: FakeClock, effect: float
) -> None:
    audience(shop, clock, 800, seed=1, effect=effect)
    suspended = runs.start_now(shop, WORKSPACE, None, "one", "cli")
    clock.forward(minutes=1)
    runs.start_now(shop, WORKSPACE, None, "other", "schedule")
    with pytest.raises(Conflict, match="taken for dead"):
        carry_out(shop, suspended)
    with shop.store.read() as reader:
        assert reader.pointer(WORKSPACE, "spring") is None
        assert not reader.policies(WORKSPACE, limit=9).items
