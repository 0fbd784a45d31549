"""What ``sendtide retrain`` prints of a verdict."""

from __future__ import annotations

import pytest

from optimizer.cli.retrain import _line


@pytest.mark.parametrize(
    ("done", "told"),
    [
        ({"left_out": True, "declared": False}, "  leaking (left out): client, "),
        ({"left_out": False, "declared": True}, "  leaking (kept, since it was declared): client, "),
        ({"left_out": False}, "  leaking: client, "),
    ],
)
def test_a_finding_says_what_was_done(done: dict[str, bool], told: str) -> None:
    finding = {"feature": "client", "problem": "leaking", "figure": 0.97, "limit": 0.9, "detail": "certain", **done}
    verdict = {"campaign_id": "c", "decision": "publish", "rows": 900, "data": {"findings": [finding]}}
    assert told in _line(verdict)
