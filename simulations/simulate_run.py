"""The work behind ``sendtide simulate``: seeds over processes, tuning of rivals, what is printed and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from optimizer.errors import Invalid
from simulations import fragments
from simulations.baselines import tuned
from simulations.baselines.grids import GRIDS, search
from simulations.game import Game
from simulations.kept import Kept
from simulations.parallel import in_processes
from simulations.play import Play, Played
from simulations.policies import ENDS, PolicySpec, parse
from simulations.policyoptions import with_options
from simulations.recovery import WINDOW, recovery
from simulations.scenarios import scenario
from simulations.standings import as_json, best_rival, standings
from simulations.standingstable import print_standings

#: Rivals are tuned on seeds from here on; comparisons use those from 1 on.
TUNING_SEEDS = 1_000_000


@dataclass(frozen=True)
class Options:
    """What is played. ``decisions`` None: as many as the scenario says. ``first`` seed, and how many.

    ``against``: the policy whose regret others are compared with (None = the best Vowpal Wabbit).
    """

    scenario: str
    policies: tuple[str, ...]
    seeds: int
    decisions: int | None = None
    first: int = 1
    against: str | None = None


def play_one(
    name: str, spec: PolicySpec, seed: int, decisions: int | None, on_progress: Callable[[int], None] | None = None
) -> Played:
    """One policy in one seed."""
    game = Game(spec.scenario(scenario(name)), seed, decisions)
    return Play(game, spec.player(game)).run(spec.text, on_progress)


def play_kept(
    kept: Kept,
    name: str,
    spec: PolicySpec,
    seed: int,
    decisions: int | None,
    on_progress: Callable[[int], None] | None = None,
) -> Played:
    """The same, unless it was played before."""
    return kept.get(lambda: play_one(name, spec, seed, decisions, on_progress), name, spec, seed, decisions)


def with_ends(policies: Sequence[str]) -> tuple[str, ...]:
    """The policies and both ends of the scale, each once, in the order given."""
    return tuple(dict.fromkeys((*policies, *ENDS)))


def run(
    options: Options, *, processes: int, console: Console, on_ray: bool = False, kept: Kept | None = None
) -> dict[str, list[Played]]:
    """Plays every policy in every seed; by policy, the seeds in order.

    ``on_ray``: see ``in_processes``. ``kept``: where what was played before lies, and what is played now will.
    """
    if options.against is not None and options.against not in options.policies:
        raise Invalid.field("against", f"{options.against!r} is not played: {', '.join(options.policies)}")
    specs = [parse(text, options.scenario) for text in with_ends(options.policies)]
    seeds = range(options.first, options.first + options.seeds)
    jobs = [(options.scenario, spec, seed, options.decisions) for seed in seeds for spec in specs]
    total = options.decisions or scenario(options.scenario).decisions
    work = play_one if kept is None else partial(play_kept, kept)
    played = in_processes(
        work, jobs, processes=processes, console=console, label=options.scenario, total=total, on_ray=on_ray
    )
    return {spec.text: played[i :: len(specs)] for i, spec in enumerate(specs)}


def tune(options: Options, *, processes: int, console: Console, keep: bool, on_ray: bool = False) -> dict[str, Any]:
    """Tunes every policy that has a grid, on seeds of its own; kept in ``tuned.json`` when ``keep``.

    What was tuned on as many seeds and decisions before goes on where that ended.
    """
    found = {}
    for text in options.policies:
        spec = parse(text, options.scenario)
        if spec.family not in GRIDS:
            continue

        def score(candidate: Any, spec: PolicySpec = spec) -> float:
            jobs = [
                (options.scenario, replace(spec, options=candidate), TUNING_SEEDS + i, options.decisions)
                for i in range(options.seeds)
            ]
            label = f"tuning {spec.family}"
            total = options.decisions or scenario(options.scenario).decisions
            played = in_processes(
                play_one, jobs, processes=processes, console=console, label=label, total=total, on_ray=on_ray
            )
            return float(np.mean([p.regret.sum() for p in played]))

        length = options.decisions or scenario(options.scenario).decisions
        like = {"seeds": options.seeds, "decisions": length}
        before = tuned.own(spec.family, options.scenario)
        goes_on = like.items() <= before.items() and spec.options == parse(spec.family, options.scenario).options
        known = before["tried"] if goes_on else ()
        found[spec.family] = {**search(spec.options, GRIDS[spec.family], score, with_options, known), **like}
        if keep:
            tuned.store(options.scenario, spec.family, found[spec.family])
    return found


def report(options: Options, played: Mapping[str, Sequence[Played]]) -> dict[str, Any]:
    """Everything as plain data: figures, what was played, how rivals were tuned."""
    reference = options.against or best_rival(played)
    return {
        "options": asdict(options),
        "scenario": scenario(options.scenario).about,
        "played": fragments.played(),
        "gate": gate_of(options),
        "reference": reference,
        "standings": as_json(standings(played, reference)),
        "recovery": recoveries(options, played),
        "recovery_together": recoveries_together(options, played),
        "tuning": {
            text: tuned.record(parse(text, options.scenario).family, options.scenario) for text in options.policies
        },
        "notes": {text: [p.notes for p in seeds] for text, seeds in played.items()},
    }


def gate_of(options: Options) -> str:
    """Which of the policies had a gate, and with it a canary."""
    had = [text for text in options.policies if getattr(parse(text, options.scenario).options, "gate", False)]
    return "off" if not had else "on" if len(had) == len(options.policies) else f"on in {', '.join(had)}"


def recoveries(options: Options, played: Mapping[str, Sequence[Played]]) -> dict[str, list[dict[str, Any]]]:
    """How each policy recovered from what happens in the middle of the scenario, seed by seed; empty if none does."""
    change = _change(options, played)
    if change is None:
        return {}
    return {name: [asdict(recovery([p], change)) for p in seeds] for name, seeds in played.items()}


def recoveries_together(options: Options, played: Mapping[str, Sequence[Played]]) -> dict[str, dict[str, Any]]:
    """The same by shares averaged over the seeds."""
    change = _change(options, played)
    return {} if change is None else {name: asdict(recovery(seeds, change)) for name, seeds in played.items()}


def _change(options: Options, played: Mapping[str, Sequence[Played]]) -> int | None:
    """The decision before which something changes; None where nothing does, or too early to tell."""
    one = scenario(options.scenario)
    share = one.drift_at if one.drift_at is not None else one.launch_at
    count = next(iter(played.values()))[0].regret.size
    change = None if share is None else round(share * count)
    return None if change is None or change < 2 * WINDOW else change


def show(console: Console, options: Options, played: Mapping[str, Sequence[Played]]) -> None:
    """The tables for people."""
    one = scenario(options.scenario)
    reference = options.against or best_rival(played)
    count = next(iter(played.values()))[0].regret.size
    told = f"{fragments.seeds_named(options.first, options.seeds)}, gate and canary {gate_of(options)}"
    title = f"{one.name}: {one.about}. {one.actions:,} actions, {count:,} decisions, {told}"
    print_standings(console, standings(played, reference), title, reference)
    for name, seeds in recoveries(options, played).items():
        told = "; ".join(_recovered(found, newest=one.launch_at is not None) for found in seeds)
        console.print(f"{name} after the change: {told}")
    for text in options.policies:
        found = tuned.record(parse(text, options.scenario).family, options.scenario)
        if found is not None:
            family, _, own = text.partition(":")
            console.print(tuning_table(family, found))
            if own:
                console.print(f"{text} was played with {own}, whatever tuning found.")


def _recovered(one: Mapping[str, Any], *, newest: bool) -> str:
    shares = f"share {one['before']:.2f} before, {one['after']:.2f} at the end"
    levels = f"to .9: {one['to_informed']}, to .9 of before: {one['to_before']}"
    final = f", to .9 of the newest variant's final share: {one['to_final']}" if newest else ""
    return f"{shares}, decisions {levels}{final}"


def tuning_table(name: str, found: Mapping[str, Any]) -> Table:
    """Every setting that was tried, with its regret; the best one in the title."""
    where = f" on {found['scenario']}" if "scenario" in found else ""
    best = ", ".join(f"{key}={value}" for key, value in sorted(found["options"].items()))
    table = Table(
        title=f"{name} tuned{where}, {fragments.own_seeds(found['seeds'])}, {found['decisions']:,} decisions: {best}"
    )
    for heading in ("option", "value", "regret"):
        table.add_column(heading, justify="right" if heading == "regret" else "left")
    for tried in found["tried"]:
        table.add_row(tried["option"], str(tried["value"]), f"{tried['regret']:,.0f}")
    return table


def write(folder: Path, options: Options, played: Mapping[str, Sequence[Played]]) -> list[Path]:
    """Figures as JSON, regret curves and heat maps as PNG, into ``folder``; returns the files."""
    from simulations.curves import heat_maps, regret_curves

    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / options.scenario
    figures, curves, maps = (stem.with_name(f"{stem.name}{end}") for end in (".json", "-regret.png", "-week.png"))
    figures.write_bytes(orjson.dumps(report(options, played), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
    about = f"{options.scenario}: {scenario(options.scenario).about}"
    regret_curves(curves, played, title=f"{about} ({options.seeds} seeds)")
    heat_maps(maps, played, title=f"{options.scenario}: when messages go out, last fifth of the decisions")
    return [figures, curves, maps]
