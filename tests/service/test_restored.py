"""A backup that is put in the place of the database under a running process: what it knew of the other is forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from optimizer.service import setup
from optimizer.service.ids import COLD_POLICY
from optimizer.service.requests import DecisionRequest
from optimizer.service.wiring import Services
from storage.policies import Pointer
from storage.ranks import RankModel
from storage.rules import Cap, Rule
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign
from tests.service.receiving import Receiver, change, push, put, receiver, services

__all__ = ["receiver", "services"]  # fixtures


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "push.db"


def put_in_place(file: Path, backup: Path) -> None:
    """As somebody does who follows the manual of SQLite, and doesn't stop the service."""
    for ending in ("", "-wal", "-shm"):
        file.with_name(file.name + ending).unlink(missing_ok=True)
    backup.rename(file)


def backed_up(file: Path) -> Path:
    backup = file.with_suffix(".backup")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    return backup


def rules(services: Services) -> list[str]:
    """Those that this process decides by, but for the first one of every workspace."""
    with services.store.read() as reader:
        found = [one.rule_id for one in services.catalog.view(reader, WORKSPACE).rules]
    return [one for one in found if one != "default-quiet-hours"]


def test_after_a_restore_the_rules_that_are_stored_are_enforced_and_not_those_of_before(
    services: Services, file: Path
) -> None:
    backup = backed_up(file)
    setup.put_rule(services, Rule(WORKSPACE, "before", "cap", Cap(1, rolling_hours=24.0)))
    assert rules(services) == ["before"]
    put_in_place(file, backup)
    assert rules(services) == []
    setup.put_rule(services, Rule(WORKSPACE, "after", "cap", Cap(2, rolling_hours=24.0)))
    assert rules(services) == ["after"]
    with services.store.read() as reader:  # and it is kept again
        assert services.catalog.view(reader, WORKSPACE) is services.catalog.newest(WORKSPACE)


def test_after_a_restore_a_webhook_has_an_id_of_its_own(
    services: Services, file: Path, receiver: Receiver, clock: FakeClock
) -> None:
    put(services, receiver.url)
    backup = backed_up(file)
    change(services, "a")
    assert push(services) == 1
    put_in_place(file, backup)
    clock.forward(hours=1)
    change(services, "b")
    assert push(services) == 1
    assert receiver.details() == ["a", "b"]
    assert len(set(receiver.ids())) == 2


def test_after_a_restore_to_before_any_policy_a_campaign_has_its_cold_start(services: Services, file: Path) -> None:
    backup = backed_up(file)
    pointer = Pointer(WORKSPACE, "spring", COLD_POLICY, generation=1, moved_at=START)
    services.store.write(lambda writer: writer.move_pointer(pointer))
    services.policies.refresh_now()
    assert [one.generation for one in services.policies.status()] == [1]
    put_in_place(file, backup)
    services.policies.refresh_now()
    assert services.policies.status() == []


def test_after_a_restore_other_rewrites_give_a_block_another_stamp(services: Services, file: Path) -> None:
    setup.put_campaign(services, campaign())
    asked = [services.decider.decide(WORKSPACE, DecisionRequest("spring", f"p-{number}")) for number in range(3)]
    backup = backed_up(file)

    def stamps_after_rewriting(number: int) -> Mapping[int, str]:
        services.store.write(lambda writer: writer.update_decision(replace(asked[number][0], status="expired"), None))
        with services.store.read() as reader:
            return reader.block_stamps(WORKSPACE).decisions

    first = stamps_after_rewriting(0)
    put_in_place(file, backup)
    assert stamps_after_rewriting(1) != first


def test_after_a_restore_a_loop_serves_the_model_that_is_stored(services: Services, file: Path) -> None:
    def learned(day: int) -> RankModel:
        return RankModel(WORKSPACE, 1, START, START + timedelta(days=day), upto=0, blob=b"")

    backup = backed_up(file)
    services.store.write(lambda writer: writer.put_rank_model(learned(1)))
    with services.store.read() as reader:
        assert services.loops.current(reader, WORKSPACE).made_at == learned(1).made_at
    put_in_place(file, backup)
    with services.store.read() as reader:
        assert services.loops.current(reader, WORKSPACE).generation == 0
    services.store.write(lambda writer: writer.put_rank_model(learned(2)))
    with services.store.read() as reader:
        assert services.loops.current(reader, WORKSPACE).made_at == learned(2).made_at
