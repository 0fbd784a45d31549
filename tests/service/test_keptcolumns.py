"""Columns that are kept between reports: never another figure than from the log itself, and less to read."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimizer.service import setup
from optimizer.service.keptcolumns import KeptColumns
from optimizer.service.keptreports import KeptReports
from optimizer.service.report import report
from optimizer.service.upkeep import keep_columns, retain
from optimizer.service.wiring import Services
from storage.blocks import BLOCK
from storage.log import Decision, Event, Reason
from storage.records import EventMapping, OutcomeWeight
from storage.webhooks import Label
from tests.service.campaigns import GROUP_OF, decision, order, shop, write
from tests.service.conftest import START, WORKSPACE, FakeClock

Log = tuple[list[Decision], list[Event]]
#: So that the log has two blocks of decisions.
LONG = BLOCK + 800


@pytest.fixture(scope="module")
def long_log() -> Log:
    """Decisions over two days, some masked, some with orders (whose sums round) and complaints."""
    rng = np.random.default_rng(3)
    made = [
        decision(
            number,
            GROUP_OF[number % 10],
            recipient_id=f"u{number % 5_000}",
            decided_at=START + timedelta(seconds=20 * number),
            reasons=(Reason("weekly", "cap", number % 7),) if number % 3 == 0 else (),
        )
        for number in range(LONG)
    ]
    bought = [order(made[n], float(rng.lognormal(3.0, 0.4))) for n in rng.integers(0, LONG, 1_500).tolist()]
    return made, list({one.event_id: one for one in bought}.values())


@pytest.fixture
def keeping(services: Services, clock: FakeClock, tmp_path: Path) -> Services:
    """A service that keeps columns of every campaign, with a short log and two weeks passed."""
    made = [decision(number, GROUP_OF[number % 10]) for number in range(200)]
    return _keeping(services, clock, tmp_path, made, [order(one, 10.1) for one in made[::3]])


@pytest.fixture
def kept(services: Services, clock: FakeClock, tmp_path: Path, long_log: Log) -> Services:
    """As ``keeping``, with a long log."""
    return _keeping(services, clock, tmp_path, *long_log)


def _keeping(
    services: Services, clock: FakeClock, folder: Path, decisions: list[Decision], events: list[Event]
) -> Services:
    setup.put_campaign(services, shop())
    write(services, decisions, events)
    clock.forward(days=14)
    # Reports that take long are kept themselves: here none does, however slow the machine.
    quick = KeptReports(timer=lambda: 0.0)
    return replace(services, columns=KeptColumns(folder / "kept", services.salt, least=1), reports=quick)


def figures(services: Services, **period: Any) -> dict[str, Any]:
    return report(services, WORKSPACE, "spring", **period)


def from_scratch(services: Services, **period: Any) -> dict[str, Any]:
    """The report with nothing kept."""
    assert services.columns.folder is not None
    nothing = services.columns.folder.with_name("nothing")
    shutil.rmtree(nothing, ignore_errors=True)
    return figures(replace(services, columns=replace(services.columns, folder=nothing)), **period)


def click(name: str, of: Decision, **changes: Any) -> Event:
    changes = {"event_id": name, "decision_id": of.decision_id, "recipient_id": None, **changes}
    return replace(order(of, 7.3), **changes)


def label(services: Services, events: Sequence[str], *, automated: bool) -> None:
    said = Label(automated=automated, confidence=0.9, reason="proxy")
    services.store.write(lambda writer: writer.label_events(WORKSPACE, [(one, said) for one in events]))


def test_every_change_of_the_log_gives_the_figures_of_a_report_from_scratch(
    kept: Services, clock: FakeClock, long_log: Log
) -> None:
    made, bought = long_log
    new = [
        decision(LONG + n, GROUP_OF[n % 10], decided_at=START + timedelta(days=5, minutes=n), recipient_id=f"u{n}")
        for n in range(200)
    ]
    late = [click("late", made[5]), replace(order(made[9], 11.1), event_id="late-order")]
    early = click("early", new[150], matched=False)
    returned = replace(made[40], status="released", sent_at=None, closed_at=clock.now)
    oldest = replace(made[0], status="released", closed_at=clock.now)
    mapped = shop(event_mapping={"bought": EventMapping("converted", "revenue")})
    worth = shop(objective={"converted": OutcomeWeight(per_value=0.5), "unsubscribed": OutcomeWeight(fixed=-1.0)})

    def events(*added: Event) -> Callable[[], object]:
        return lambda: kept.store.write(lambda writer: writer.add_events(added))

    changes: list[tuple[str, Callable[[], object]]] = [
        ("nothing", lambda: None),
        ("late events", events(*late)),
        ("an event before its decision", events(early)),
        ("new decisions", lambda: write(kept, new)),
        ("a confirm after the release", lambda: _update(kept, returned)),
        ("a machine's order", lambda: label(kept, [bought[7].event_id, "late"], automated=True)),
        ("a person's after all", lambda: label(kept, ["late"], automated=False)),
        ("other types of events", lambda: setup.put_campaign(kept, mapped)),
        ("events that now mean something", events(replace(late[0], event_id="b", type="bought", properties=_PAID))),
        ("another objective", lambda: setup.put_campaign(kept, worth)),
        ("erased rows", lambda: _prune(kept, oldest, made[30])),
    ]
    seen = []
    for what, change in changes:
        change()
        found = figures(kept)
        assert found == from_scratch(kept), what
        seen.append(found)
    half = {"since": START + timedelta(days=1, hours=3), "until": START + timedelta(days=5, hours=1)}
    assert figures(kept, **half) == from_scratch(kept, **half)
    assert len({str(one) for one in seen}) > 8, "the changes changed something"


_PAID = {"revenue": 31.7}


def _update(services: Services, changed: Decision) -> None:
    services.store.write(lambda writer: writer.update_decision(changed, None))


def _prune(services: Services, done: Decision, before: Decision) -> None:
    _update(services, done)
    assert services.store.write(lambda writer: writer.prune(WORKSPACE, before.decided_at)) > 0


def test_the_figures_are_those_of_a_log_that_is_read_by_its_campaign(kept: Services) -> None:
    short = figures(replace(kept, columns=replace(kept.columns, least=10 * LONG)))
    found = figures(kept)
    for one, other in zip(found["groups"], short["groups"], strict=True):
        assert one["value"] == pytest.approx(other["value"], rel=1e-9)
        assert one["outcomes"]["converted"] == pytest.approx(other["outcomes"]["converted"])
    assert found["lifts"][0]["value"]["estimate"] == pytest.approx(short["lifts"][0]["value"]["estimate"], rel=1e-9)
    assert {key: found[key] for key in ("decisions", "rules", "group_sizes")} == {
        key: short[key] for key in ("decisions", "rules", "group_sizes")
    }


class Counting:
    """A reader that notes the blocks that are read."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.read: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def decision_block(self, workspace_id: str, campaign_id: str, block: int) -> Any:
        self.read.append(("decisions", block))
        return self._reader.decision_block(workspace_id, campaign_id, block)

    def event_block(self, workspace_id: str, campaign_id: str, block: int, *which: Any) -> Any:
        self.read.append(("events", block))
        return self._reader.event_block(workspace_id, campaign_id, block, *which)


def blocks_read(services: Services) -> list[tuple[str, int]]:
    with services.store.read() as reader:
        campaign = reader.campaign(WORKSPACE, "spring")
        counting = Counting(reader)
        assert campaign is not None
        services.columns.columns(counting, campaign, worth_writing=1)
    return counting.read


def test_only_changed_blocks_are_read_again(kept: Services, long_log: Log) -> None:
    """A database that was used before goes on counting where it was; so blocks are counted from the first one."""
    with kept.store.read() as reader:
        one = reader.decision(WORKSPACE, long_log[0][5].decision_id)
    assert one is not None
    home = ("decisions", one.position // BLOCK)
    every = blocks_read(kept)
    assert every[0] == home
    assert [kind for kind, _ in every[:2]] == ["decisions"] * 2
    assert [kind for kind, _ in every if kind == "events"] == ["events"]
    assert blocks_read(kept) == []
    _update(kept, replace(long_log[0][5], status="released"))
    assert blocks_read(kept) == [home]
    kept.store.write(lambda writer: writer.add_event(click("late", long_log[0][5])))
    assert blocks_read(kept) == every[-1:]
    kept.store.write(lambda writer: writer.add_event(click("unknown", long_log[0][5], decision_id="dec_never")))
    assert blocks_read(kept) == blocks_read(kept) == every[-1:], "as long as a decision may still come"


def file_of(services: Services) -> Path:
    folder = services.columns.folder
    assert folder is not None
    (path,) = folder.iterdir()
    return path


def test_a_file_names_nobody_and_is_its_owners(keeping: Services) -> None:
    blocks_read(keeping)
    path = file_of(keeping)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert b"u12" not in path.read_bytes()
    assert b"dec_" not in path.read_bytes()


def test_a_file_that_cannot_be_read_counts_for_nothing(keeping: Services) -> None:
    found = figures(keeping)
    path = file_of(keeping)
    for content in (b"", b"nonsense", path.read_bytes()[:-100]):
        path.write_bytes(content)
        assert figures(keeping) == found
    assert blocks_read(keeping) == [], "it was written anew"


def test_a_folder_that_cannot_be_written_only_costs_time(
    keeping: Services, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    blocked = replace(keeping, columns=replace(keeping.columns, folder=tmp_path / "file" / "below"))
    assert figures(blocked) == figures(keeping)
    assert "can't be kept" in caplog.text


def test_what_is_kept_follows_the_log_whether_or_not_anybody_asks(keeping: Services, clock: FakeClock) -> None:
    keep_columns(keeping, WORKSPACE)
    whole = file_of(keeping).stat().st_size
    clock.forward(days=500)
    assert retain(keeping, WORKSPACE) > 190
    write(keeping, [decision(number, "treated") for number in range(1_000, 1_003)])
    keep_columns(keeping, WORKSPACE)
    assert file_of(keeping).stat().st_size < whole / 2, "rows that were deleted are gone"
    assert blocks_read(keeping) == []
    keep_columns(replace(keeping, columns=replace(keeping.columns, least=300)), WORKSPACE)
    assert keeping.columns.folder is not None
    assert not list(keeping.columns.folder.iterdir()), "the log is short now"


def test_a_short_log_is_not_kept(keeping: Services) -> None:
    short = replace(keeping, columns=replace(keeping.columns, least=201))
    figures(short)
    assert short.columns.folder is not None
    assert not short.columns.folder.exists()
