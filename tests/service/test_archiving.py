"""The archive at work: nothing that anybody reads changes, whatever ends a run, and whoever is erased leaves it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from errno import ENOSPC
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
import pytest

from optimizer.config import Settings
from optimizer.errors import Conflict, Unrecorded
from optimizer.service import erasing, exports, feedback, settle, setup, upkeep
from optimizer.service.archiving import Archiving, archive
from optimizer.service.cleaning import clean
from optimizer.service.explain import explain
from optimizer.service.ingest import ingest
from optimizer.service.report import report
from optimizer.service.requests import DecisionRequest, EventInput, VendorEvent
from optimizer.service.wiring import Services, open_services
from simulations.audit import audit
from storage import parquet
from storage.backup import backup, restore
from storage.errors import ArchiveUnreadable
from storage.log import Decision
from storage.port import Reader, Writer
from storage.records import OutcomeWeight, Requirement, Variant
from tests.service.asking import ask, stored
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign

T = TypeVar("T")
DAYS = 80
PEOPLE = 7
APRIL = datetime(2026, 4, 1, tzinfo=UTC)
MAY = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def services(database: str, clock: FakeClock, tmp_path: Path) -> Iterator[Services]:
    settings = Settings(database=database, archive_folder=str(tmp_path / "archive"), report_folder=str(tmp_path / "r"))
    opened = open_services(settings, clock, seed=7, watch=False)
    setup.ensure_workspace(opened, WORKSPACE)
    yield opened
    opened.close()


@pytest.fixture
def decided(services: Services, clock: FakeClock) -> list[Decision]:
    """Two decisions a day from March on, sent, opened and bought by some; the last ones are still open."""
    shop = campaign(
        objective={"clicked": OutcomeWeight(fixed=1.0), "converted": OutcomeWeight(per_value=1.0)},
        attribution_hours={"clicked": 24.0, "converted": 48.0},
    )
    setup.put_campaign(services, shop)
    made = []
    for day in range(DAYS):
        for half in range(2):
            n = 2 * day + half
            who = f"person-{n % PEOPLE}"
            one = ask(
                services, who, request_id=f"request-{n}", context={"cart": f"secret-{n % PEOPLE}"}, immediate=True
            )
            made.append(one)
            if one.status == "reserved" and day < DAYS - 2:
                settle.confirm(services, WORKSPACE, one.decision_id, clock(), "sendgrid", f"message-{n}")
                if n % 3 == 0:
                    happened(services, n, one, "clicked")
            if n % 5 == 0:
                bought = EventInput("converted", clock(), event_id=f"order-{n}", recipient_id=who, value=n / 7)
                ingest(services, WORKSPACE, [bought])
        clock.forward(days=1)
    return made


def happened(services: Services, n: int, one: Decision, kind: str) -> int:
    event = EventInput(kind, services.clock(), event_id=f"{kind}-{n}", decision_id=one.decision_id)
    return ingest(services, WORKSPACE, [event]).accepted


def read(services: Services, query: Callable[[Reader], T]) -> T:
    with services.store.read() as reader:
        return query(reader)


def told(services: Services) -> tuple[Any, ...]:
    """What is learned from, what is reported, and what is proved."""
    services.reports.__init__()  # type: ignore[misc]  # nothing is kept from before
    log = read(services, lambda reader: feedback.load(reader, WORKSPACE, services.clock()))
    return (
        log.rows,
        report(services, WORKSPACE, "spring"),
        read(services, lambda reader: audit(reader, WORKSPACE)),
        read(services, lambda reader: list(reader.feedback(WORKSPACE))),
    )


def archived(services: Services) -> list[dict[str, Any]]:
    """The rows of all files, as any other program reads them."""
    files = sorted(services.store.archive.glob("*/*/*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist() if row["decision_id"] is not None]


def in_tables(services: Services) -> int:
    """How many decisions could still be archived or are open."""
    total = len(read(services, lambda reader: list(reader.feedback(WORKSPACE))))
    keys = {row["decision_id"] for row in archived(services)}
    return total - len(keys)


def test_months_move_into_folders_and_everything_reads_on(services: Services, decided: list[Decision]) -> None:
    before = told(services)
    assert before[2].clean
    would = archive(services, WORKSPACE, MAY, dry_run=True)
    assert not services.store.archive.exists()
    done = archive(services, WORKSPACE, MAY + timedelta(days=9))
    assert done == replace(would, files=2, bytes=done.bytes)
    assert done.decisions == sum(one.decided_at < MAY for one in decided)
    assert done.bytes == sum(file.stat().st_size for file in services.store.archive.glob("*/*/*.parquet"))
    folders = sorted(
        str(path.parent.relative_to(services.store.archive)) for path in services.store.archive.rglob("*.p*")
    )
    assert folders == ["acme/2026-03", "acme/2026-04"]
    assert told(services) == before
    assert archive(services, WORKSPACE, MAY) == Archiving()
    assert {row["recipient_id"] for row in archived(services)} == {f"person-{n}" for n in range(PEOPLE)}
    assert min(row["decided_at"] for row in archived(services)) == START


def test_what_is_open_or_may_still_be_answered_stays(
    services: Services, decided: list[Decision], clock: FakeClock
) -> None:
    count = archive(services, WORKSPACE, clock() + timedelta(days=40), dry_run=True).decisions
    assert count == sum(one.decided_at < MAY for one in decided)  # no month that is not over is cut
    clock.forward(days=-DAYS + 31)
    assert clock() > APRIL
    settled = archive(services, WORKSPACE, APRIL, dry_run=True).decisions
    assert settled == sum(one.decided_at <= clock() - timedelta(hours=48) for one in decided if one.decided_at < APRIL)


def test_what_a_condition_may_ask_for_stays(services: Services, decided: list[Decision], clock: FakeClock) -> None:
    needs = Requirement(campaign_id="spring", variant_id="mens", outcome="clicked", happened=True, within_hours=5.0)
    follow_up = campaign(campaign_id="next", variants=(Variant("more", requires=(needs,)),))
    setup.put_campaign(services, follow_up)
    assert archive(services, WORKSPACE, MAY, dry_run=True).decisions == sum(
        one.decided_at < MAY and one.send_at is None for one in decided
    )
    clock.forward(days=401)
    upkeep.expire(services, WORKSPACE)
    assert archive(services, WORKSPACE, clock(), dry_run=True).decisions == len(decided) - 1


def test_an_erasure_that_cannot_write_the_archive_says_so_and_is_done_again(
    services: Services, decided: list[Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(services, WORKSPACE, MAY)

    def full(*_: object) -> None:
        raise OSError(ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "flush", full)
        assert not erasing.erase(services, WORKSPACE, "person-3").scrubbed
    assert "person-3" in str(archived(services))
    assert erasing.erase(services, WORKSPACE, "person-3").scrubbed
    assert "person-3" not in str(archived(services))


class Killed(BaseException):
    """The process is dead: nothing it does from now on comes through."""


def kill_at(services: Services, monkeypatch: pytest.MonkeyPatch, step: int) -> bool:
    """Runs the archive and kills it before its ``step``-th effect; whether there were so many."""
    left = [step]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(services.store, "write", counted(services.store.write))
        for name in ("replace", "unlink", "mkdir"):
            patch.setattr(Path, name, counted(getattr(Path, name)))
        patch.setattr(parquet, "flush", counted(parquet.flush))
        try:
            archive(services, WORKSPACE, APRIL, step=20)
        except Killed:
            return True
    return False


def test_a_run_that_is_killed_loses_and_doubles_nothing(
    services: Services, decided: list[Decision], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = told(services)[0]
    count = sum(one.decided_at < APRIL for one in decided)
    steps = 0
    while kill_at(services, monkeypatch, steps):
        steps += 1
        assert read(services, lambda reader: feedback.load(reader, WORKSPACE, services.clock())).rows == before
        clock.now += timedelta(minutes=11)  # the dead one's lease runs out
        archive(services, WORKSPACE, APRIL)
        clock.now -= timedelta(minutes=11)
        rows = archived(services)
        assert len(rows) == len({row["decision_id"] for row in rows}) == count
        assert not list(services.store.archive.rglob("*.part"))
        assert read(services, lambda reader: feedback.load(reader, WORKSPACE, services.clock())).rows == before
        for n in range(PEOPLE):
            services.store.write(lambda writer, n=n: writer.bring_back(WORKSPACE, f"person-{n}"))  # type: ignore[misc]
        clean(services, WORKSPACE)
    assert steps > 10


def test_two_runs_keep_out_of_each_others_way(
    services: Services, decided: list[Decision], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kill_at(services, monkeypatch, 12)
    with pytest.raises(Conflict, match="another run"):
        archive(services, WORKSPACE, APRIL)
    upkeep.retain(services, WORKSPACE)  # a second scheduler leaves it to the first
    clock.forward(minutes=11)
    assert archive(services, WORKSPACE, APRIL).decisions > 0


def test_the_folder_of_another_installation_is_refused(
    services: Services, decided: list[Decision], tmp_path: Path
) -> None:
    archive(services, WORKSPACE, APRIL)
    other = replace(services, salt=b"another")
    with pytest.raises(Conflict, match="SENDTIDE_ARCHIVE_FOLDER"):
        archive(other, WORKSPACE, APRIL)


def test_a_restored_database_leaves_the_files_of_the_one_that_lives_alone(
    services: Services, decided: list[Decision], clock: FakeClock, tmp_path: Path
) -> None:
    """It was backed up before anything was archived, so that a restore has no files to copy; then both archive."""
    file = tmp_path / "backup.sqlite"
    backup(services.settings.database, file, archive=services.store.archive)
    archive(services, WORKSPACE, APRIL)
    before = told(services)
    settings = replace(services.settings, database=f"sqlite:///{tmp_path}/restored.db")
    restore(file, settings.database, archive=settings.archive_path)
    with closing(open_services(settings, clock, watch=False)) as restored:
        with pytest.raises(Conflict, match="SENDTIDE_ARCHIVE_FOLDER"):
            archive(restored, WORKSPACE, APRIL)
        assert clean(restored, WORKSPACE) == 0
    parquet.read_group.cache_clear()
    assert told(services) == before


def test_a_folder_that_is_younger_than_its_database_is_told_and_one_copied_before_it_as_well_is_whole(
    services: Services, decided: list[Decision], clock: FakeClock, tmp_path: Path
) -> None:
    archive(services, WORKSPACE, APRIL)
    file, folder, whole = tmp_path / "dump.sqlite", services.store.archive, told(services)[3]
    shutil.copytree(folder, tmp_path / "before")
    backup(services.settings.database, file, archive=folder)
    (late,) = [one for one in decided if one.decided_at < APRIL and one.status == "reserved"][:1]
    assert happened(services, 1000, late, "delivered") == 1
    archive(services, WORKSPACE, APRIL)  # which writes the file anew without that decision
    shutil.copytree(folder, tmp_path / "after")
    parquet.read_group.cache_clear()
    settings = replace(services.settings, database=f"sqlite:///{file}", archive_folder=str(tmp_path / "after"))
    with closing(open_services(settings, clock, watch=False)) as restored:
        with pytest.raises(ArchiveUnreadable, match="an older copy"):
            told(restored)
        shutil.copytree(tmp_path / "before", tmp_path / "after", dirs_exist_ok=True)
        parquet.read_group.cache_clear()
        assert told(restored)[3] == whole


def test_nothing_is_said_to_be_clean_in_the_folder_of_another(services: Services, decided: list[Decision]) -> None:
    archive(services, WORKSPACE, APRIL)
    (services.store.archive / "installation").write_text("another")
    assert not erasing.erase(services, WORKSPACE, "person-3").scrubbed
    assert read(services, lambda reader: reader.cleaning_wanted(WORKSPACE)) is not None


def test_a_repeated_request_is_answered_from_the_archive(services: Services, decided: list[Decision]) -> None:
    archive(services, WORKSPACE, MAY)
    before = in_tables(services)
    for n in (0, 17, 40):
        again = ask(
            services,
            f"person-{n % PEOPLE}",
            request_id=f"request-{n}",
            context={"cart": f"secret-{n % PEOPLE}"},
            immediate=True,
        )
        assert again == stored(services, decided[n])
    with pytest.raises(Conflict):
        ask(services, "person-1", request_id="request-0")
    assert in_tables(services) == before


def test_a_request_that_repeats_what_cannot_be_read_spoils_no_other(
    services: Services, decided: list[Decision], caplog: pytest.LogCaptureFixture
) -> None:
    archive(services, WORKSPACE, APRIL)
    services.store.archive.rename(services.store.archive.with_name("elsewhere"))
    parquet.read_group.cache_clear()
    rows = [DecisionRequest("spring", f"new-{n}", request_id=f"new-{n}", immediate=True) for n in range(6)]
    lost = {1, 4}
    for n in lost:
        rows[n] = replace(rows[n], recipient_id=f"person-{n}", request_id=f"request-{n}")
    answered = services.decider.answer_batch(WORKSPACE, rows)
    assert {n for n, one in enumerate(answered) if isinstance(one, Unrecorded)} == lost
    with ThreadPoolExecutor(8) as pool:  # single requests that come together share their reads
        asked = [pool.submit(services.decider.decide, WORKSPACE, one) for one in 5 * rows]
    failed = {n for n, one in enumerate(asked) if isinstance(one.exception(), Unrecorded)}
    assert failed == {n for n in range(30) if n % 6 in lost}
    assert [one.result()[1] for n, one in enumerate(asked) if n not in failed] == [False] * 20
    assert "can't be read" in caplog.text
    with pytest.raises(ArchiveUnreadable):  # who asks for the same batch again loses nothing, and is to wait
        services.decider.decide_batch(WORKSPACE, rows, "run")


def test_a_late_webhook_is_applied(services: Services, decided: list[Decision], clock: FakeClock) -> None:
    """By the provider's message id, the decision's id, and again; all of it as if nothing had been archived."""
    archive(services, WORKSPACE, MAY)
    n = next(n for n, one in enumerate(decided) if one.status == "reserved")
    late = VendorEvent(
        "unsubscribed",
        clock(),
        event_id="left",
        provider="sendgrid",
        message_id=f"message-{n}",
        vendor="sendgrid",
        words={},
    )
    told_ = ingest(services, WORKSPACE, [late])
    assert (told_.accepted, told_.unmatched) == (1, 0)
    assert ingest(services, WORKSPACE, [late]).duplicates == 1
    assert happened(services, 9_999, decided[n], "clicked") == 1
    assert ingest(
        services, WORKSPACE, [EventInput("clicked", clock(), event_id="other", request_id="request-4")]
    ).accepted
    with services.store.read() as reader:
        person = reader.recipient(WORKSPACE, decided[n].recipient_id)
        assert person is not None
        assert any(one.channel == decided[n].channel for one in person.suppressed)
        kinds = {event.type for event in reader.events(WORKSPACE, decided[n]) if event.decision_id}
    assert kinds >= {"unsubscribed", "clicked"}
    before = told(services)
    assert archive(services, WORKSPACE, MAY).decisions == 1  # it goes back; the newest event stays
    assert told(services) == before


def test_a_late_confirm_is_applied(services: Services, decided: list[Decision], clock: FakeClock) -> None:
    last = decided[-1]
    assert last.status in ("reserved", "withheld", "no_send")
    clock.forward(days=60)
    upkeep.expire(services, WORKSPACE)
    archive(services, WORKSPACE, clock())
    assumed = next(
        one for one in decided[-4:] if one.status == "reserved" and stored(services, one).status == "assumed_sent"
    )
    confirmed = settle.confirm(services, WORKSPACE, assumed.decision_id, clock(), "sendgrid", "late-message")
    assert (confirmed.status, stored(services, assumed).message_id) == ("sent", "late-message")
    assert told(services)[2].clean


def test_an_erased_persons_bytes_leave_the_files(services: Services, decided: list[Decision], clock: FakeClock) -> None:
    clock.forward(days=2)
    upkeep.expire(services, WORKSPACE)
    archive(services, WORKSPACE, MAY)
    words = ["person-3", "secret-3", *(f"'request-{n}'" for n in range(3, 120, PEOPLE))]
    assert any(word in str(archived(services)) for word in words)
    n = next(n for n in range(3, 100, PEOPLE) if decided[n].status == "reserved")
    reported = told(services)[1]
    erased = erasing.erase(services, WORKSPACE, "person-3")
    assert erased.decisions == sum(one.recipient_id == "person-3" for one in decided)
    files = list(services.store.archive.rglob("*"))
    assert not [word for word in words if word in str(archived(services))]
    assert len([path for path in files if path.suffix == ".parquet"]) == 2
    late = EventInput("clicked", services.clock(), event_id="too-late", decision_id=decided[n].decision_id)
    assert [one.code for one in ingest(services, WORKSPACE, [late]).rejected] == ["erased"]
    after = told(services)
    assert after[1]["decisions"] == reported["decisions"]
    assert after[2].clean
    assert archive(services, WORKSPACE, MAY).decisions > 0  # nameless now
    assert not [word for word in words if word in str(archived(services))]
    assert told(services) == after


def test_exports_and_explanations_are_the_same(services: Services, decided: list[Decision], tmp_path: Path) -> None:
    def everything(name: str) -> list[bytes]:
        found = []
        for what in ("decisions", "feedback"):
            path = tmp_path / f"{name}-{what}.ndjson"
            exports.export(services, WORKSPACE, what, path, exports.Selection())
            found.append(path.read_bytes())
        return [*found, repr(exports.of_recipient(services, WORKSPACE, "person-2")).encode()]

    before = everything("before")
    one = next(one for one in decided if one.status == "reserved")
    explained = explain(services, WORKSPACE, one.decision_id)
    archive(services, WORKSPACE, MAY)
    assert everything("after") == before
    assert explain(services, WORKSPACE, one.decision_id) == explained


def test_the_scheduler_archives_by_age_and_retention_goes_on(
    services: Services, decided: list[Decision], clock: FakeClock
) -> None:
    upkeep.retain(services, WORKSPACE)
    assert not archived(services)
    by_age = replace(services, settings=replace(services.settings, archive_days=30))
    upkeep.retain(by_age, WORKSPACE)
    assert {row["decided_at"].month for row in archived(services)} == {3}
    clock.forward(days=400)
    expired = replace(by_age, settings=replace(by_age.settings, retention_days=400))
    upkeep.retain(expired, WORKSPACE)
    clock.forward(hours=12)
    upkeep.retain(expired, WORKSPACE)
    left = read(services, lambda reader: [row.decision.decided_at for row in reader.feedback(WORKSPACE)])
    assert min(left) >= clock() - timedelta(days=400 + 31)
    assert len(list(services.store.archive.rglob("*.parquet"))) == len(
        read(services, lambda reader: reader.archive_files(WORKSPACE))
    )


def test_the_last_file_goes_with_its_rows(services: Services, decided: list[Decision], clock: FakeClock) -> None:
    archive(services, WORKSPACE, APRIL)
    clock.forward(days=500)
    upkeep.retain(services, WORKSPACE)
    assert not list(services.store.archive.rglob("*.parquet"))
    assert not read(services, lambda reader: reader.archive_files(WORKSPACE))


def test_what_is_erased_during_a_run_leaves_its_files_at_its_end(
    services: Services, decided: list[Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the person lie in the file and are not moved yet."""
    real = services.store.write
    steps: list[int] = []
    scrubbed: list[bool] = []

    def write(work: Callable[[Writer], Any], **named: Any) -> Any:
        steps.append(1)
        if len(steps) == 4:
            monkeypatch.setattr(services.store, "write", real)
            scrubbed.append(erasing.erase(services, WORKSPACE, "person-3").scrubbed)
        return real(work, **named)

    monkeypatch.setattr(services.store, "write", write)
    archive(services, WORKSPACE, APRIL, step=20)
    assert scrubbed == [False]
    assert read(services, lambda reader: reader.cleaning_wanted(WORKSPACE)) is None
    assert "person-3" not in str(archived(services))
    assert "secret-3" not in str(archived(services))
    rows = read(services, lambda reader: list(reader.feedback(WORKSPACE)))
    assert len(rows) == len({row.decision.decision_id for row in rows}) == len(decided)
