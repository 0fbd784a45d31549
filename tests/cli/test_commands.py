"""Commands as people and programs call them: what is on which stream, which exit code, what a flag's variable does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import orjson
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from optimizer.cli import main
from optimizer.cli.group import EXIT_CODES
from optimizer.config import SETTINGS, SHARED_FLAGS, Settings
from optimizer.service import setup, training
from optimizer.service.apart import Apart
from optimizer.service.keyring import hash_secret
from optimizer.service.runs import LEASE, Ended, lease_name
from optimizer.service.wiring import Services
from storage.policies import TrainingRun
from storage.records import Campaign
from tests.cli.conftest import Sendtide


def commands(
    found: click.Command = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its words."""
    yield path, found
    if isinstance(found, click.Group):
        ctx = click.Context(found)
        for name in found.list_commands(ctx):
            below = found.get_command(ctx, name)
            assert below is not None
            yield from commands(below, (*path, name))


OURS = [
    (path, found)
    for path, found in commands()
    if found.callback is not None and found.callback.__module__.startswith("optimizer.")
]


@pytest.mark.parametrize("path", [path for path, _ in OURS], ids=" ".join)
def test_every_command_has_help_with_its_exit_codes(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    assert " ".join(result.stdout.split()).endswith(EXIT_CODES)


@pytest.mark.parametrize(("path", "found"), [(p, f) for p, f in OURS if not f.hidden], ids=lambda x: str(x)[:40])
def test_every_flag_says_what_it_is_for_and_which_variable_sets_it(path: tuple[str, ...], found: click.Command) -> None:
    for param in found.params:
        if isinstance(param, click.Option) and not param.hidden and param.allow_from_autoenv:
            assert param.help, (path, param.name)
            assert param.show_envvar, (path, param.name)
            if param.envvar is not None:
                assert str(param.envvar).removeprefix("SENDTIDE_") in SHARED_FLAGS | {n.upper() for n in SETTINGS}


def test_every_command_that_reads_the_store_takes_database_and_json() -> None:
    for path, found in OURS:
        if not isinstance(found, click.Group):
            assert {"database", "as_json"} <= {param.name for param in found.params}, path


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"SENDTIDE_WORKRES": "2"}, "SENDTIDE_WORKRES is not a setting; did you mean SENDTIDE_WORKERS?"),
        ({"SENDTIDE_RETENTION_DAYS": "soon"}, "SENDTIDE_RETENTION_DAYS is 'soon'; allowed: a whole number from 1 to"),
        ({"SENDTIDE_DATABASE": "postgres"}, "(env var: 'SENDTIDE_DATABASE'): 'postgres'; allowed: sqlite:///PATH"),
        ({"SENDTIDE_KEYS_LIST_NAME": "x"}, "SENDTIDE_KEYS_LIST_NAME is not a setting"),
    ],
)
def test_a_wrong_variable_stops_every_command_with_exit_code_2(env: dict[str, str], named: str, tmp_path: Path) -> None:
    where = [] if "SENDTIDE_DATABASE" in env else ["--database", f"sqlite:///{tmp_path}/x.db"]
    result = CliRunner().invoke(main, ["keys", "list", *where], env=env)
    assert result.exit_code == 2
    assert named in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "x.db").exists()


@pytest.mark.parametrize("variable", ["SENDTIDE_FOO", "SENDTIDE_QQQQQQQQQ", "SENDTIDE_TRAIN_JOB_PARENT"])
def test_a_variable_that_is_like_no_other_is_told_with_a_few_and_where_all_of_them_stand(
    sendtide: Sendtide, variable: str
) -> None:
    result = sendtide("keys", "list", env={variable: "1"})
    assert result.exit_code == 2
    assert f"Error: {variable} is not a setting; " in result.stderr
    assert "`sendtide serve --help`" in result.stderr
    assert result.stderr.replace(variable, "").count("SENDTIDE_") <= 3
    assert "SENDTIDE_TRAIN_JOB_" not in result.stderr.replace(variable, "")


def test_the_help_of_serve_lists_the_variable_of_every_setting() -> None:
    help_ = CliRunner().invoke(main, ["serve", "--help"]).stdout
    assert [name for name in SETTINGS if f"SENDTIDE_{name.upper()}" not in help_] == []


@pytest.mark.usefixtures("spring")
def test_a_variable_of_another_commands_flag_is_known(sendtide: Sendtide) -> None:
    sendtide.ok("keys", "list", env={"SENDTIDE_DECIDE_CAMPAIGN": "spring", "SENDTIDE_KEYS_CREATE_NAME": "x"})


def test_a_flag_may_come_from_its_variable_and_wins_over_it(sendtide: Sendtide) -> None:
    env = {"SENDTIDE_KEYS_CREATE_NAME": "from-env", "SENDTIDE_KEYS_CREATE_SCOPES": "read", "SENDTIDE_WORKSPACE": "w"}
    sendtide.ok("keys", "create", env=env)
    sendtide.ok("keys", "create", "--name", "from-flag", env=env)
    (first, second) = sendtide.json("keys", "list", "--workspace", "w")["keys"]
    assert (first["name"], second["name"]) == ("from-env", "from-flag")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["serve", "--bind", "nowhere"], ["keys", "create"], ["import", "x"]]
)
def test_wrong_usage_has_exit_code_2(sendtide: Sendtide, arguments: list[str]) -> None:
    assert sendtide(*arguments).exit_code == 2


def test_a_new_keys_secret_stands_alone_on_standard_output_and_only_its_hash_is_stored(
    sendtide: Sendtide, services: Services, tmp_path: Path
) -> None:
    result = sendtide("keys", "create", "--name", "check", "--scopes", "decide, feedback")
    secret = result.stdout.removesuffix("\n")
    key = setup.authenticate(services, secret)

    assert secret.split() == [secret]
    assert (key.name, key.scopes, key.workspace_id) == ("check", ("decide", "feedback"), "default")
    assert key.key_id in result.stderr
    assert key.secret_hash == hash_secret(secret)
    assert all(secret.encode() not in file.read_bytes() for file in tmp_path.iterdir())


def test_keys_are_listed_without_secrets_and_end_when_revoked(sendtide: Sendtide) -> None:
    made = sendtide.json("keys", "create", "--name", "one", "--scopes", "admin")
    assert made["secret"] not in sendtide.ok("keys", "list", "--json")
    assert sendtide.json("keys", "list")["keys"][0]["revoked_at"] is None

    sendtide.ok("keys", "revoke", made["key_id"])
    assert sendtide.json("keys", "list")["keys"][0]["revoked_at"] is not None
    assert "revoked" in sendtide.ok("keys", "list")


def test_a_refusal_has_exit_code_1_and_its_reason_on_standard_error(sendtide: Sendtide) -> None:
    for json in ([], ["--json"]):
        result = sendtide("keys", "create", "--name", "x", "--scopes", "everything", *json)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert "everything; allowed: decide, feedback, track, read, admin" in result.stderr
    assert orjson.loads(result.stderr)["errors"] == {
        "scopes": ["everything; allowed: decide, feedback, track, read, admin"]
    }


@pytest.mark.parametrize(
    ("name", "workspace", "told"),
    [
        ("", "w", "name: '' must be a string of 1 to 256 characters"),
        ("x" * 257, "w", "must be a string of 1 to 256 characters"),
        ("x", "", "workspace: '' must be 1 to 256 characters, no control characters"),
        ("x", "a\nb", r"workspace: 'a\nb' must be 1 to 256 characters"),
    ],
)
def test_a_key_and_a_new_workspace_need_a_name_that_the_api_takes(
    sendtide: Sendtide, services: Services, name: str, workspace: str, told: str
) -> None:
    result = sendtide("keys", "create", "--name", name, "--scopes", "read", "--workspace", workspace)
    assert result.exit_code == 1
    assert told in result.stderr
    with services.store.read() as reader:
        assert reader.workspace(workspace) is None


def test_a_database_that_cannot_be_opened_is_told_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"this is no database" * 100)
    result = CliRunner().invoke(main, ["keys", "list", "--database", f"sqlite:///{tmp_path}/x.db"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")


#: Commands that begin nothing: what they are to work on is there.
ON_WHAT_IS_THERE = [
    ["archive", "--before", "2026-01"],
    ["audit"],
    ["card", "pol_1"],
    ["decide", "who.csv", "--campaign", "spring", "--out", "out.ndjson"],
    ["erase", "anna", "--yes"],
    ["evaluate", "--policy", "pol_1"],
    ["explain", "dec_1"],
    ["export", "decisions", "--out", "out.ndjson"],
    ["import", "recipients", "who.csv"],
    ["insights", "spring"],
    ["keys", "list"],
    ["keys", "revoke", "key_1"],
    ["relabel"],
    ["report", "spring"],
    ["retrain"],
    ["rules", "breaches"],
    ["score", "who.csv", "--campaign", "spring", "--outcome", "clicked", "--out", "out.ndjson"],
    ["tune"],
]


@pytest.mark.parametrize("arguments", ON_WHAT_IS_THERE, ids=" ".join)
def test_a_database_that_is_not_there_is_told_and_nothing_is_made(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("who.csv").write_text("recipient_id\na\n")
    result = CliRunner().invoke(main, [*arguments, "--database", "sqlite:///new/typo.db"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: new/typo.db: no such database\n"
    assert [one.name for one in tmp_path.iterdir()] == ["who.csv"]


@pytest.mark.parametrize("arguments", ON_WHAT_IS_THERE, ids=" ".join)
def test_a_workspace_that_is_not_there_is_told(
    arguments: list[str], sendtide: Sendtide, spring: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("who.csv").write_text("recipient_id\na\n")
    result = sendtide(*arguments, "--workspace", "spirng")
    assert (result.exit_code, result.stdout) == (1, "")
    told = f"Error: no workspace 'spirng' in {sendtide.database}; there are: {spring.workspace_id}\n"
    assert result.stderr == told


HISTORY = """recipient_id,campaign_id,variant_id,channel,send_at,propensity,outcome.clicked
u1,spring,mens,email,2026-02-01T10:00:00Z,0.5,1
u2,spring,kids,email,2026-02-01T11:00:00Z,0.5,0
u3,spring,womens,push,2026-02-01T12:00:00Z,0.5,0
"""


def test_an_import_tells_bad_rows_by_file_and_line_and_counts_all(sendtide: Sendtide, spring: Campaign) -> None:
    file = sendtide.file("h.csv", HISTORY)
    result = sendtide("import", "history", file)
    assert result.exit_code == 0
    assert result.stdout == "3 rows: 2 stored, 0 known, 1 bad\n"
    assert result.stderr.startswith(f"{file}:3: variant_id: 'kids' is not one of the campaign's")

    result = sendtide("import", "history", file, "--json")
    assert orjson.loads(result.stdout) == {"rows": 3, "stored": 0, "known": 1, "bad": 1, "resumed": 1}
    told = orjson.loads(result.stderr)
    assert told["detail"].startswith(f"{file}:3: variant_id: 'kids' is not one of the campaign's")
    assert list(told["errors"]) == ["variant_id"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["import", "recipients", "who.csv"],
        ["decide", "who.csv", "--campaign", "spring", "--out", "out.ndjson"],
        ["decide", "who.csv", "--campaign", "spring", "--out", "parts", "--processes", "2"],
        ["score", "who.csv", "--campaign", "spring", "--outcome", "clicked", "--out", "out.ndjson"],
    ],
    ids=["import", "decide", "decide in parts", "score"],
)
def test_a_wrong_header_is_told_once_and_nothing_is_done(
    sendtide: Sendtide, spring: Campaign, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sendtide.folder)
    sendtide.file("who.csv", "foo,bar\n1,2\n3,4\n")
    result = sendtide(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: who.csv: foo: unknown column; known: recipient_id, ")
    assert result.stderr.count("\n") == 1
    assert not {"out.ndjson", "parts"} & {one.name for one in sendtide.folder.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["import", "recipients", "who.csv"], "their reasons stand above"),
        (
            ["decide", "who.csv", "--campaign", "spring", "--out", "out.ndjson"],
            "the column `error` in out.ndjson says why",
        ),
        (
            ["decide", "people", "--campaign", "spring", "--out", "parts", "--part-rows", "1"],
            "the column `error` in parts says why",
        ),
    ],
    ids=["import", "decide", "decide in parts"],
)
def test_a_run_in_which_every_row_failed_has_failed(
    sendtide: Sendtide, spring: Campaign, arguments: list[str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sendtide.folder)
    (sendtide.folder / "people").mkdir()
    for name in ("who.csv", "people/who.csv"):
        sendtide.file(name, "recipient_id,timezone\na,Mars/Base\nb,Mars/Base\n")
    result = sendtide(*arguments)
    assert result.exit_code == 1
    assert result.stderr.endswith(f"Error: all 2 rows failed; {why}\n")
    assert "2 failed" in result.stdout or "2 bad" in result.stdout


def test_a_strict_import_fails_on_the_first_bad_row(sendtide: Sendtide, spring: Campaign) -> None:
    result = sendtide("import", "history", sendtide.file("h.csv", HISTORY), "--strict")
    assert result.exit_code == 1
    assert "Error: line 3: variant_id" in result.stderr


@pytest.mark.parametrize("suffix", ["ndjson", "parquet"])
def test_decide_answers_a_row_for_every_row_in_order_and_the_same_again(
    sendtide: Sendtide, spring: Campaign, services: Services, suffix: str
) -> None:
    file = sendtide.file("who.csv", "recipient_id,timezone,context.age\na,Europe/Berlin,30\nb,Mars/Base,31\na,,32\n")
    out = sendtide.folder / f"out.{suffix}"

    first = sendtide.json("decide", file, "--campaign", "spring", "--out", str(out))
    assert first == {"decided": 2, "failed": 1, "file": str(out)}
    rows = _rows(out)
    assert [row["line"] for row in rows] == [2, 3, 4]
    assert [row["recipient_id"] for row in rows] == ["a", "b", "a"]
    assert "Mars/Base" in rows[1]["error"]["detail"]
    assert rows[0]["propensity"] > 0

    sendtide.ok("decide", file, "--campaign", "spring", "--out", str(out))
    assert [row["decision_id"] for row in _rows(out)] == [row["decision_id"] for row in rows]
    with services.store.read() as reader:
        assert len(reader.decisions("default", limit=10).items) == 2


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows = parquet.read_table(path).to_pylist()
        return [{**row, "error": row["error"] and orjson.loads(row["error"])} for row in rows]
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("more", [[], ["--processes", "2"]], ids=["a file", "a folder of parts"])
def test_decide_for_an_unknown_campaign_is_refused_before_the_first_row(
    sendtide: Sendtide, services: Services, more: list[str]
) -> None:
    setup.ensure_workspace(services, "default")
    file = sendtide.file("who.ndjson", '{"recipient_id":"a"}\n')
    out = sendtide.folder / ("out" if more else "out.ndjson")
    result = sendtide("decide", file, "--campaign", "nope", "--out", str(out), "--json", *more)
    assert (result.exit_code, result.stdout) == (1, "")
    told = orjson.loads(result.stderr)
    assert (told["code"], told["detail"]) == (
        "unknown_campaign",
        "campaign_id: no campaign 'nope' in this workspace",
    )
    assert not out.exists()


@pytest.mark.parametrize("what", ["decisions", "feedback"])
def test_exports_are_written_where_told(sendtide: Sendtide, spring: Campaign, what: str) -> None:
    sendtide.ok("import", "history", sendtide.file("h.csv", HISTORY))
    out = sendtide.folder / "log.parquet"
    assert sendtide.json("export", what, "--out", str(out)) == {"rows": 2, "file": str(out)}
    assert parquet.read_table(out).num_rows == 2


def test_an_export_begins_and_ends_where_a_report_does(sendtide: Sendtide, spring: Campaign) -> None:
    sendtide.ok("import", "history", sendtide.file("h.csv", HISTORY))
    out = str(sendtide.folder / "log.ndjson")
    for since, until, rows in (("2026-02-01", "2026-02-02", 2), ("2026-02-01T11:00:00", "2026-02-02", 1)):
        assert sendtide.json("export", "decisions", "--out", out, "--since", since, "--until", until)["rows"] == rows
        sendtide.ok("report", "spring", "--since", since, "--until", until)


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["recipient", "--out", "x.ndjson"], 2, "missing: --recipient ID"),
        (["decisions", "--out", "x.ndjson", "--recipient", "u1"], 2, "--recipient goes with"),
        (["recipient", "--out", "x.ndjson", "--recipient", "u1", "--since", "2026-01-01T00:00:00Z"], 2, "everything"),
        (["decisions", "--out", "x.xls"], 1, ".parquet"),
        (["decisions", "--out", "x.ndjson", "--since", "yesterday"], 1, "--since: 'yesterday' must be an RFC 3339"),
        (["decisions", "--out", "no/such/x.ndjson"], 1, "no/such/x.ndjson: No such file"),
    ],
)
def test_an_export_that_makes_no_sense_says_why(
    sendtide: Sendtide, spring: Campaign, arguments: list[str], code: int, named: str
) -> None:
    result = sendtide("export", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert named in result.stderr


def test_a_retrain_without_enough_rows_says_so_and_leaves_a_row(
    sendtide: Sendtide, spring: Campaign, services: Services
) -> None:
    answer = sendtide.json("retrain")
    assert answer["status"] == "skipped"
    assert "matured rows" in answer["verdicts"][0]["reason"]
    with services.store.read() as reader:
        run = reader.training_run("default", answer["run_id"])
    assert run is not None
    assert (run.status, run.trigger, run.finished_at is not None) == ("skipped", "cli", True)
    assert "spring: skipped, 0 matured rows" in sendtide.ok("retrain", "--campaign", "spring")


def test_a_verdict_is_printed_in_numbers_that_people_read(
    sendtide: Sendtide, spring: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = {
        "campaign_id": "spring",
        "decision": "reject",
        "reason": "failed: value",
        "rows": 5_427,
        "conditions": [
            {"name": "value", "passed": False, "figure": -0.3832495822219651, "limit": 0.0, "detail": "lower bound"},
            {"name": "support.weight", "passed": False, "figure": None, "limit": 30.0, "detail": "largest weight"},
        ],
        "drift": {"alarms": [{"what": "plan", "figure": 0.31234567, "limit": 0.2}]},
    }
    monkeypatch.setattr(training, "carry_out", lambda *_: Ended("rejected", (verdict,)))
    assert sendtide.ok("retrain").splitlines()[:4] == [
        "spring: reject, failed: value (5427 rows)",
        "  FAIL value: -0.3832 against 0, lower bound",
        "  FAIL support.weight: – against 30, largest weight",
        "  alarm: plan, 0.3123 against 0.2",
    ]


def test_a_retrain_in_which_a_campaign_fails_has_exit_code_1_and_says_which(
    sendtide: Sendtide, spring: Campaign, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(services: Services, run: TrainingRun) -> Ended:
        apart = Apart("default", campaigns={"spring": "KeyError: 'chat'"})
        return Ended("failed", apart.answers, apart.error)

    monkeypatch.setattr(training, "carry_out", ended)
    result = sendtide("retrain")
    assert result.exit_code == 1
    assert "spring: failed, an error of the service" in result.stdout
    assert "campaign spring: KeyError: 'chat'" in result.stderr


def test_a_retrain_is_refused_while_another_goes_on(sendtide: Sendtide, spring: Campaign, services: Services) -> None:
    now = services.clock()
    services.store.write(lambda writer: writer.take_lease(lease_name("default"), "else", now, now + LEASE))
    result = sendtide("retrain")
    assert result.exit_code == 1
    assert "another training run" in result.stderr


def test_a_retrain_of_an_unknown_campaign_is_refused_and_frees_the_lease(
    sendtide: Sendtide, spring: Campaign, services: Services
) -> None:
    assert "no campaign 'nope'" in sendtide("retrain", "--campaign", "nope").stderr
    sendtide.ok("retrain")


def test_serve_and_schedule_have_a_flag_for_each_of_their_settings() -> None:
    found = dict(OURS)
    serve = {param.name for param in found[("serve",)].params}
    assert set(SETTINGS) <= serve
    assert Settings().scheduler


@pytest.mark.usefixtures("spring")
def test_a_command_of_another_package_that_cannot_be_loaded_spoils_no_other(
    sendtide: Sendtide, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import EntryPoint

    from optimizer.cli import group

    points = [EntryPoint("broken", "no.such:thing", group.COMMANDS), EntryPoint("odd", "os:path", group.COMMANDS)]

    def installed(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [point for point in points if point.group == group and name in (None, point.name)]

    monkeypatch.setattr(group, "entry_points", installed)

    shown = CliRunner().invoke(main, ["--help"])
    assert "Can't be loaded" in shown.stdout
    assert CliRunner().invoke(main, ["broken"]).exit_code == 1
    assert "module is no command" in CliRunner().invoke(main, ["odd"]).stderr
    sendtide.ok("keys", "list")


def test_packages_of_another_distribution_in_the_place_of_ours_stop_the_start(
    sendtide: Sendtide, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.util import find_spec

    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: find_spec("click") if name == "storage" else find_spec(name)
    )
    result = sendtide("keys", "list")
    assert result.exit_code == 2
    assert "must lie side by side" in result.stderr
