"""``sendtide tune``: resumable beside the database, told with errors, and undone by ``--reset``."""

from __future__ import annotations

import pytest

from optimizer.model.training.options import TrainOptions
from optimizer.service import searches, setup, tuning
from optimizer.service.wiring import Services
from storage.records import Channel
from tests.cli.conftest import Sendtide
from tests.cli.test_loop import ROWS, history
from tests.service.conftest import campaign


@pytest.fixture
def shop(sendtide: Sendtide, services: Services) -> Services:
    setup.ensure_workspace(services, "default")
    made = campaign(workspace_id="default", channels=(Channel("email"),), allow_no_send=False)
    setup.put_campaign(services, made)
    sendtide.ok("import", "history", sendtide.file("h.csv", history(seed=3)))
    return services


def test_a_search_is_told_with_its_errors_and_kept_beside_the_database(
    sendtide: Sendtide, shop: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "LEAST", 500)
    found = sendtide.json("tune", "--trials", "2")
    assert found["trials"] == 2
    assert sum(found["rows"]) == ROWS
    assert found["decision"] in ("adopted", "kept")
    assert found["likelihood"]["standard_error"] >= 0
    assert (sendtide.folder / "tuning.journal").stat().st_mode & 0o777 == 0o600
    assert (found["made"], found["next"]) == (2, "begins_anew")
    text = sendtide.ok("tune", "--trials", "3")
    assert "best of 3 trials: " in text
    assert " (half of its 95 % interval) nats a row on 180 rows that the search never saw" in text
    text = sendtide.ok("tune", "--trials", "1")
    assert "kept: nothing but the defaults was tried" in text
    assert "1 trial made in all, 1 of them by this call, as many as were asked for" in text
    assert "best of 1 trial: shape 3 (default 3)" in text
    assert "likelihood: " not in text
    assert "value: " not in text
    tuning._store(shop, "default", TrainOptions(shape=9.0))
    text = sendtide.ok("tune", "--trials", "1")
    assert "kept: nothing but the numbers that were adopted before was tried" in text
    assert "best of 1 trial: shape 9 (default 3, until now 9)" in text
    again = sendtide.ok("tune", "--minutes", "0.1", "--trials", "100000")
    assert "of them by this call; calling again goes on with this search" in again
    assert int(again.partition(" trials made in all")[0].rsplit("\n", 1)[-1]) > 1


def test_a_short_log_is_refused_and_reset_undoes(sendtide: Sendtide, shop: Services) -> None:
    refused = sendtide("tune")
    assert refused.exit_code == 1
    assert f"{ROWS} matured rows; tuning needs at least 1000" in refused.stderr
    assert not list(sendtide.folder.glob("tuning.journal*")), "no search began"
    with shop.store.read() as reader:
        workspace = reader.workspace("default")
    assert workspace is not None
    tuning._store(shop, "default", TrainOptions(shape=9.0))
    assert sendtide.json("tune", "--reset") == {"decision": "reset"}
    with shop.store.read() as reader:
        assert reader.workspace("default") == workspace
