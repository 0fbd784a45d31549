"""``sendtide evaluate`` on a stored policy and on a file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from optimizer.cli.evaluate import _given
from optimizer.service import setup
from optimizer.service.wiring import Services
from storage.records import Channel
from tests.cli.conftest import Sendtide
from tests.cli.test_loop import ROWS, history
from tests.service.conftest import campaign
from tests.service.trained import publish_model


@pytest.fixture
def shop(sendtide: Sendtide, services: Services) -> Services:
    setup.ensure_workspace(services, "default")
    made = campaign(workspace_id="default", channels=(Channel("email"),), allow_no_send=False)
    setup.put_campaign(services, made)
    sendtide.ok("import", "history", sendtide.file("h.csv", history(seed=3)))
    return services


def test_a_file_of_probabilities_is_evaluated(sendtide: Sendtide, shop: Services) -> None:
    with shop.store.read() as reader:
        rows = [row.decision for row in reader.feedback("default")]
    # a fair coin again: .5 on each of the two actions, on the same rows
    lines = "".join(f'{{"decision_id":"{d.decision_id}","probability":[0.5,0.5]}}\n' for d in rows)
    path = sendtide.file("policy.ndjson", lines)
    report = sendtide.json("evaluate", "--probabilities", path, "--campaign", "spring")
    assert report["rows"] == ROWS
    assert report["policy"]["ips"]["value"] == pytest.approx(report["logged"]["value"])
    text = sendtide.ok("evaluate", "--probabilities", path, "--campaign", "spring", "--by", "plan")
    for part in ("policy, dr", "cold start, dr", "policy − as logged", "support: largest weight", "plan=pro"):
        assert part in text
    assert "may have learned" not in text


def test_figures_that_the_rows_do_not_tell_are_dashes_with_a_reason(sendtide: Sendtide, shop: Services) -> None:
    with shop.store.read() as reader:
        rows = [row.decision for row in reader.feedback("default")]
    lines = "".join(f'{{"decision_id":"{d.decision_id}","probability":0.0}}\n' for d in rows)
    path = sendtide.file("none.ndjson", lines + '{"decision_id":"dec_unknown","probability":0.5}\n')
    asked = ("evaluate", "--probabilities", path, "--campaign", "spring")
    text = sendtide.ok(*asked)
    line = next(one for one in text.splitlines() if one.startswith("policy, ips"))
    assert line.split()[2:6] == ["–", "–", "–", "0"]
    assert "–  policy, ips; policy, snips; " in text
    assert "the policy gives every logged action the probability 0: these rows tell nothing of what it earns" in text
    assert (
        f"of the file's {ROWS + 1} rows {ROWS} can be evaluated on; the others: 1 with an unknown decision_id\n" in text
    )
    assert sendtide.json(*asked)["policy"]["ips"]["value"] is None


def test_what_was_logged_without_a_reward_has_a_mean_and_no_bounds(sendtide: Sendtide, services: Services) -> None:
    setup.ensure_workspace(services, "default")
    setup.put_campaign(services, campaign(workspace_id="default", channels=(Channel("email"),), allow_no_send=False))
    sendtide.ok("import", "history", sendtide.file("h.csv", history(seed=3).replace(",1\n", ",0\n")))
    with services.store.read() as reader:
        rows = [row.decision for row in reader.feedback("default")]
    lines = "".join(f'{{"decision_id":"{d.decision_id}","probability":0.5}}\n' for d in rows)
    text = sendtide.ok("evaluate", "--probabilities", sendtide.file("p.ndjson", lines), "--campaign", "spring")
    line = next(one for one in text.splitlines() if one.startswith("as logged"))
    assert line.split()[2:6] == ["0.0000", "–", "–", str(ROWS)]
    assert "–  as logged, bounds: no reward was earned in any row" in text


def test_intervals_stand_under_their_own_headings_and_only_where_some_row_has_them(
    sendtide: Sendtide, shop: Services
) -> None:
    def told() -> tuple[str, list[str], str]:
        with shop.store.read() as reader:
            rows = [row.decision for row in reader.feedback("default")]
        lines = "".join(f'{{"decision_id":"{d.decision_id}","probability":[0.5,0.5]}}\n' for d in rows)
        path = sendtide.file("policy.ndjson", lines)
        text = sendtide.ok("evaluate", "--probabilities", path, "--campaign", "spring")
        table = text.split("\n\n")[1].splitlines()
        return table[0], [line for line in table if line.startswith("policy, ips")], text

    heading, (ips,), text = told()
    for title in ("bootstrap", "empirical likelihood", "Cressie–Read"):
        assert ips[heading.index(title) :].startswith("[0."), title
    assert "sequence" not in heading
    assert "confidence sequences are left out: they begin at 1,000 rows" in text

    more = history(seed=4).replace("2026-02-01", "2026-02-03")  # the same people, two days later
    sendtide.ok("import", "history", sendtide.file("more.csv", more))
    heading, (ips,), text = told()
    assert "Cressie–Read" not in heading
    assert ips[heading.index("sequence") :].startswith("[0.")
    assert "Cressie–Read's intervals are left out: recipients have several rows" in text
    assert "confidence sequences are left out" not in text


def test_rows_of_the_holdout_are_named_as_what_they_are() -> None:
    found = {"rows": 900, "null": 1, "unknown": 2, "other": 3, "known": 894, "holdout": 156, "closed": 730}
    told = _given(found)
    assert "730 can be evaluated on; the others: 1 with a probability of null, 2 with an unknown decision_id" in told
    assert "3 of other campaigns, 156 of the holdout, for whom no policy chose, 8 not closed, not drawn" in told


def test_groups_that_are_too_small_are_counted(sendtide: Sendtide, services: Services) -> None:
    setup.ensure_workspace(services, "default")
    setup.put_campaign(services, campaign(workspace_id="default", channels=(Channel("email"),), allow_no_send=False))
    first, *lines = history(seed=3).splitlines()
    lines = [f"{line},{20 + i % 18 if i > 200 else 19}" for i, line in enumerate(lines)]
    sendtide.ok("import", "history", sendtide.file("h.csv", "\n".join([f"{first},context.age", *lines]) + "\n"))
    with services.store.read() as reader:
        rows = [row.decision for row in reader.feedback("default")]
    told = "".join(f'{{"decision_id":"{d.decision_id}","probability":0.5}}\n' for d in rows)
    asked = ("evaluate", "--probabilities", sendtide.file("p.ndjson", told), "--campaign", "spring", "--by")
    by_age = sendtide.ok(*asked, "age")
    assert "age=19 " in by_age
    assert "groups by age that are left out: 18 of 19, with fewer than 100 rows or 5 recipients" in by_age
    assert sendtide.json(*asked, "age")["grouped"] == {"by": "age", "values": 19, "shown": 1}
    assert "left out" not in sendtide.ok(*asked, "plan").partition("policy − as logged")[2]


def test_a_policy_that_serves_and_is_older_than_the_rows_is_told_to_be(sendtide: Sendtide, shop: Services) -> None:
    with shop.store.read() as reader:
        made = reader.campaign("default", "spring")
        rows = [row.decision for row in reader.feedback("default")]
    assert made is not None
    publish_model(replace(shop, clock=lambda: min(d.decided_at for d in rows)), made)
    lines = "".join(f'{{"decision_id":"{d.decision_id}","probability":[0.5,0.5]}}\n' for d in rows)
    text = sendtide.ok("evaluate", "--probabilities", sendtide.file("p.ndjson", lines), "--campaign", "spring")
    assert "100.0% of all closed rows" in text
    assert "all decided after the policy that serves now was made" in text
    assert "may have learned" not in text


def test_rows_that_the_policy_that_serves_may_have_learned_from_are_counted_where_they_are_left_out(
    sendtide: Sendtide, shop: Services
) -> None:
    with shop.store.read() as reader:
        made = reader.campaign("default", "spring")
        rows = sorted((row.decision for row in reader.feedback("default")), key=lambda d: d.decided_at)
    assert made is not None
    serving = publish_model(replace(shop, clock=lambda: rows[50].decided_at), made).policy_id
    older = sum(d.decided_at < rows[50].decided_at for d in rows)
    assert 0 < older <= 50
    lines = "".join(f'{{"decision_id":"{d.decision_id}","probability":[0.5,0.5]}}\n' for d in rows)
    text = sendtide.ok("evaluate", "--probabilities", sendtide.file("p.ndjson", lines), "--campaign", "spring")
    assert f"on {ROWS - older} rows of its file" in text
    assert f"{older} older closed rows are left out: serving now ({serving}) may have learned from them" in text


def test_a_policy_that_may_have_learned_from_the_rows_is_named(sendtide: Sendtide, shop: Services) -> None:
    with shop.store.read() as reader:
        made = reader.campaign("default", "spring")
    assert made is not None
    serving = publish_model(shop, made).policy_id
    text = sendtide.ok("evaluate", "--policy", serving)
    assert f"policy ({serving}) may have learned from these rows: its figures are flattered" in text


@pytest.mark.parametrize(
    "arguments", [(), ("--policy", "pol_1", "--probabilities", "FILE"), ("--probabilities", "FILE")]
)
def test_one_policy_is_asked_for(sendtide: Sendtide, shop: Services, arguments: tuple[str, ...]) -> None:
    path = sendtide.file("p.ndjson", "")
    result = sendtide("evaluate", *(path if one == "FILE" else one for one in arguments))
    assert result.exit_code == 2
    assert "give either" in result.stderr
