"""``sendtide archive``: old decisions go into files, and what comes after reads on."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from optimizer.cli import main
from optimizer.config import Settings
from optimizer.service import setup, upkeep
from optimizer.service.requests import DecisionRequest
from optimizer.service.wiring import open_services, utc_now
from tests.cli.conftest import Sendtide
from tests.service.conftest import campaign

AGE = 90


@pytest.fixture
def decided(sendtide: Sendtide) -> str:
    """A decision of long ago, and one of today; the id of the old one."""
    long_ago = utc_now() - timedelta(days=AGE + 40)
    for number, now in enumerate((long_ago, utc_now())):
        opened = open_services(Settings(database=sendtide.database), lambda now=now: now, watch=False)  # type: ignore[misc]
        setup.ensure_workspace(opened, "default")
        setup.put_campaign(opened, campaign(workspace_id="default", allow_no_send=False))
        made, _ = opened.decider.decide("default", DecisionRequest("spring", "u1", request_id=f"r{number}"))
        if number == 0:
            old = made
        else:
            upkeep.expire(opened, "default")
        opened.close()
    return old.decision_id


def test_old_decisions_go_by_date_or_age(sendtide: Sendtide, decided: str) -> None:
    tomorrow = (utc_now() + timedelta(days=1)).date().isoformat()
    would = sendtide.json("archive", "--before", tomorrow, "--dry-run")
    assert would == {"decisions": 1, "events": 0, "files": 0, "bytes": 0}
    assert "1 decisions and 0 events would go" in sendtide.ok("archive", "--archive-days", str(AGE), "--dry-run")
    assert "into 1 files" in sendtide.ok("archive", "--archive-days", str(AGE))
    (file,) = Path(f"{sendtide.folder}/test.db.archive/default").rglob("*.parquet")
    assert file.stat().st_mode & 0o777 == 0o600
    assert decided in sendtide.ok("explain", decided, "--json")
    assert sendtide.json("archive", "--before", tomorrow)["decisions"] == 0
    sendtide.ok("audit")


def test_where_nothing_is_to_go_no_folder_is_made(sendtide: Sendtide, decided: str) -> None:
    assert sendtide.json("archive", "--before", "2000-01")["decisions"] == 0
    assert not Path(f"{sendtide.folder}/test.db.archive").exists()


def test_without_a_date_and_an_age_nothing_is_archived(sendtide: Sendtide, decided: str) -> None:
    refused = sendtide("archive")
    assert refused.exit_code == 2
    assert "--before" in refused.stderr


def test_backups_and_copies_take_the_archive_along(sendtide: Sendtide, decided: str) -> None:
    sendtide.ok("archive", "--archive-days", str(AGE))
    folder = sendtide.folder
    sendtide.ok("backup", f"{folder}/b.sqlite")
    for arguments in (
        ("restore", f"{folder}/b.sqlite", "--database", f"sqlite:///{folder}/restored.db"),
        ("copy", "--from", sendtide.database, "--to", f"sqlite:///{folder}/copied.db"),
    ):
        told = CliRunner().invoke(main, arguments)
        assert told.exit_code == 0, told.stderr
    for name in ("b.sqlite", "restored.db", "copied.db"):
        assert len(list(Path(f"{folder}/{name}.archive").rglob("*.parquet"))) == 1
        told = CliRunner().invoke(main, ["explain", decided, "--json", "--database", f"sqlite:///{folder}/{name}"])
        assert told.exit_code == 0, told.stderr
    (file,) = Path(f"{folder}/test.db.archive").rglob("*.parquet")
    file.unlink()
    lost = sendtide("explain", decided)
    assert lost.exit_code == 1
    assert "SENDTIDE_ARCHIVE_FOLDER" in lost.stderr
