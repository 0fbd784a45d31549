"""``sendtide score``: the file comes back ranked."""

from __future__ import annotations

import orjson
import pyarrow.parquet

from optimizer.service.wiring import Services
from storage.records import Campaign
from tests.cli.conftest import Sendtide
from tests.service.trained import publish_model

WHO = """recipient_id,attributes.plan,channels.email,timezone
u1,free,,
u2,pro,,Europe/Berlin
u3,pro,false,
u4,pro,maybe,
"""


def test_rows_are_ranked_and_bad_ones_come_last_with_their_reason(
    sendtide: Sendtide, services: Services, spring: Campaign
) -> None:
    policy = publish_model(services, spring)
    out = sendtide.folder / "scores.ndjson"
    asked = ("score", sendtide.file("who.csv", WHO), "--campaign", "spring", "--outcome", "converted")
    told = sendtide.json(*asked, "--out", str(out))
    assert told == {"scored": 3, "failed": 1, "policy_id": policy.policy_id, "file": str(out)}
    rows = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    assert [(r["rank"], r["recipient_id"]) for r in rows] == [(1, "u2"), (2, "u1"), (3, "u3"), (None, None)]
    assert rows[0]["with_message"] > rows[1]["with_message"]
    assert rows[0]["variant_id"] == "mens"
    assert rows[2]["with_message"] is None
    assert rows[2]["without_message"] > 0
    assert rows[3]["line"] == 5
    assert "channels.email" in rows[3]["error"]["errors"]


def test_it_ranks_by_what_is_asked_and_writes_parquet(sendtide: Sendtide, services: Services, spring: Campaign) -> None:
    publish_model(services, spring, n=800)
    out = sendtide.folder / "scores.parquet"
    path = sendtide.file("who.csv", WHO)
    text = sendtide.ok(
        "score", path, "--campaign", "spring", "--outcome", "converted", "--by", "uplift", "--out", str(out)
    )
    assert text.startswith("3 scored, 1 failed")
    table = pyarrow.parquet.read_table(out).to_pylist()
    uplifts = [row["uplift"] for row in table if row["uplift"] is not None]
    assert uplifts == sorted(uplifts, reverse=True)
    assert [row["rank"] for row in table] == [1, 2, 3, None]


def test_without_a_model_nothing_is_written(sendtide: Sendtide, spring: Campaign) -> None:
    out = sendtide.folder / "scores.ndjson"
    path = sendtide.file("who.csv", WHO)
    result = sendtide("score", path, "--campaign", "spring", "--outcome", "converted", "--out", str(out))
    assert result.exit_code == 1
    assert "no learned policy yet" in result.stderr
    assert not out.exists()
