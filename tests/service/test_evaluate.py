"""Evaluating from the log: stored policies, and policies that come as a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from optimizer.errors import Invalid, NotFound
from optimizer.service import setup
from optimizer.service.estimates import NO_OVERLAP, NO_REWARD
from optimizer.service.evaluate import evaluate, evaluate_file
from optimizer.service.exports import Selection, export
from optimizer.service.publish import rolled_back
from optimizer.service.retrain import retrain
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.records import Attribute, Baseline, Channel, GroupShares, OutcomeWeight
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.test_retrain import audience
from tests.service.trained import publish_model

SHOP = campaign(channels=(Channel("email"),), allow_no_send=False)


@pytest.fixture
def shop(services: Services) -> Services:
    setup.put_campaign(services, SHOP)
    return services


def write(path: Path, decided: list[Decision], liked: Any) -> Path:
    """``liked(decision)`` gives the probability cell of each decision."""
    rows = [orjson.dumps({"decision_id": d.decision_id, "probability": liked(d)}) for d in decided]
    path.write_bytes(b"\n".join(rows))
    return path


def best(decision: Decision) -> dict[str, float]:
    """All on the liked variant; the actions of an immediate decision are its two variants."""
    return {"0" if decision.snapshot.context["plan"] == "pro" else "1": 1.0}


class TestFiles:
    def test_the_logging_policy_itself_earns_what_was_logged(
        self, shop: Services, clock: FakeClock, tmp_path: Path
    ) -> None:
        audience(shop, clock, 500, seed=1)
        path = tmp_path / "log.ndjson"
        export(shop, WORKSPACE, "feedback", path, Selection())
        report = evaluate_file(shop, WORKSPACE, "spring", path)
        assert report["policy"]["ips"]["value"] == pytest.approx(report["logged"]["value"])
        assert report["policy"]["ips"]["effective_sample_size"] == pytest.approx(500)
        assert report["covered"] == 1.0
        assert report["unseen"] is None

    def test_rows_that_an_import_kept_with_a_vanishing_propensity_are_left_out(
        self, shop: Services, clock: FakeClock, tmp_path: Path
    ) -> None:
        decided = audience(shop, clock, 300, seed=1)
        kept = replace(decided[0], decision_id="dec_old", request_id="old", propensity=1e-15, imported=True)
        shop.store.write(lambda writer: writer.add_decisions([(kept, None)]))
        report = evaluate_file(shop, WORKSPACE, "spring", write(tmp_path / "p.ndjson", [*decided, kept], best))
        assert (report["rows"], report["given"]["rows"]) == (300, 301)

    def test_the_best_policy_is_seen_from_random_choices(
        self, shop: Services, clock: FakeClock, tmp_path: Path
    ) -> None:
        """It earns .7, random choices .45; each estimate has a standard error near .02."""
        decided = audience(shop, clock, 1200, seed=2)
        report = evaluate_file(shop, WORKSPACE, "spring", write(tmp_path / "p.ndjson", decided, best))
        assert set(report["policy"]) == {"ips", "snips", "dm", "dr", "switch_dr"}
        for name in ("ips", "snips", "dr"):
            assert report["policy"][name]["value"] == pytest.approx(0.7, abs=0.09)
        assert report["cold_start"]["ips"]["value"] == pytest.approx(report["logged"]["value"])
        assert report["difference"]["logged"]["low"] > 0
        assert report["difference"]["cold_start"]["low"] > 0
        plans = {g["group"]: g for g in report["groups"] if g["by"] == "plan"}
        assert set(plans) == {"pro", "free"}
        assert sum(g["rows"] for g in plans.values()) == 1200
        for name in ("nothing", "@moment"):
            with pytest.raises(Invalid, match=rf"no row has an attribute '{name}'; there are: [^@]*plan[^@]*$"):
                evaluate_file(shop, WORKSPACE, "spring", tmp_path / "p.ndjson", by=name)

    def test_one_number_a_row_is_enough_for_weights(self, shop: Services, clock: FakeClock, tmp_path: Path) -> None:
        decided = audience(shop, clock, 400, seed=3)
        taken = {d.decision_id: float(best(d).get(str(d.action), 0.0)) for d in decided}
        whole = evaluate_file(shop, WORKSPACE, "spring", write(tmp_path / "v.ndjson", decided, best))
        single = evaluate_file(
            shop, WORKSPACE, "spring", write(tmp_path / "s.ndjson", decided, lambda d: taken[d.decision_id])
        )
        assert set(single["policy"]) == {"ips", "snips"}
        assert single["policy"]["ips"] == whole["policy"]["ips"]
        rows = [
            {"decision_id": d.decision_id, "probability": taken[d.decision_id], "predicted": 0.4, "value": 0.4}
            for d in decided
        ]
        path = tmp_path / "q.ndjson"
        path.write_bytes(b"\n".join(orjson.dumps(r) for r in rows))
        own = evaluate_file(shop, WORKSPACE, "spring", path)
        reward = np.array([taken[d.decision_id] for d in decided])
        assert own["policy"]["dm"]["value"] == pytest.approx(0.4)
        assert own["policy"]["dr"]["value"] == pytest.approx(
            whole["policy"]["ips"]["value"] + 0.4 - 0.4 * float(np.mean(reward / 0.5))
        )

    def test_a_part_of_the_log_may_be_covered(self, shop: Services, clock: FakeClock, tmp_path: Path) -> None:
        decided = audience(shop, clock, 500, seed=4)
        report = evaluate_file(shop, WORKSPACE, "spring", write(tmp_path / "p.ndjson", decided[::2], best))
        assert (report["rows"], report["covered"]) == (250, 0.5)

    def test_what_serves_is_judged_on_rows_that_it_cannot_have_learned_from(
        self, shop: Services, clock: FakeClock, tmp_path: Path
    ) -> None:
        before = audience(shop, clock, 300, seed=7)
        serving = publish_model(shop, SHOP).policy_id
        path = write(tmp_path / "p.ndjson", [*before, *audience(shop, clock, 100, seed=8)], best)
        few = evaluate_file(shop, WORKSPACE, "spring", path)
        assert (few["rows"], few["seen_by"]) == (400, {"serving": serving})
        assert few["left_out"] == {"seen": 0, "seen_by": {}, "older": 0}
        path = write(tmp_path / "p.ndjson", [*before, *audience(shop, clock, 250, seed=9)], best)
        enough = evaluate_file(shop, WORKSPACE, "spring", path)
        assert (enough["rows"], enough["seen_by"], enough["unseen"]) == (250, {}, None)
        assert enough["left_out"] == {"seen": 300, "seen_by": {"serving": serving}, "older": 0}
        assert enough["serving"]["ips"]["value"] == pytest.approx(enough["logged"]["value"])

    def test_it_says_what_became_of_the_files_rows(self, shop: Services, clock: FakeClock, tmp_path: Path) -> None:
        setup.put_campaign(shop, campaign(campaign_id="other", channels=(Channel("email"),)))
        decided = audience(shop, clock, 300, seed=5)
        path = tmp_path / "p.ndjson"

        def told(chances: list[Any], name: str = "{}") -> Path:
            rows = [
                {"decision_id": name.format(d.decision_id), "probability": p}
                for d, p in zip(decided, chances, strict=False)
            ]
            path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
            return path

        with pytest.raises(Invalid, match=r"0 closed rows .* of 300 rows of the file 300 with a .*id that is not in"):
            evaluate_file(shop, WORKSPACE, "spring", told([0.5] * 300, "x{}"))
        with pytest.raises(Invalid, match=r"of 300 rows of the file 300 with a probability of null.*export feedback"):
            evaluate_file(shop, WORKSPACE, "spring", told([None] * 300))
        with pytest.raises(Invalid, match=r"0 closed rows .* of 300 rows of the file 300 of other campaigns"):
            evaluate_file(shop, WORKSPACE, "other", told([0.5] * 300))
        with pytest.raises(Invalid, match="100 of decisions of 'spring', 100 of these closed"):
            evaluate_file(shop, WORKSPACE, "spring", told([0.5] * 100))
        found = evaluate_file(shop, WORKSPACE, "spring", told([0.5] * 250 + [None] * 50))
        others = {"null": 50, "unknown": 0, "other": 0}
        assert found["given"] == {"rows": 300, **others, "known": 250, "holdout": 0, "closed": 250}

    def test_the_holdouts_rows_are_counted_apart(self, shop: Services, clock: FakeClock, tmp_path: Path) -> None:
        setup.put_campaign(shop, replace(SHOP, groups=GroupShares(holdout=0.2)))
        decided = audience(shop, clock, 400, seed=5)
        silent = sum(d.group == "holdout" for d in decided)
        assert silent > 40
        path = tmp_path / "p.ndjson"
        path.write_bytes(b"\n".join(orjson.dumps({"decision_id": d.decision_id, "probability": 0.5}) for d in decided))
        found = evaluate_file(shop, WORKSPACE, "spring", path)["given"]
        assert (found["known"], found["holdout"], found["closed"]) == (400, silent, 400 - silent)

    def test_a_policy_without_overlap_is_told_to_have_none(
        self, shop: Services, clock: FakeClock, tmp_path: Path
    ) -> None:
        decided = audience(shop, clock, 300, seed=5)
        report = evaluate_file(shop, WORKSPACE, "spring", write(tmp_path / "p.ndjson", decided, lambda _: 0.0))
        assert {one["withheld"] for one in report["policy"].values()} == {NO_OVERLAP}
        assert {one["value"] for one in report["difference"].values()} == {None}
        assert report["support"]["policy"]["effective_rows"] == 0.0
        assert report["cold_start"]["ips"]["withheld"] is None

    def test_what_messages_cost_is_no_reward(self, shop: Services, clock: FakeClock, tmp_path: Path) -> None:
        decided = audience(shop, clock, 300, seed=5)
        nothing = replace(SHOP, objective={"converted": OutcomeWeight(1.0)}, channels=(Channel("email", cost=0.0004),))
        setup.put_campaign(shop, nothing)
        clock.forward(hours=24 * 30)
        for cell in (best, lambda d: best(d).get(str(d.action), 0.0)):
            report = evaluate_file(shop, WORKSPACE, "spring", write(tmp_path / "p.ndjson", decided, cell))
            assert report["logged"]["value"] == pytest.approx(-0.0004)
            assert report["logged"]["low"] is None
            assert {report[name]["ips"]["withheld"] for name in ("policy", "cold_start")} == {NO_REWARD}

    def test_what_cannot_be_evaluated_is_refused(self, shop: Services, clock: FakeClock, tmp_path: Path) -> None:
        decided = audience(shop, clock, 300, seed=5)
        with pytest.raises(NotFound):
            evaluate_file(shop, WORKSPACE, "nope", write(tmp_path / "p.ndjson", decided, best))
        with pytest.raises(Invalid, match="100 closed rows"):
            evaluate_file(shop, WORKSPACE, "spring", write(tmp_path / "p.ndjson", decided[:100], best))
        mixed = write(tmp_path / "p.ndjson", decided, lambda d: 0.5 if d is decided[0] else best(d))
        with pytest.raises(Invalid, match="one kind"):
            evaluate_file(shop, WORKSPACE, "spring", mixed)

    @pytest.mark.parametrize(
        ("cell", "what"),
        [
            ({"0": 0.5, "1": 0.51}, "line 6: sums to 1.01, must be 1"),
            (1.5, "line 6: 1.5 must lie in"),
            (0.5, "line 6: .* one kind"),
        ],
    )
    def test_rows_that_are_not_evaluated_on_are_checked_too(
        self, shop: Services, clock: FakeClock, tmp_path: Path, cell: Any, what: str
    ) -> None:
        """They are older than what serves; the first bad line of the file is told, whatever decision it is of."""
        old = audience(shop, clock, 50, seed=7)
        publish_model(shop, SHOP)
        new = audience(shop, clock, 250, seed=9)
        order = [*new[:5], *old, *new[5:]]
        assert evaluate_file(shop, WORKSPACE, "spring", write(tmp_path / "p.ndjson", order, best))["rows"] == 250
        path = write(tmp_path / "p.ndjson", order, lambda d: cell if d in old else best(d))
        with pytest.raises(Invalid, match=what):
            evaluate_file(shop, WORKSPACE, "spring", path)

    def test_what_the_export_writes_of_every_group_is_no_fault(
        self, shop: Services, clock: FakeClock, tmp_path: Path
    ) -> None:
        shares = GroupShares(holdout=0.1, random=0.1, baseline=0.1)
        setup.put_campaign(shop, replace(SHOP, groups=shares, baseline=Baseline("mens", "email", "09:30")))
        audience(shop, clock, 500, seed=5)
        path = tmp_path / "log.ndjson"
        export(shop, WORKSPACE, "feedback", path, Selection())
        found = evaluate_file(shop, WORKSPACE, "spring", path)["given"]
        assert found["known"] > found["closed"] + found["holdout"]


class TestStored:
    def test_it_stands_beside_what_serves_and_the_cold_start(self, shop: Services, clock: FakeClock) -> None:
        audience(shop, clock, 800, seed=6)
        first = retrain(shop, WORKSPACE)[0]["policy_id"]
        shop.policies.refresh_now()
        alone = evaluate(shop, WORKSPACE, first)
        assert "serving" not in alone
        assert not alone["unseen"]
        assert alone["recipients"] == alone["rows"] == 800
        assert alone["difference"]["cold_start"]["minimum_detectable_effect"] > 0

    def test_rows_that_a_newer_serving_policy_may_have_learned_from_are_left_out_or_told(
        self, shop: Services, clock: FakeClock
    ) -> None:
        audience(shop, clock, 300, seed=7)
        first = publish_model(shop, SHOP).policy_id
        audience(shop, clock, 300, seed=8)
        serving = publish_model(shop, SHOP, seed=2).policy_id
        audience(shop, clock, 100, seed=9)
        few = evaluate(shop, WORKSPACE, first)
        assert (few["rows"], few["unseen"], few["seen_by"]) == (400, True, {"serving": serving})
        assert few["left_out"] == {"seen": 300, "seen_by": {"policy": first}, "older": 0}
        audience(shop, clock, 150, seed=10)
        enough = evaluate(shop, WORKSPACE, first)
        assert (enough["rows"], enough["unseen"], enough["seen_by"]) == (250, True, {})
        assert enough["left_out"] == {"seen": 600, "seen_by": {"policy": first, "serving": serving}, "older": 0}

    def test_a_policy_newer_than_most_rows_is_told_beside_the_one_that_serves(
        self, shop: Services, clock: FakeClock
    ) -> None:
        first = publish_model(shop, SHOP).policy_id
        audience(shop, clock, 300, seed=7)
        second = publish_model(shop, SHOP, seed=2).policy_id
        audience(shop, clock, 100, seed=8)
        with shop.store.read() as reader:
            pointer = reader.pointer(WORKSPACE, "spring")
        assert pointer is not None
        rolled_back(shop, pointer, first, clock(), "by hand")
        report = evaluate(shop, WORKSPACE, second)
        assert (report["rows"], report["unseen"], report["seen_by"]) == (400, False, {"policy": second})
        assert "serving" in report["difference"]
        assert evaluate(shop, WORKSPACE, first)["seen_by"] == {}


class TestGroups:
    @pytest.mark.parametrize(("use_in_model", "sensitive"), [(False, False), (True, True), (False, True)])
    def test_nobody_is_grouped_by_what_is_sensitive_or_not_for_the_model(
        self, shop: Services, clock: FakeClock, tmp_path: Path, *, use_in_model: bool, sensitive: bool
    ) -> None:
        decided = audience(shop, clock, 400, seed=3)
        path = write(tmp_path / "p.ndjson", decided, best)
        assert {one["by"] for one in evaluate_file(shop, WORKSPACE, "spring", path)["groups"]} == {"plan"}
        setup.put_attribute(
            shop, Attribute(WORKSPACE, "plan", "category", use_in_model=use_in_model, sensitive=sensitive)
        )
        assert evaluate_file(shop, WORKSPACE, "spring", path)["groups"] == []
        with pytest.raises(Invalid, match="'plan' is sensitive or not for the model"):
            evaluate_file(shop, WORKSPACE, "spring", path, "plan")
        with pytest.raises(Invalid, match="no row has an attribute 'age'; there are: none"):
            evaluate_file(shop, WORKSPACE, "spring", path, "age")
