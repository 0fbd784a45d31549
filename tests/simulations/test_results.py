"""The report of results: what its head names, what its sections tell of losses, recoveries and gates."""

from __future__ import annotations

import platform
import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from click.testing import CliRunner

from optimizer.cli.group import COMMANDS
from simulations.fragments import played
from simulations.gatewords import told_of
from simulations.parts import PARTS
from simulations.policies import parse
from simulations.results import BENCH, FOLDER, REPORT, STUDIES, document, section
from simulations.results import command as results_command
from simulations.scenarios import scenario
from simulations.simulate import command

PART = {part.scenario: part for part in PARTS}


def figures(name: str) -> dict[str, Any]:
    """Figures of a scenario as they lie in the project."""
    found: dict[str, Any] = orjson.loads((FOLDER / f"{name}.json").read_bytes())
    return found


def figures_or_others(name: str) -> dict[str, Any]:
    """A scenario's figures; another one's where it has not been played yet."""
    return figures(name if (FOLDER / f"{name}.json").exists() else "stationary")


def test_the_report_is_what_the_figures_beside_it_say() -> None:
    assert REPORT.read_text(encoding="utf-8") == document(FOLDER, BENCH)


def test_the_report_is_written_from_what_lies_there(tmp_path: Path) -> None:
    arguments = ["xor", "--policies", "full-oracle", "--seeds", "2", "--decisions", "30", "--processes", "1"]
    arguments += ["--out", str(tmp_path)]
    assert CliRunner().invoke(command, arguments, catch_exceptions=False).exit_code == 0
    (tmp_path / "z-extra.md").write_text("## Something else\n", encoding="utf-8")
    report = document(tmp_path)
    assert "## xor: " in report
    assert "| full-oracle | " in report
    assert f"({tmp_path.name}/xor-regret.png)" in report
    assert report.index("## Something else") > report.index("## xor")
    assert "## stationary" not in report
    assert f"cores; Python {platform.python_version()}" in report
    assert "after the change" not in report
    figures = orjson.loads((tmp_path / "xor.json").read_bytes())
    one = {"to_informed": None, "to_before": 250, "to_final": 1450}
    figures |= {"recovery": {"full-oracle": [one] * 2}, "recovery_together": {"full-oracle": {**one, "to_final": 900}}}
    (tmp_path / "xor.json").write_bytes(orjson.dumps(figures))
    report = document(tmp_path)
    assert "| full-oracle | **–**; –, – | **250**; 250, 250 |" in report
    assert "newest variant" not in report  # none is new in this scenario


def test_every_section_of_the_report_names_the_command_that_it_comes_from() -> None:
    helped = " ".join(CliRunner().invoke(results_command, ["--help"], catch_exceptions=False).stdout.split())
    head = document(FOLDER).partition("\n## ")[0]
    commands = {point.name for point in entry_points(group=COMMANDS)}
    for fragment in FOLDER.glob("*.md"):
        assert f"- *{fragment.stem}*: `sendtide {STUDIES[fragment.stem]}`" in head
    for told in STUDIES.values():
        assert told.split()[0] in commands
        assert told in helped


def test_every_part_of_the_report_can_be_played() -> None:
    for part in PARTS:
        for policy in part.policies:
            assert parse(policy, scenario(part.scenario).name).text == policy


def test_the_head_names_what_was_not_played(tmp_path: Path) -> None:
    for part in PARTS:
        if part.scenario not in ("early", "drift"):
            (tmp_path / f"{part.scenario}.json").write_bytes(orjson.dumps(figures_or_others(part.scenario)))
    (tmp_path / "gate.md").write_text("## gate\n", encoding="utf-8")
    head = document(tmp_path).partition("\n## ")[0]
    assert "missing below:** *early*, *drift*." in head
    assert "- *gate*: `sendtide gate-study --data DIR`\n" in head
    assert "- *lift-intervals*: `sendtide report-study` (not played yet)" in head


def test_nothing_is_missing_where_all_was_played(tmp_path: Path) -> None:
    for part in PARTS:
        (tmp_path / f"{part.scenario}.json").write_bytes(orjson.dumps(figures_or_others(part.scenario)))
    assert "missing" not in document(tmp_path).partition("\n## ")[0]


def test_lists_of_versions_name_what_is_played_with() -> None:
    assert "vowpalwabbit" in played()
    assert "mabwiser" not in played()


def test_a_section_tells_who_was_lost_and_charges_for_them() -> None:
    found = figures("fatigue")
    told = section(PART["fatigue"], found, "results")
    assert "regret to the full oracle | asked | below the oracle's own play |" in told
    by_name = {one["policy"]: one for one in found["standings"]}
    ours, oracle = (by_name[name]["reward"]["per_seed"] for name in ("ours", "informed-oracle"))
    (row,) = [line for line in told.splitlines() if line.startswith("| ours |")]
    assert f"| {100 * by_name['ours']['asked']:.1f} % | {np.mean(oracle) - np.mean(ours):.4f} (" in row
    assert "losing people lowers it" in told


def test_a_section_says_nothing_of_losses_where_there_are_none() -> None:
    told = section(PART["stationary"], figures("stationary"), "results")
    assert "asked" not in told.lower()
    assert "own play" not in told


def test_the_newest_variant_is_told_of_where_one_is_new() -> None:
    newest = "newest variant's final share"
    assert newest in section(PART["new-variant"], figures("new-variant"), "results")
    assert newest not in section(PART["drift"], figures("drift"), "results")


def note(kind: str, decision: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "decision": decision, "rows": 1, "reason": "", "alpha": None, **more}


WORLD = [
    note("retrain", "reject"),
    note("retrain", "publish"),
    note("refresh", "publish"),
    note("climb", "shares", reason="the next look comes after 500 decisions that both had a share in"),
    note("climb", "shares", reason="stays at 0.53: no improvement shown"),
    note("retrain", "skipped"),
    note("retrain", "reject"),
    note("refresh", "publish"),
    note("climb", "publish"),
    note("refresh", "publish"),
    note("retrain", "publish"),
]


def test_first_policies_and_later_candidates_are_counted_apart() -> None:
    told = told_of("service", [{"verdicts": WORLD}, {"verdicts": [note("retrain", "reject")] * 2}]) or ""
    assert "first policies in 2 worlds: published 1, rejected 3, skipped 0;" in told
    assert "later candidates: published 1, rejected 1, skipped 1;" in told
    assert "looked at 2 times, of which 1 gave the newer model more, and once too early;" in told
    assert "these plays did not record" in told
    assert told_of("ours", [{"retrains": 3}]) is None


def test_lines_that_progress_freed_are_counted_from_one_policy_to_the_next() -> None:
    revisions = iter((False, True, True))
    verdicts = [one | {"freed": next(revisions)} if one["kind"] == "refresh" else one for one in WORLD]
    verdicts = [one | {"looked": one["reason"] != ""} if one["kind"] == "climb" else one for one in verdicts]
    told = told_of("service", [{"verdicts": verdicts}]) or ""
    # One from the first policy, one from what the climb gave more; nothing follows the last publication.
    assert "lines of revisions that progress freed: 2 of 2." in told
    assert "looked at 2 times" in told
    slow = [one | {"freed": False} if one["kind"] == "refresh" else one for one in WORLD]
    assert "progress freed: 0 of 2." in (told_of("service", [{"verdicts": slow}]) or "")


def test_the_gated_section_says_what_its_gate_let_through() -> None:
    told = section(PART["gated"], figures("gated"), "results")
    assert re.search(r"\nGate, service: first policies in \d+ worlds: published \d+,", told)
    assert re.search(r"; later candidates: published \d+, rejected \d+, skipped \d+;", told)
    assert re.search(r"looked at \d+ times, of which \d+ gave the newer model more", told)
