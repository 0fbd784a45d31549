"""Several at once that rewrite the archive's files: nothing is lost, what is not clean yet is told, and gets clean."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from optimizer.config import Settings
from optimizer.errors import Conflict
from optimizer.scheduler import CLEAN_SECONDS, Scheduler
from optimizer.service import setup, upkeep
from optimizer.service.archiving import archive
from optimizer.service.cleaning import clean, clean_wanted
from optimizer.service.erasing import erase
from optimizer.service.retrain import retrain
from optimizer.service.wiring import Services, open_services
from storage import parquet
from storage.port import Reader
from storage.records import Campaign
from tests.service.asking import ask
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.reserved import reserve

APRIL = datetime(2026, 4, 1, tzinfo=UTC)
PEOPLE = ("anna", "boris", "clara", "david")
COUNT = 40


@dataclass(frozen=True)
class Shop:
    """A service whose messages of March are archived."""

    services: Services
    clock: FakeClock

    def rows(self) -> int:
        """How many of the archived messages the log tells of."""
        parquet.read_group.cache_clear()
        with self.services.store.read() as reader:
            return len({row.decision.decision_id for row in reader.feedback(WORKSPACE, until=APRIL)})

    def named(self) -> set[str]:
        """Whom any file names, whether or not the database names the file."""
        files = [path for path in self.services.store.archive.rglob("*") if path.is_file() and ".parquet" in path.name]
        assert not [path for path in files if path.suffix == ".part"]
        told = "".join(str(pq.read_table(path).to_pylist()) for path in files)
        return {who for who in PEOPLE if f"'{who}'" in told}

    def whole(self) -> bool:
        """Whether files are what the database says that they are, and nothing else is there."""
        with self.services.store.read() as reader:
            files = reader.archive_files(WORKSPACE)
        folder = self.services.store.archive
        assert {folder / file.path for file in files} == set(folder.glob("*/*/part-*"))
        return all(parquet.checksum_of(folder / file.path) == file.checksum for file in files)

    def waits(self) -> bool:
        """Whether an erasure waits for files to be cleaned."""
        with self.services.store.read() as reader:
            return reader.cleaning_wanted(WORKSPACE) is not None


@pytest.fixture
def shop(database: str, clock: FakeClock, tmp_path: Path) -> Iterator[Shop]:
    opened = open_services(Settings(database=database, archive_folder=str(tmp_path / "archive")), clock, 7, watch=False)
    setup.ensure_workspace(opened, WORKSPACE)
    setup.put_campaign(opened, campaign())
    for n in range(COUNT):
        reserve(opened, f"dec_{n}", n, recipient_id=PEOPLE[n % len(PEOPLE)])
    clock.forward(days=60)
    upkeep.expire(opened, WORKSPACE)
    ask(opened, "somebody")
    assert archive(opened, WORKSPACE, APRIL).decisions == COUNT
    yield Shop(opened, clock)
    opened.close()


def while_written(monkeypatch: pytest.MonkeyPatch, before: Callable[[], Any], after: Callable[[Path], Any]) -> None:
    """Lets something happen once, before and after the next file is written."""
    real = parquet.write

    def write(path: Path, groups: Any) -> bytes:
        monkeypatch.setattr(parquet, "write", real)
        before()
        checksum = real(path, groups)
        after(path)
        return checksum

    monkeypatch.setattr(parquet, "write", write)


def nothing(*_: object) -> None:
    pass


def test_an_erasure_during_another_tells_that_files_are_not_clean(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    scrubbed: list[bool] = []

    def second() -> None:
        scrubbed.append(erase(shop.services, WORKSPACE, "boris").scrubbed)

    while_written(monkeypatch, second, nothing)
    assert erase(shop.services, WORKSPACE, "anna").scrubbed
    assert scrubbed == [False]
    assert (shop.rows(), shop.whole(), shop.waits()) == (COUNT, True, True)
    assert shop.named() == {"boris", "clara", "david"}
    assert clean_wanted(shop.services, WORKSPACE) == COUNT // len(PEOPLE)
    assert (shop.rows(), shop.whole(), shop.waits()) == (COUNT, True, False)
    assert shop.named() == {"clara", "david"}
    assert clean_wanted(shop.services, WORKSPACE) == 0


def test_an_erasure_that_does_not_get_the_archive_scrubs_the_database(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: list[set[str]] = []

    def scrub(told: set[str]) -> bool:
        words.append(told)
        return True

    monkeypatch.setattr(shop.services.store, "scrub", scrub)
    while_written(monkeypatch, lambda: erase(shop.services, WORKSPACE, "boris"), nothing)
    erase(shop.services, WORKSPACE, "anna")
    assert [{"anna", "boris"} & told for told in words] == [{"boris"}, {"anna"}]


def test_an_erasure_that_is_done_again_cleans(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    while_written(monkeypatch, lambda: erase(shop.services, WORKSPACE, "boris"), nothing)
    erase(shop.services, WORKSPACE, "anna")
    assert erase(shop.services, WORKSPACE, "boris").scrubbed
    assert (shop.named(), shop.waits()) == ({"clara", "david"}, False)


def test_a_run_keeps_out_of_the_way_of_an_erasure(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: Path) -> None:
        with pytest.raises(Conflict, match="another run"):
            archive(shop.services, WORKSPACE, APRIL)
        with pytest.raises(Conflict, match="another run"):
            clean(shop.services, WORKSPACE)
        upkeep.retain(shop.services, WORKSPACE)
        clean_wanted(shop.services, WORKSPACE)

    while_written(monkeypatch, nothing, run)
    assert erase(shop.services, WORKSPACE, "anna").scrubbed
    assert (shop.rows(), shop.whole(), shop.waits()) == (COUNT, True, False)


@pytest.mark.parametrize("before", [True, False])
def test_who_stood_still_while_another_took_over_spoils_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, *, before: bool
) -> None:
    def take_over(*_: object) -> None:
        shop.clock.forward(minutes=11)
        erase(shop.services, WORKSPACE, "boris")
        assert shop.named() == {"clara", "david"}

    while_written(monkeypatch, *((take_over, nothing) if before else (nothing, take_over)))
    erase(shop.services, WORKSPACE, "anna")
    clean(shop.services, WORKSPACE)
    assert (shop.rows(), shop.whole()) == (COUNT, True)
    assert shop.named() == {"clara", "david"}


@pytest.mark.parametrize("before", [True, False])
def test_a_run_that_stood_still_takes_no_other_files_number(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, *, before: bool
) -> None:
    def take_over(*_: object) -> None:
        shop.clock.forward(minutes=11)
        assert archive(shop.services, WORKSPACE, APRIL).decisions == COUNT // len(PEOPLE)

    erase(shop.services, WORKSPACE, "anna")
    while_written(monkeypatch, *((take_over, nothing) if before else (nothing, take_over)))
    with pytest.raises(Conflict, match="another run"):
        archive(shop.services, WORKSPACE, APRIL)
    clean(shop.services, WORKSPACE)
    assert (shop.rows(), shop.whole()) == (COUNT, True)


def test_the_old_file_stays_where_the_new_one_is_gone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    while_written(monkeypatch, nothing, Path.unlink)
    assert not erase(shop.services, WORKSPACE, "anna").scrubbed
    assert (shop.rows(), shop.whole(), shop.waits()) == (COUNT, True, True)
    clean_wanted(shop.services, WORKSPACE)
    assert (shop.rows(), shop.whole(), shop.waits()) == (COUNT, True, False)
    assert "anna" not in shop.named()


def test_what_is_left_of_a_missing_file_is_no_stranger(shop: Shop) -> None:
    """A folder that was put back from elsewhere may hold an older copy: readers go on with it."""
    (file,) = shop.services.store.archive.glob("*/*/part-*")
    older = file.with_name(file.name.replace("-0001-", "-0000-"))
    file.rename(older)
    assert shop.rows() == COUNT
    archive(shop.services, WORKSPACE, APRIL)
    assert older.exists()
    assert shop.rows() == COUNT


def test_many_erasures_at_once_leave_clean_files(shop: Shop) -> None:
    together = threading.Barrier(len(PEOPLE))

    def one(who: str) -> int:
        together.wait()
        return erase(shop.services, WORKSPACE, who).decisions

    with ThreadPoolExecutor(len(PEOPLE)) as pool:
        assert list(pool.map(one, PEOPLE)) == [COUNT // len(PEOPLE)] * len(PEOPLE)
    clean_wanted(shop.services, WORKSPACE)
    assert (shop.rows(), shop.whole(), shop.waits()) == (COUNT, True, False)
    assert shop.named() == set()


def test_a_killed_first_run_leaves_nothing_of_who_is_erased(shop: Shop) -> None:
    """A file that nobody noted yet holds them, too."""
    (file,) = shop.services.store.archive.glob("*/*/part-*")
    (file.parent / "part-000002-0001-00000000.parquet").write_bytes(file.read_bytes())
    assert erase(shop.services, WORKSPACE, "anna").scrubbed
    assert shop.whole()
    assert "anna" not in shop.named()


def test_the_scheduler_soon_cleans_what_an_erasure_could_not(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = Scheduler(shop.services)._jobs(shop.services.settings)
    (job,) = [job for job in jobs.get_jobs() if job.id == "clean"]
    assert job.trigger.interval.total_seconds() == CLEAN_SECONDS <= 60
    while_written(monkeypatch, lambda: erase(shop.services, WORKSPACE, "boris"), nothing)
    erase(shop.services, WORKSPACE, "anna")
    assert shop.waits()
    job.func()
    assert (shop.named(), shop.waits()) == ({"clara", "david"}, False)


def test_an_erasure_while_a_training_reads_the_log_makes_it_read_once_more(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = type(shop.services.store).read

    @contextmanager
    def interrupted(store: Any) -> Iterator[Reader]:
        monkeypatch.setattr(type(store), "read", read)
        with read(store) as reader:
            reader.archive_files(WORKSPACE)  # from here on this reader sees the log as it is now
            erase(shop.services, WORKSPACE, "anna")
            yield reader

    monkeypatch.setattr(type(shop.services.store), "read", interrupted)
    assert [one["decision"] for one in retrain(shop.services, WORKSPACE)] == ["skipped"]
    assert shop.named() == {"boris", "clara", "david"}


def test_an_erasure_while_columns_are_kept_makes_them_read_once_more(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, tries = type(shop.services.columns).keep, []

    def interrupted(columns: Any, reader: Reader, campaign: Campaign) -> None:
        tries.append(campaign.campaign_id)
        if len(tries) == 1:
            reader.archive_files(WORKSPACE)
            erase(shop.services, WORKSPACE, "anna")
        list(reader.feedback(WORKSPACE))
        keep(columns, reader, campaign)

    monkeypatch.setattr(type(shop.services.columns), "keep", interrupted)
    upkeep.keep_columns(shop.services, WORKSPACE)
    assert tries == ["spring", "spring"]


def test_the_scheduler_cleans_when_nobody_reads_the_whole_log(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    while_written(monkeypatch, lambda: erase(shop.services, WORKSPACE, "boris"), nothing)
    erase(shop.services, WORKSPACE, "anna")
    scheduler = Scheduler(shop.services)
    with scheduler.whole_log:
        scheduler._clean()
        assert shop.waits()
    scheduler._clean()
    assert not shop.waits()
