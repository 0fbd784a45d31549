"""The contest of send times: who is judged, what a hit is, and that planted rhythms are found."""

from __future__ import annotations

import gzip
import platform
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from optimizer.errors import ConfigError, Invalid
from optimizer.service.rhythms import HALF_LIFE_DAYS
from simulations.send_times import command, ways
from simulations.send_times.contest import CHOSEN, GLOBAL, OURS, OWN, SHRUNK, compare
from simulations.send_times.logs import BASKETS, MAILS, Histories, histories, in_zone, logs

HOUR = 3_600
#: A Monday, 00:00.
MONDAY = int(datetime(2017, 1, 2, tzinfo=UTC).timestamp())


def write(folder: Path, baskets: list[tuple[int, int, str]], mails: list[tuple[int, int, str]]) -> Path:
    """Both files: (household, basket, time) with two products each, (from, to, time)."""
    for place, head, rows in (
        (
            "completejourney/transactions_sample.csv.gz",
            "household_id,product_id,basket_id,transaction_timestamp",
            [f"{h},{product},{b},{at}" for h, b, at in baskets for product in (1, 2)],
        ),
        ("enron_times/enron_times.csv.gz", "from,to,time", [f"{f},{t},{at}" for f, t, at in mails]),
    ):
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress("\n".join([head, *rows, ""]).encode()))
    return folder


def planted(people: int, events: int, seed: int = 1) -> list[tuple[int, datetime]]:
    """Early risers and night owls: each person's events lie around 8 or 20 o'clock, one a day."""
    rng = np.random.default_rng(seed)
    out = []
    for person in range(people):
        for day in range(events):
            hour = (8 if person % 2 else 20) + rng.normal(0, 1.0)
            out.append((person, datetime(2017, 1, 2, tzinfo=UTC) + timedelta(days=day, hours=float(hour))))
    return out


def planted_log(people: int, events: int) -> Histories:
    rows = planted(people, events)
    person = np.array([p for p, _ in rows], dtype=np.int64)
    return histories("planted", person, np.array([int(at.timestamp()) for _, at in rows], dtype=np.int64), 4)


def test_a_basket_counts_once_and_an_email_once_whatever_its_recipients(tmp_path: Path) -> None:
    times = [f"2017-01-{day:02d} 10:00:00" for day in range(1, BASKETS + 1)]
    mails = [
        (7, to, (datetime(2001, 1, 1, 9, tzinfo=UTC) + timedelta(days=day)).isoformat(" ")[:19])
        for day in range(MAILS)
        for to in (1, 2, 3)
    ]
    write(tmp_path, [(1, 100 + i, at) for i, at in enumerate(times)], mails)
    households, people, moved = logs(tmp_path)
    assert [len(half[0]) for half in (households.first, households.second)] == [10, 10]
    assert [len(half[0]) for half in (people.first, people.second)] == [25, 25]
    assert set(households.first[0] % (24 * HOUR)) == {10 * HOUR}
    assert set(moved.first[0] % (24 * HOUR)) == {5 * HOUR}, "New York is five hours behind in winter"


def test_one_event_too_few_is_not_judged() -> None:
    person = np.repeat([1, 2], [5, 4])
    log = histories("made up", person, np.arange(9, dtype=np.int64), 5)
    assert len(log) == 1
    assert log.first[0].tolist() == [0, 1, 2], "the odd event goes to the first half"
    assert log.second[0].tolist() == [3, 4]
    assert log.earlier().first[0].tolist() == [0, 1]
    assert log.earlier().second[0].tolist() == [2], "settings see nothing of the second half"


def test_wall_clocks_follow_clock_changes() -> None:
    winter, summer = (int(datetime(2017, month, 1, 12, tzinfo=UTC).timestamp()) for month in (1, 7))
    there = in_zone(np.array([winter, summer], dtype=np.int64), "America/New_York")
    assert (there - [winter, summer]).tolist() == [-5 * HOUR, -4 * HOUR]


def test_a_hit_lies_in_the_two_hours_chosen_for_its_day() -> None:
    chosen = np.full((1, 7), 9)
    chosen[0, 1] = 23
    events = MONDAY + HOUR * np.array([9, 10, 11, 24 + 23, 24 + 9], dtype=np.int64)
    assert ways.hit_rates(chosen, [events]).tolist() == [3 / 5]


def test_histograms_by_hand() -> None:
    own = ways.counts([MONDAY + HOUR * np.array([9, 33, 10], dtype=np.int64)])
    everyone = own + ways.counts([MONDAY + HOUR * np.array([20, 44, 45], dtype=np.int64)])
    assert ways.shrunk(everyone, own, 0.0)[0, 0, 9] == pytest.approx(2 / 3)
    assert ways.shrunk(everyone, own, 6.0)[0, 0, 20] == pytest.approx(2 / 9)
    assert ways.everybody(everyone, 4)[3, 6, 9] == pytest.approx(2 / 6)
    assert ways.windows(ways.shrunk(everyone, own, 0.0)).tolist() == [[9] * 7]


def test_old_events_weigh_less_and_a_burst_is_one_active_hour() -> None:
    events = MONDAY + HOUR * np.array([9, 9 + 7 * 24], dtype=np.int64)
    assert ways.counts([events], 7.0)[0, 9] == pytest.approx(1.5)
    burst = MONDAY + np.array([0, 60, 120], dtype=np.int64)
    assert ways.active_hours([burst], np.inf).sum() == 1.0


def test_planted_rhythms_are_found_and_settings_come_from_first_halves() -> None:
    found = compare(planted_log(people=24, events=24))
    hits = {name: float(result.hits.mean()) for name, result in found.results.items()}
    # One hour's standard deviation: the best two hours hold .68 of a person's events, and of the other kind's none.
    assert hits[GLOBAL] < 0.40
    assert hits[OURS] > 0.58
    assert hits[OURS] >= hits[SHRUNK] - 0.02
    assert hits[OURS] > hits[OWN]
    assert found.stranger[OURS].mean() > found.stranger[GLOBAL].mean() + 0.15
    assert found.kept_up[OURS].mean() > 0.58
    assert found.results[CHOSEN].setting == max(found.tried[CHOSEN], key=lambda one: one[1])[0]
    assert found.results[OURS].setting == ways.Setting(HALF_LIFE_DAYS), "as it is served"


def test_what_happens_in_second_halves_changes_no_setting_and_no_choice() -> None:
    log = planted_log(people=12, events=12)
    moved = Histories(log.name, log.first, tuple(one + 12 * HOUR for one in log.second))
    one, other = compare(log), compare(moved)
    for name, result in one.results.items():
        assert result.setting == other.results[name].setting
    assert one.results[OURS].hits.mean() > 0.5 > other.results[OURS].hits.mean()


def test_the_command_writes_figures_picture_and_fragment(tmp_path: Path) -> None:
    baskets = [
        (person, 1000 * person + i, at.isoformat(" ")[:19])
        for i, (person, at) in enumerate(planted(people=6, events=BASKETS))
    ]
    mails = [(person, 1, at.isoformat(" ")[:19]) for person, at in planted(people=6, events=MAILS)]
    data, out = write(tmp_path / "data", baskets, mails), tmp_path / "out"
    run = CliRunner().invoke(command, ["--data", str(data), "--out", str(out), "--json"])
    assert run.exit_code == 0, run.output
    figures = orjson.loads((out / "send-times.json").read_bytes())
    assert [one["log"] for one in figures["logs"]] == ["completejourney", "enron", "completejourney, New York's time"]
    assert [one["people"] for one in figures["logs"]] == [6, 6, 6]
    assert (out / "send-times.png").stat().st_size > 10_000
    fragment = (out / "send-times.md").read_text(encoding="utf-8")
    assert fragment.count("- rhythm − shrunk: ") == 3
    assert "![send times](results/send-times.png)" in fragment
    assert f"cores; Python {platform.python_version()}" in fragment


def test_a_missing_file_and_a_bad_cell_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"completejourney/transactions_sample\.csv\.gz"):
        logs(tmp_path)
    write(tmp_path, [(1, 1, "yesterday")], [])
    with pytest.raises(Invalid) as refused:
        logs(tmp_path)
    assert list(refused.value.errors) == ["line 2.transaction_timestamp"]
