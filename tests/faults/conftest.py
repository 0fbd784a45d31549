"""How long faults last."""

from __future__ import annotations

import pytest


@pytest.fixture
def lock_seconds(request: pytest.FixtureRequest) -> float:
    """Longer than a write waits for its turn; ``--whole`` takes the 30 s of which the documentation speaks."""
    return 30.0 if request.config.getoption("whole") else 6.0
