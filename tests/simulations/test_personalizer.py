"""The Personalizer study: rounds are the same for every player, players learn, the table says what came of them."""

from __future__ import annotations

from itertools import islice

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from simulations.personalizer import AUDIENCES, command
from simulations.personalizer.audiences import audience
from simulations.personalizer.report import summary, table
from simulations.personalizer.run import Outcome, play


@pytest.mark.parametrize("kind", AUDIENCES)
def test_an_audience_is_the_same_whoever_plays_it(kind: str) -> None:
    one, two = (list(islice(audience(kind, 3).rounds(), 120)) for _ in range(2))
    for first, second in zip(one, two, strict=True):
        assert (first.context, first.ids, first.features) == (second.context, second.ids, second.features)
        assert first.chance.tolist() == second.chance.tolist()
        assert len(first.ids) == len(first.chance) <= 50
        assert ((first.chance > 0) & (first.chance < 1)).all()
    assert one[0].context != next(audience(kind, 4).rounds()).context


def test_articles_come_and_go() -> None:
    rounds = list(islice(audience("news", 0).rounds(), 500))
    seen = {name for one in rounds for name in one.ids}
    assert len(seen) > 65
    assert not set(rounds[0].ids) <= {name for one in rounds[400:] for name in one.ids}


def test_the_service_learns_a_shop_and_vowpal_wabbit_plays_the_same_rounds() -> None:
    """Mean chances are exact, only choices are random: the gain over the first action is some 15 standard errors."""
    ours, rival = (play("shop", player, 0, 400) for player in ("sendtide", "vw-default"))
    assert (ours.baseline, ours.best) == (rival.baseline, rival.best)
    assert ours.late > ours.baseline + 0.05
    assert ours.late > rival.late


def test_the_margin_is_over_the_first_action_seed_by_seed() -> None:
    results = [Outcome("shop", "sendtide", seed, 0.5 + seed / 10, 0.25, 0.75, 0.6, 0.8) for seed in range(2)]
    row = summary(results)[0]
    assert row["margins"] == pytest.approx([0.25, 0.35])
    assert row["margin"] == pytest.approx(0.3)
    assert row["margin_error"] == pytest.approx(np.std([0.25, 0.35], ddof=1) / np.sqrt(2))
    assert "| shop | sendtide | 0.5500 | 0.2500 | 0.3000 ± 0.0500 | 0.2500, 0.3500 | 0.750 |" in table(results)


def test_the_command_prints_its_figures() -> None:
    asked = ["--rounds", "20", "--seeds", "1", "--audience", "shop", "--processes", "1", "--json"]
    ran = CliRunner().invoke(command, asked)
    assert ran.exit_code == 0, ran.output
    told = orjson.loads(ran.stdout)
    assert [row["player"] for row in told] == ["sendtide", "vw-default", "vw-squarecb"]
    assert CliRunner().invoke(command, ["--players", "nobody"]).exit_code != 0
