"""The contest in figures: a table, JSON, a Markdown fragment for the report of results, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from optimizer.model.rhythm import Floats
from simulations.fragments import played
from simulations.plots import _figure, _save
from simulations.send_times.contest import AFTER, CHOSEN, GLOBAL, HISTORY, OURS, RECENT, SHRUNK, Contest
from simulations.send_times.ways import Setting

#: What is asked for: standard errors above the shrunk histogram; and hit rates to go after, by log.
MUST = 2.0
STRETCH = {"completejourney": 0.265, "enron": 0.175}
#: Pairs whose difference is told, with what it is taken over.
_PAIRS = ((OURS, SHRUNK), (OURS, RECENT), (OURS, CHOSEN), (SHRUNK, GLOBAL))


def document(contests: Sequence[Contest]) -> dict[str, Any]:
    """All figures as JSON."""
    return {"window_hours": 2, "logs": [_log(one) for one in contests]}


def difference(ours: Floats, theirs: Floats) -> dict[str, float | None]:
    """The mean paired difference over people and its standard error; people are the independent units."""
    paired = ours - theirs
    error = float(paired.std(ddof=1) / np.sqrt(len(paired))) if len(paired) > 1 else None
    mean = float(paired.mean())
    return {"mean": mean, "error": error, "z": mean / error if error else None}


def _log(one: Contest) -> dict[str, Any]:
    hits = {name: result.hits for name, result in one.results.items()}
    return {
        "log": one.name,
        "people": one.people,
        "events": one.events,
        "ways": [
            {
                "way": name,
                "setting": None if result.setting is None else _setting(result.setting),
                "hit_rate": _mean(result.hits),
                "log_likelihood": _mean(result.likelihood),
                "kept_up": _mean(one.kept_up[name]),
                "new_recipient": _mean(one.stranger[name]),
            }
            for name, result in one.results.items()
        ],
        "paired": {f"{a} − {b}": difference(hits[a], hits[b]) for a, b in _PAIRS},
        "paired_kept_up": {f"{a} − {b}": difference(one.kept_up[a], one.kept_up[b]) for a, b in _PAIRS},
        "shrunk_in_hindsight": {"hit_rate": _mean(one.hindsight), "paired": difference(hits[OURS], one.hindsight)},
        "new_recipient": difference(one.stranger[OURS], one.stranger[GLOBAL]),
        "tried": {
            name: [{**_setting(setting), "log_likelihood": value} for setting, value in tried]
            for name, tried in one.tried.items()
        },
    }


def _setting(one: Setting) -> dict[str, float | None]:
    return {
        "half_life_days": None if one.half_life_days == inf else one.half_life_days,
        "shrinkage": one.shrinkage or None,
    }


def _mean(values: Floats) -> dict[str, float]:
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return {"mean": float(values.mean()), "error": float(error)}


def markdown(figures: dict[str, Any], picture: str) -> str:
    """The fragment for the report of results.

    Args:
        figures: of ``document``.
        picture: path of the PNG, as seen from the report.
    """
    head = (
        "## send times: when people do things, on two public logs\n\n"
        "Two-hour hit rate: the share of later events that lie in the two hours chosen for that day, averaged over "
        "people. Cohorts, halves, windows and weights are fixed in `simulations/send_times/logs.py`. *Rhythm* is ours "
        "with the half-life that the service has. Other half-lives and shrinkage are chosen for each log, by "
        "likelihood within the first halves; second halves choose nothing. In brackets: standard errors over people, "
        "of paired differences where there is a sign. *Kept up*: each day's choice knows "
        f"all that the person did before that day. *New*: a person whose first {HISTORY} events are known and whose "
        f"next {AFTER} are to be hit, all else learned from other people (10 folds)."
    )
    told = [_section(one) for one in figures["logs"]]
    return "\n\n".join([head, *told, played(), f"![send times]({picture})"]) + "\n"


def _section(one: dict[str, Any]) -> str:
    rows = [
        f"| {way['way']} | {_told(way['setting'])} | {_rate(way['hit_rate'])} | {_rate(way['kept_up'])} "
        f"| {_rate(way['new_recipient'])} | {way['log_likelihood']['mean']:.3f} |"
        for way in one["ways"]
    ]
    table = "\n".join(
        [
            f"### {one['log']}: {one['people']:,} people, {one['events']:,} events in second halves",
            "",
            "| way | setting | first half → second half | kept up | new | log-likelihood |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
        ]
    )
    return table + "\n\n" + "\n".join(f"- {line}" for line in verdicts(one))


def verdicts(one: dict[str, Any]) -> list[str]:
    """What the figures of one log say about what is asked for."""
    main = one["paired"][f"{OURS} − {SHRUNK}"]
    lines = [f"{OURS} − {SHRUNK}: {_signed(main)}{_asked(main, MUST)}"]
    lines += [f"{OURS} − {way}: {_signed(one['paired'][f'{OURS} − {way}'])}" for way in (RECENT, CHOSEN)]
    hindsight = one["shrunk_in_hindsight"]
    lines.append(
        f"{OURS} − the shrinkage that would have been best on the second halves "
        f"({hindsight['hit_rate']['mean']:.4f}): {_signed(hindsight['paired'])}"
    )
    lines.append(f"kept up, {OURS} − {SHRUNK}: {_signed(one['paired_kept_up'][f'{OURS} − {SHRUNK}'])}")
    lines.append(f"new recipient, {OURS} − {GLOBAL}: {_signed(one['new_recipient'])}")
    goal = STRETCH.get(one["log"])
    if goal is not None:
        rate = next(way["hit_rate"]["mean"] for way in one["ways"] if way["way"] == OURS)
        lines.append(f"to go after: {goal:.3f}; {'reached' if rate >= goal else 'missed'} with {rate:.4f}")
    return lines


def _asked(pair: dict[str, float | None], errors: float) -> str:
    if pair["z"] is None:
        return ""
    return f", {pair['z']:.1f} standard errors; asked for {errors:.0f}: {'yes' if pair['z'] >= errors else 'no'}"


def _signed(pair: dict[str, float | None]) -> str:
    error = "" if pair["error"] is None else f" ({pair['error']:.4f})"
    return f"{pair['mean']:+.4f}{error}"


def _rate(value: dict[str, float]) -> str:
    return f"{value['mean']:.4f} ({value['error']:.4f})"


def _told(setting: dict[str, float | None] | None) -> str:
    if setting is None:
        return "–"
    half_life, shrinkage = setting["half_life_days"], setting["shrinkage"]
    told = [] if half_life is None else [f"half-life {half_life:.0f} days"]
    told += [] if shrinkage is None else [f"{shrinkage:.0f} events of all"]
    return ", ".join(told) or "no decay"


def picture(path: Path, figures: dict[str, Any]) -> None:
    """Hit rates of every way on every log, with two standard errors, and what was to be gone after.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    figure = _figure(4.5 * len(figures["logs"]), 4.2)
    for place, one in enumerate(figures["logs"]):
        axes = figure.add_subplot(1, len(figures["logs"]), place + 1)
        for offset, column, label in ((-0.2, "hit_rate", "first half → second half"), (0.2, "kept_up", "kept up")):
            at = np.arange(len(one["ways"])) + offset
            means = [way[column]["mean"] for way in one["ways"]]
            errors = [2.0 * way[column]["error"] for way in one["ways"]]
            axes.bar(at, means, width=0.38, yerr=errors, capsize=3, label=label)
        if one["log"] in STRETCH:
            axes.axhline(STRETCH[one["log"]], color="black", linestyle=":", linewidth=1, label="to go after")
        axes.set_xticks(range(len(one["ways"])), [way["way"] for way in one["ways"]], rotation=30, ha="right")
        axes.set_title(f"{one['log']} ({one['people']:,} people)")
        axes.set_ylabel("two-hour hit rate")
        _, top = axes.get_ylim()
        axes.set_ylim(0.1, top + 0.3 * (top - 0.1))  # the legend stands above the bars
        axes.legend(loc="upper left", fontsize="small")
    _save(figure, path)
