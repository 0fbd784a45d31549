"""Carrying out a claimed training run. Importing this imports torch: only processes that train do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optimizer.service.canary import watch
from optimizer.service.refreshing import refresh
from optimizer.service.retrain import retrain
from optimizer.service.runs import Ended
from optimizer.service.wiring import Services
from storage.policies import TrainingRun


def carry_out(services: Services, run: TrainingRun) -> Ended:
    """Looks at the canaries, then retrains or refreshes as the run says; published when any campaign's policy is."""
    watched = watch(services, run.workspace_id, run.campaign_id)
    if run.kind == "retrain":
        verdicts = retrain(services, run.workspace_id, run.campaign_id, run)
    else:
        verdicts = refresh(services, run.workspace_id, run.campaign_id)
    return Ended("published" if _any_published(verdicts) else "rejected", [*watched, *verdicts])


def _any_published(verdicts: Sequence[dict[str, Any]]) -> bool:
    return any(verdict["decision"] == "publish" for verdict in verdicts)
