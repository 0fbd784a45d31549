"""What all commands share: how they tell what is wrong with a call."""

from __future__ import annotations

import orjson
import pytest

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
