"""``sendtide score``: the file comes back ranked."""

from __future__ import annotations

import orjson
import pyarrow.parquet

from optimizer.service import setup
from optimizer.service.erasing import erase
from optimizer.service.wiring import Services
from storage.records import Campaign, Recipient
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
    assert told == {"scored": 3, "failed": 1, "policy_id": policy.policy_id, "file": str(out), "lacking": None}
    rows = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    assert [(r["rank"], r["recipient_id"]) for r in rows] == [(1, "u2"), (2, "u1"), (3, "u3"), (None, "u4")]
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


def test_a_row_that_fails_keeps_its_recipient_where_it_names_one(
    sendtide: Sendtide, services: Services, spring: Campaign
) -> None:
    publish_model(services, spring, n=400)
    setup.put_recipient(services, Recipient("default", "far", timezone="America/Nowhere"))
    rows = (
        '{"recipient_id": "u1", "channels.email": "maybe"}\n{"recipient_id": "far"}\n{"channels.email": "maybe"}\n'
        '{"recipient_id": ["u1"]}\nnonsense\n{"recipient_id": "u2"}\n'
    )
    out = sendtide.folder / "scores.ndjson"
    asked = ("--campaign", "spring", "--outcome", "converted", "--out", str(out))
    sendtide("score", sendtide.file("who.ndjson", rows), *asked)
    told = {row["line"]: row["recipient_id"] for row in map(orjson.loads, out.read_bytes().splitlines())}
    assert told == {1: "u1", 2: "far", 3: None, 4: None, 5: None, 6: "u2"}


def test_who_was_erased_is_not_ranked(sendtide: Sendtide, services: Services, spring: Campaign) -> None:
    publish_model(services, spring, n=400)
    setup.put_recipient(services, Recipient("default", "u1"))
    erase(services, "default", "u1")
    out = sendtide.folder / "scores.ndjson"
    asked = ("score", sendtide.file("who.csv", WHO), "--campaign", "spring", "--outcome", "converted")
    sendtide(*asked, "--out", str(out))
    told = {row["recipient_id"]: row for row in map(orjson.loads, out.read_bytes().splitlines())}
    assert (told["u1"]["rank"], told["u1"]["error"]["code"]) == (None, "erased")
    assert told["u2"]["rank"] == 1


def test_what_going_without_a_message_changes_is_not_ranked_by_where_nothing_is_known_of_it(
    sendtide: Sendtide, services: Services, spring: Campaign
) -> None:
    publish_model(services, spring, n=800, unsent=0)
    out = sendtide.folder / "scores.ndjson"
    asked = ("score", sendtide.file("who.csv", WHO), "--campaign", "spring", "--outcome", "converted")
    for by in ("uplift", "without_message"):
        refused = sendtide(*asked, "--by", by, "--out", str(out))
        assert refused.exit_code == 1
        assert f"by: {by} is not known" in refused.stderr
        assert '{"holdout": 0.05}' in refused.stderr
        assert not out.exists()
    text = sendtide.ok(*asked, "--out", str(out))
    assert "without_message and uplift are empty: how likely 'converted' is without a message" in text
    rows = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    assert [row["recipient_id"] for row in rows] == ["u2", "u1", "u3", "u4"]
    assert all(row["uplift"] is None and row["without_message"] is None for row in rows)


def test_without_a_model_nothing_is_written(sendtide: Sendtide, spring: Campaign) -> None:
    out = sendtide.folder / "scores.ndjson"
    path = sendtide.file("who.csv", WHO)
    result = sendtide("score", path, "--campaign", "spring", "--outcome", "converted", "--out", str(out))
    assert result.exit_code == 1
    assert "no learned policy yet; train one first (`sendtide retrain`" in result.stderr
    assert not out.exists()
