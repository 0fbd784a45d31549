"""No job of a running service opens the database's file but by SQLite (``storage.sqlite.connect`` says why)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

#: Erases, retains and backs up while the service is open; prints what of the database's files Python opened.
_JOBS = """
import os, sys
from pathlib import Path
from optimizer.config import Settings
from optimizer.first_start import example
from optimizer.service import erasing, setup, upkeep
from optimizer.service.requests import DecisionRequest
from optimizer.service.wiring import open_services
from storage.backup import backup
from storage.open import open_rows

file = Path(sys.argv[1])
files = {str(file) + ending for ending in ("", "-wal", "-shm")}
settings = Settings(database=f"sqlite:///{file}")
services = open_services(settings, watch=False)
setup.ensure_workspace(services, "default")
setup.put_campaign(services, example(services))
opened = set()
sys.addaudithook(lambda event, args: opened.add(str(args[0])) if event == "open" else None)
services.decider.decide("default", DecisionRequest("welcome", "person-1", context={"city": "Oberammergau"}))
erasing.erase(services, "default", "person-1")
upkeep.retain(services, "default")
backup(settings.database, file.with_name("backup"))
open_rows(settings.database)
services.store.check()
services.close()
assert str(file.with_name("backup.part")) in opened, opened  # the hook works
print(*opened & files)
"""


def test_erasing_retention_and_backups_leave_the_open_database_file_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _JOBS, str(tmp_path / "service.db")]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
