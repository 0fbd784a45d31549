"""A run that was stopped goes on where it was, and gives what it would have given."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from rich.console import Console

from simulations import simulate_run
from simulations.kept import Kept, code_version
from simulations.play import Played
from simulations.simulate_run import Options, run

OPTIONS = Options("early", ("static-ab",), seeds=2, decisions=60)


def played(kept: Kept | None) -> dict[str, list[Played]]:
    """One short comparison of three policies."""
    return run(OPTIONS, processes=1, console=Console(quiet=True), kept=kept)


def same(one: Played, other: Played) -> bool:
    """Whether two plays tell the same, apart from the time they took."""
    numbers = all(np.array_equal(one.numbers[name], other.numbers[name], equal_nan=True) for name in one.numbers)
    places = all(np.array_equal(one.places[name], other.places[name]) for name in one.places)
    return (
        numbers
        and places
        and (one.policy, one.seed, one.numbers.keys()) == (other.policy, other.seed, other.numbers.keys())
    )


def test_what_was_played_is_not_played_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(tmp_path, "v1")
    fresh, first = played(None), played(kept)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 6
    files[2].unlink()
    (tmp_path / f"{files[2].stem}.part").write_bytes(b"half of it")
    again = Mock(wraps=simulate_run.play_one)
    monkeypatch.setattr(simulate_run, "play_one", again)
    second = played(kept)
    assert again.call_count == 1
    for name, seeds in fresh.items():
        for i, one in enumerate(seeds):
            assert same(one, first[name][i])
            assert same(one, second[name][i])


def test_another_version_plays_anew(tmp_path: Path) -> None:
    played(Kept(tmp_path, "v1"))
    before = set(tmp_path.iterdir())
    played(Kept(tmp_path, "v2"))
    assert len(set(tmp_path.iterdir()) - before) == 6


def test_the_version_is_that_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_version() == code_version()
    for name in ("optimizer", "storage", "simulations"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("simulations.kept._ROOT", tmp_path)
    seen = {code_version()}
    (tmp_path / "storage" / "a.py").write_text("x = 1\n")
    seen.add(code_version())
    (tmp_path / "storage" / "a.py").write_text("x = 2\n")
    seen.add(code_version())
    (tmp_path / "storage" / "notes.txt").write_text("not code")
    assert code_version() in seen
    assert len(seen) == 3
