"""``sendtide erase``: a person goes, after a question."""

from __future__ import annotations

import pytest

from optimizer.service import setup
from optimizer.service.wiring import Services
from storage.records import Campaign, Recipient
from tests.cli.conftest import Sendtide


@pytest.fixture
def anna(services: Services, spring: Campaign) -> str:
    setup.put_recipient(services, Recipient("default", "anna", attributes={"mail": "anna@example.org"}))
    return "anna"


def test_a_person_is_erased_and_it_is_told_what_that_did(sendtide: Sendtide, anna: str) -> None:
    told = sendtide.json("erase", anna, "--yes")
    assert told == {"decisions": 0, "events": 0, "revoked": 0, "scrubbed": True}
    assert "anna erased" in sendtide.ok("erase", anna, "--yes")
    assert sendtide("export", "recipient", "--recipient", anna, "--out", f"{sendtide.folder}/a.ndjson").exit_code == 1


def test_without_a_yes_nobody_is_erased(sendtide: Sendtide, services: Services, anna: str) -> None:
    assert sendtide("erase", anna).exit_code == 1
    with services.store.read() as reader:
        assert reader.recipient("default", anna) is not None


def test_strangers_are_not_found(sendtide: Sendtide, anna: str) -> None:
    refused = sendtide("erase", "nobody", "--yes")
    assert refused.exit_code == 1
    assert "nobody" in refused.stderr
