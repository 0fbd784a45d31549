"""A training run ends as what became of its campaigns tells: published, rejected, skipped."""

from __future__ import annotations

from typing import Any

import pytest

from optimizer.service import training
from optimizer.service.training import carry_out
from optimizer.service.wiring import Services
from storage.policies import TrainingRun
from tests.service.conftest import WORKSPACE, FakeClock


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
