"""What all commands share: how they tell what is wrong with a call."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import orjson
import pytest

from optimizer.service import report
from optimizer.service.wiring import Services
from storage.records import Campaign
from tests.cli.conftest import Sendtide


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("export", "foo", "--out", "x"), "'foo' is not one of"),
        (("export", "decisions"), "--out"),
        (("evaluate",), "give either --policy ID, or --probabilities FILE"),
        (("keys", "create", "--name", "x", "--nope"), "No such option"),
        (("nope",), "No such command 'nope'"),
    ],
)
def test_wrong_usage_is_told_in_json_where_answers_are(
    sendtide: Sendtide, arguments: tuple[str, ...], said: str
) -> None:
    for given, env in (((*arguments, "--json"), None), (arguments, {"SENDTIDE_JSON": "1"})):
        result = sendtide(*given, env=env)
        assert (result.exit_code, result.stdout) == (2, "")
        found = orjson.loads(result.stderr)
        assert (found["code"], found["errors"]) == ("usage", {})
        assert said in found["detail"]
    assert sendtide(*arguments, env={"SENDTIDE_JSON": "0"}).stderr.startswith("Usage: ")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("erase", "\udcff", "--yes"), "RECIPIENT"),
        (("report", "\udcff"), "CAMPAIGN"),
        (("keys", "create", "--scopes", "read", "--name", "\udcff"), "--name"),
        (("keys", "list", "--workspace", "\udcff"), "--workspace"),
        (("evaluate", "--policy", "\udcff"), "--policy"),
    ],
)
def test_an_argument_that_is_no_utf8_is_wrong_usage(sendtide: Sendtide, arguments: tuple[str, ...], named: str) -> None:
    result = sendtide(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"'{named}'" in result.stderr
    assert "no UTF-8" in result.stderr
    result = sendtide(*arguments, "--json")
    assert (result.exit_code, orjson.loads(result.stderr)["code"]) == (2, "usage")


def test_a_file_may_have_a_name_that_is_no_utf8(sendtide: Sendtide, services: Services, spring: Campaign) -> None:
    out = f"{sendtide.folder}/\udcff.ndjson"
    assert sendtide.json("export", "decisions", "--out", out)["file"].endswith("/\ufffd.ndjson")
    missing = sendtide("restore", f"{sendtide.folder}/\udcff.sqlite", "--json")
    assert (missing.exit_code, orjson.loads(missing.stderr)["code"]) == (1, "store")


def test_an_error_of_ours_is_told_with_its_trace_and_in_json_where_answers_are(
    sendtide: Sendtide, spring: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("odd data")

    monkeypatch.setattr(report, "report", broken)
    result = sendtide("report", "spring")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Traceback")
    assert result.stderr.splitlines()[-1] == "Error: something went wrong on our side: ValueError: odd data"
    result = sendtide("report", "spring", "--json")
    found = orjson.loads(result.stderr)
    assert (result.exit_code, found["code"]) == (1, "internal")
    assert found["errors"]["trace"][-1] == "ValueError: odd data"


def test_that_nobody_reads_on_is_no_error(sendtide: Sendtide, spring: Campaign) -> None:
    command = [sys.executable, "-m", "optimizer.cli", "keys", "list", "--json", "--database", sendtide.database]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60)
    finally:
        os.close(writing)
    assert done.stderr == b""
