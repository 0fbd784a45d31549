"""``sendtide import`` killed with SIGKILL in the middle: run again, nothing is lost and nothing is there twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from optimizer.service.wiring import Services
from storage.records import Campaign
from tests.cli.conftest import Sendtide

ROWS = 25
#: Runs an import in chunks of ten rows and kills itself in or after the second one.
VICTIM = """
import itertools, os, signal, sys
from optimizer.cli import main
from optimizer.service import imports, importtargets

imports.CHUNK, count, (when, *arguments) = 10, itertools.count(1), sys.argv[1:]
inside, after = importtargets.Place.note, imports._Run.store

def die(at):
    if when == at and next(count) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

def note(place, rows):
    noted = inside(place, rows)
    return lambda writer: (noted(writer), die("inside"))

def store(run, first, rows):
    part = after(run, first, rows)
    die("after")
    return part

importtargets.Place.note, imports._Run.store = note, store
main(arguments)
"""
HEADERS = {
    "recipients": "recipient_id,attributes.n",
    "events": "type,recipient_id,occurred_at,value",
    "history": "recipient_id,campaign_id,variant_id,channel,send_at,propensity,outcome.clicked",
}
LINES = {
    "recipients": "u{n},{n}",
    "events": "viewed,u{n},2026-01-05T09:00:00Z,{n}",
    "history": "u{n},spring,mens,email,2026-01-05T09:00:00Z,0.5,1",
}


def file(folder: Path, kind: str) -> str:
    path = folder / f"{kind}.csv"
    lines = [LINES[kind].format(n=n) for n in range(ROWS)]
    path.write_text("\n".join([HEADERS[kind], *lines]) + "\n")
    return str(path)


def stored(services: Services, kind: str) -> list[str]:
    """One entry for each thing that is stored, by recipient."""
    people = [f"u{n}" for n in range(ROWS)]
    with services.store.read() as reader:
        if kind == "recipients":
            return sorted(f"{one.recipient_id} v{one.version}" for one in reader.recipients("default", people).values())
        if kind == "events":
            return sorted(u for u in people for _ in reader.past("default", u, services.clock(), limit=9))
        return sorted(
            f"{row.decision.recipient_id} {event.type}" for row in reader.feedback("default") for event in row.events
        )


@pytest.mark.parametrize("when", ["inside", "after"])
@pytest.mark.parametrize("kind", sorted(LINES))
def test_a_killed_import_goes_on_where_it_stopped(
    sendtide: Sendtide, services: Services, spring: Campaign, kind: str, when: str
) -> None:
    path = file(sendtide.folder, kind)
    arguments = ["import", kind, path, "--database", sendtide.database]
    victim = subprocess.run([sys.executable, "-c", VICTIM, when, *arguments], capture_output=True, check=False)
    assert victim.returncode == -signal.SIGKILL, victim.stderr.decode()
    done = 10 if when == "inside" else 20
    assert len(stored(services, kind)) == done

    report = sendtide.json("import", kind, path)
    assert report == {"rows": ROWS, "stored": ROWS - done, "known": 0, "bad": 0, "resumed": done}
    mark = {"recipients": " v1", "events": "", "history": " clicked"}[kind]
    assert stored(services, kind) == sorted(f"u{n}{mark}" for n in range(ROWS))
    again = sendtide.json("import", kind, path)
    assert (again["stored"], again["resumed"]) == ((ROWS, 0) if kind == "recipients" else (0, ROWS))
