"""Reading the experiment: types, places, refusals that name the line, and shuffled outcomes."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from optimizer.errors import ConfigError, Invalid
from simulations.hillstrom import ARMS, load
from tests.simulations.made_up import write_experiment

HEADER = "recency,history_segment,history,mens,womens,zip_code,newbie,channel,segment,visit,conversion,spend"
GOOD = "10,low,142.44,1,0,A,0,Phone,Womens E-Mail,1,0,0"


def written(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "hillstrom.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return path


def test_a_row_is_read_with_types(tmp_path: Path) -> None:
    customers = load(written(tmp_path, GOOD))
    assert customers.contexts[0] == {
        "recency": 10.0,
        "history": 142.44,
        "mens": True,
        "womens": False,
        "newbie": False,
        "history_segment": "low",
        "zip_code": "A",
        "channel": "Phone",
    }
    assert ARMS[customers.assigned[0]] == "womens"
    assert customers.visit.tolist() == [1.0]


def test_the_outcome_is_no_part_of_the_context(tmp_path: Path) -> None:
    assert not {"segment", "visit", "conversion", "spend"} & set(load(written(tmp_path, GOOD)).contexts[0])


def test_the_file_is_found_in_its_folder_and_unpacked(tmp_path: Path) -> None:
    plain = write_experiment(tmp_path / "plain.csv", 5)
    (tmp_path / "hillstrom").mkdir()
    (tmp_path / "hillstrom" / "hillstrom.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert len(load(tmp_path)) == 5


def test_a_folder_without_the_file_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hillstrom\.csv\.gz"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "column"),
    [
        ("142.44", "much", "history"),
        (",1,0,A", ",2,0,A", "mens"),
        ("Womens E-Mail", "Kids E-Mail", "segment"),
        (",Phone,", ",,", "channel"),
    ],
)
def test_a_bad_cell_is_refused_with_its_line_and_column(tmp_path: Path, old: str, new: str, column: str) -> None:
    with pytest.raises(Invalid) as refused:
        load(written(tmp_path, GOOD, GOOD.replace(old, new)))
    assert list(refused.value.errors) == [f"line 3.{column}"]


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no rows"):
        load(written(tmp_path))


def test_shuffling_keeps_the_outcomes_and_breaks_their_link_to_the_assignment(tmp_path: Path) -> None:
    customers = load(write_experiment(tmp_path / "hillstrom.csv", 3000))
    dealt = customers.shuffled(np.random.default_rng(1))
    assert dealt.visit.sum() == customers.visit.sum()

    def spread(visit: np.ndarray) -> float:
        means = [visit[customers.assigned == arm].mean() for arm in range(3)]
        return float(max(means) - min(means))

    # The true spread is .5; dealt out anew it is below .1 but for odds of less than one in ten thousand (s.e. .021).
    assert spread(customers.visit) > 0.4
    assert spread(dealt.visit) < 0.1
