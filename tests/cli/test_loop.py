"""The loop by command line alone: history in, retrain, evaluate, decide, export."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import orjson
import pytest

from optimizer.service import setup
from optimizer.service.wiring import Services
from storage.records import Channel
from tests.cli.conftest import Sendtide
from tests.service.conftest import campaign

ROWS = 900


def history(seed: int) -> str:
    """Logged sends of two variants by a fair coin: "pro" people click on mens at .8, else at .1; womens the reverse."""
    rng = np.random.default_rng(seed)
    start = datetime(2026, 2, 1, tzinfo=UTC)
    lines = ["recipient_id,campaign_id,variant_id,channel,send_at,propensity,context.plan,outcome.clicked"]
    for i in range(ROWS):
        plan, variant = str(rng.choice(["pro", "free"])), str(rng.choice(["mens", "womens"]))
        clicked = rng.random() < (0.8 if (plan == "pro") == (variant == "mens") else 0.1)
        at = (start + timedelta(minutes=i)).isoformat()
        lines.append(f"u{i},spring,{variant},email,{at},0.5,{plan},{int(clicked)}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def shop(services: Services) -> Services:
    setup.ensure_workspace(services, "default")
    made = campaign(workspace_id="default", channels=(Channel("email"),), allow_no_send=False)
    setup.put_campaign(services, made)
    return services


def test_a_history_teaches_a_policy_that_decides_by_it(sendtide: Sendtide, shop: Services) -> None:
    sendtide.ok("import", "history", sendtide.file("h.csv", history(seed=1)))
    answer = sendtide.json("retrain", "--campaign", "spring")
    (verdict,) = answer["verdicts"]
    assert (answer["status"], verdict["decision"]) == ("published", "publish"), verdict["reason"]

    report = sendtide.json("evaluate", "--policy", verdict["policy_id"])
    # The true means are .45 for a coin and near .8 for the best choice: far apart against a standard error of .02.
    assert report["policy"]["dr"]["low"] > report["cold_start"]["dr"]["high"]
    assert "policy, dr" in sendtide.ok("evaluate", "--policy", verdict["policy_id"])

    who = "".join(f'{{"recipient_id":"n{i}","context":{{"plan":"{("pro", "free")[i % 2]}"}}}}\n' for i in range(40))
    out = sendtide.folder / "out.ndjson"
    sendtide.ok("decide", sendtide.file("who.ndjson", who), "--campaign", "spring", "--out", str(out))
    rows = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    assert {row["policy_id"] for row in rows} == {verdict["policy_id"]}
    liked = [row["variant_id"] == ("mens", "womens")[i % 2] for i, row in enumerate(rows)]
    # Each of 40 independent draws hits with at least .85: fewer than 25 has a probability below 1e-4 (binomial).
    assert sum(liked) >= 25

    log = sendtide.folder / "log.ndjson"
    assert sendtide.json("export", "feedback", "--out", str(log))["rows"] == ROWS + 40
    own = [row for line in log.read_bytes().splitlines() if not (row := orjson.loads(line))["imported"]]
    for row in own:
        assert row["fault"] is None
        assert row["probability"][row["action"]] == pytest.approx(row["propensity"], abs=1e-6)


def test_evaluating_an_unknown_policy_is_refused(sendtide: Sendtide, shop: Services) -> None:
    result = sendtide("evaluate", "--policy", "pol_nope")
    assert result.exit_code == 1
    assert "no policy 'pol_nope'" in result.stderr
