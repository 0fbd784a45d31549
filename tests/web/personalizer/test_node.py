"""Microsoft's JavaScript SDK of Azure Personalizer, unmodified, against a server of ours."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.web.personalizer.conftest import Loop

FOLDER = Path(__file__).parents[2] / "node"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(
    NODE is None or not (FOLDER / "node_modules" / "@azure").is_dir(),
    reason="needs node and its packages: `make test` installs them where it can",
)


def test_the_javascript_sdk_ranks_rewards_and_activates(loop: Loop, endpoint: str) -> None:
    ran = subprocess.run(
        [str(NODE), str(FOLDER / "personalizer.js"), f"{endpoint}/", loop.secret],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["statuses"] == [201, 204, 204]
    assert told["eventId"] == "js/1 é"
    assert told["rewardActionId"] in {"a", "c"}
    assert told["ranking"][1] == {"id": "b", "probability": 0}
    assert sum(one["probability"] for one in told["ranking"]) == pytest.approx(1)
    assert told["refused"] == [400, "BadRequest"]
    loop.clock.forward(minutes=11)
    assert loop.learn()
    assert loop.learned_rows == 1
