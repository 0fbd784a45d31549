"""``sendtide migrate``, ``copy``, ``backup`` and ``restore``, as they are called."""

from __future__ import annotations

from pathlib import Path

import orjson
from click.testing import CliRunner

from optimizer.cli import main
from optimizer.service.requests import DecisionRequest
from optimizer.service.wiring import Services
from storage.open import open_rows
from storage.postgres.migrate import STEPS
from storage.records import Campaign
from storage.sql.rows import COPYING
from tests.cli.conftest import Sendtide
from tests.postgresql import Server


def test_a_grown_installation_moves_to_postgresql_and_goes_on_there(
    sendtide: Sendtide, services: Services, spring: Campaign, postgresql: Server
) -> None:
    request = DecisionRequest("spring", "u1", request_id="r1")
    decided, _ = services.decider.decide("default", request)
    url = postgresql.take()
    told = CliRunner().invoke(main, ["copy", "--from", sendtide.database, "--to", url, "--json"])
    assert told.exit_code == 0, told.stderr
    rows = {one["table"]: one["rows"] for one in orjson.loads(told.stdout)}
    assert (rows["decisions"], rows["campaigns"]) == (1, 1)
    moved = CliRunner().invoke(main, ["explain", decided.decision_id, "--json", "--database", url])
    assert moved.exit_code == 0, moved.stderr
    again = CliRunner().invoke(main, ["copy", "--from", sendtide.database, "--to", url])
    assert again.exit_code == 1
    assert "the target is not empty" in again.stderr
    postgresql.give_back(url)


def test_a_source_that_is_not_there_is_told_and_not_created(sendtide: Sendtide) -> None:
    result = sendtide("copy", "--from", f"sqlite:///{sendtide.folder}/typo.db")
    assert result.exit_code == 1
    assert result.stderr == f"Error: {sendtide.folder}/typo.db: no such database\n"
    assert not (sendtide.folder / "typo.db").exists()


def test_nothing_serves_a_copy_that_is_unfinished(sendtide: Sendtide) -> None:
    with open_rows(sendtide.database).writing() as writer:
        writer.put_fact(COPYING, "{}")
    result = sendtide("keys", "list")
    assert result.exit_code == 2
    assert "a copy into it is unfinished" in result.stderr


def test_a_backup_is_a_file_that_restores_and_serves(sendtide: Sendtide, spring: Campaign) -> None:
    file, new = sendtide.folder / "b.sqlite", f"sqlite:///{sendtide.folder}/new.db"
    assert sendtide.json("backup", str(file)) == {"file": str(file), "bytes": file.stat().st_size}
    refused = sendtide("backup", str(file))
    assert (refused.exit_code, "there already" in refused.stderr) == (1, True)
    told = CliRunner().invoke(main, ["restore", str(file), "--database", new])
    assert told.exit_code == 0, told.stderr
    assert told.stdout == f"{new} holds what {file} held\n"
    rules = CliRunner().invoke(main, ["rules", "breaches", "--json", "--database", new])
    assert rules.exit_code == 0, rules.stderr


def test_migrate_says_how_far_the_database_is_and_never_its_password(sendtide: Sendtide, postgresql: Server) -> None:
    assert sendtide.ok("migrate").startswith(f"{sendtide.database} is at 0")
    assert Path(sendtide.database.removeprefix("sqlite:///")).exists()
    url = postgresql.create(template=None)
    told = CliRunner().invoke(main, ["migrate", "--database", url.replace("postgres@", "postgres:secret@"), "--json"])
    assert told.exit_code == 0, told.stderr
    assert orjson.loads(told.stdout)["schema"] == STEPS[-1][0]
    assert "secret" not in told.output
    postgresql.drop(url)


def test_a_server_that_is_not_there_is_told_in_one_line_without_its_password() -> None:
    for command in (["keys", "list"], ["migrate"]):
        told = CliRunner().invoke(main, [*command, "--database", "postgresql://me:secret@127.0.0.1:1/x"])
        assert told.exit_code == 1
        assert told.stderr.startswith("Error: database postgresql://127.0.0.1/x: connection failed")
        assert "secret" not in told.output
