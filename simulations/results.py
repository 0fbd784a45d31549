"""``sendtide results``: plays the scenarios of the goals table and writes ``simulations/RESULTS.md``.

Each scenario's figures and pictures go into ``simulations/results/`` as soon as it is done, and the report is written
from what lies there. Single plays are kept until then, so a run that is stopped goes on where it was. Other commands
(``STUDIES``) may leave a fragment (``*.md``) in that folder; fragments come into the report in order of their names.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console

from optimizer.cli.call import option, reported
from optimizer.cli.group import EXIT_CODES
from simulations import fragments, gatewords, goals
from simulations.parts import PARTS, Part
from simulations.scenarios import scenario
from simulations.standings import Figure, asked_share, figure_of

FOLDER = Path(__file__).with_name("results")
#: Plays of a scenario that is not done yet.
PLAYED = Path("var") / "played"
REPORT = Path(__file__).with_name("RESULTS.md")
#: What ``make bench`` measured; one goal is about that.
BENCH = Path(__file__).with_name("bench") / "RESULTS.md"
#: Fragments by name, each with the command that leaves it.
STUDIES: Mapping[str, str] = {
    "estimators": "estimator-study",
    "gate": "gate-study --data DIR",
    "hillstrom": "replay --data DIR",
    "lift-intervals": "report-study",
    "send-times": "send-times --data DIR",
    "tuning": "tuning-study",
    "uci": "uci --data DIR",
}
#: Seeds before these were looked at while the learner was built.
FIRST = 101


@click.command("results", epilog=f"The other sections: {'; '.join(STUDIES.values())}.\n\n{EXIT_CODES}")
@option("--seeds", type=click.IntRange(1, 1000), default=10, show_default=True, help="Worlds of each scenario; paired.")
@option("--first", type=click.IntRange(1), default=FIRST, show_default=True, help="The first world's seed.")
@option("--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="Seeds at a time.")
@option("--only", multiple=True, help="Play this scenario alone (repeatable); the rest stays as it is.")
@option("--write-only", is_flag=True, help="Play nothing; write the report from what lies there.")
def command(seeds: int, first: int, processes: int, only: tuple[str, ...], write_only: bool) -> None:
    """Play every scenario with its rivals and write simulations/RESULTS.md.

    Takes most of a day on two cores; a run that was stopped goes on where it was, while the code stays the same.
    Sections that are no scenarios come in as commands of their own left them in simulations/results, with --out
    simulations/results.
    """
    with reported(as_json=False):
        console = Console(stderr=True)
        wanted = [scenario(name).name for name in only]
        for part in PARTS:
            if not write_only and (not wanted or part.scenario in wanted):
                _play(part, range(first, first + seeds), processes, console)
        REPORT.write_text(document(FOLDER, BENCH), encoding="utf-8")
        console.print(f"written: {REPORT}")


def document(folder: Path, bench: Path | None = None) -> str:
    """The report, from the figures and fragments that lie in ``folder``; its head names what doesn't lie there.

    ``bench``: the report of the benchmarks (None = goals that it tells of are left out).
    """
    studies = [
        f"- *{name}*: `sendtide {told}`{'' if (folder / f'{name}.md').exists() else ' (not played yet)'}"
        for name, told in STUDIES.items()
    ]
    missing = [f"*{part.scenario}*" for part in PARTS if not (folder / f"{part.scenario}.json").exists()]
    parts = [_HEAD.format(studies="\n".join(studies))]
    if missing:
        parts.append(f"**Not played yet, and missing below:** {', '.join(missing)}.")
    parts += goals.section(folder, bench)
    for part in PARTS:
        path = folder / f"{part.scenario}.json"
        if path.exists():
            parts.append(section(part, orjson.loads(path.read_bytes()), folder.name))
    parts += [fragment.read_text(encoding="utf-8").strip() for fragment in sorted(folder.glob("*.md"))]
    return "\n\n".join(parts) + "\n"


def section(part: Part, figures: Mapping[str, Any], folder: str) -> str:
    """One scenario: the table, how its rivals were tuned, its pictures."""
    options, reference, standings = figures["options"], figures["reference"], figures["standings"]
    how = f"{fragments.seeds_named(options['first'], options['seeds']).capitalize()}, gate and canary {figures['gate']}"
    told = f"{figures['scenario'].capitalize()}. {how}. {figures['played']}"
    tuned = [_tuning(name, found) for name, found in figures["tuning"].items() if found is not None]
    pictures = f"![regret]({folder}/{part.scenario}-regret.png)\n\n![week]({folder}/{part.scenario}-week.png)"
    verdicts = [gate for name, notes in figures["notes"].items() if (gate := gatewords.told_of(name, notes))]
    tenths = _tenths(standings, ("ours", "service", reference))
    lost = [] if all(one["asked"] == 1.0 for one in standings) else [_LOST]
    blocks = [f"## {part.scenario}: {part.asks}", told, _table(standings, reference), *lost, *tenths, *verdicts]
    if figures["recovery"]:
        blocks.append(_recovery(part, figures["recovery"], figures["recovery_together"]))
    if tuned:
        blocks.append("How rivals were tuned:\n\n" + "\n".join(tuned))
    return "\n\n".join([*blocks, pictures])


_HEAD = """# Results

Written by `sendtide results`, which `make results` calls; it plays the scenarios alone, the sections down to
*broken-propensities*. The sections after it are studies with commands of their own, each run with `--out
simulations/results`:

{studies}

What stands in one table was played side by side in one run. Regret is by exact expected rewards against the *informed
oracle* (the best choice that features, events and the past allow); "/inf" is the share of the way from chance to it.
Intervals are 95 % over paired seeds (Student's t); a ratio is the mean of the worlds' ratios. LinUCB and linear
Thompson sampling are our own, in numpy: tests hold LinUCB to mabwiser's, which is why some lists of versions name it.

What the comparison can't say:

- Rivals see the same stream, the same features of people and messages, and each decision's reward. We read beside that
  which outcomes made up the reward and what each is worth, opens, and what each person got and did before. Without
  opens we lose more over the first 1,000 decisions than Vowpal Wabbit (*early*); what they are worth later wasn't
  played. Of events rivals are told which two things were viewed last (*history*, *cross-sell*) and what was bought
  last, of recent messages nothing (*cap-pressure*, *fatigue*), of late outcomes nothing before they are final.
- A loop of Personalizer's API whose actions have no features has our learner of *uci* beside its linear one, and
  explores a fifth at most: on orders 1 to 3 (`sendtide uci --policies loop`) it errs .358 on letters, .276, .024, .161,
  .0107 on covertype, shuttle, adult, mushroom; ours alone, as in the table, .315, .272, .006, .156, .0020 on the same.
- Simulated plays learn when their log has grown, not when the service's scheduler would; in *gated* the service besides
  retrains less often up to 1,500 rows than what it is compared with, which is part of the difference. Groups are off:
  by default 5 % of people get nothing and 5 % a random choice.
- Until 2 December decisions of a simulation weren't told at which hours their recipients got and answered messages, as
  those of a service are. Told of it, no model took it up in the one world of 10,000 decisions in which we looked;
  longer plays and those in which people do things unprompted (*history*, *cross-sell*, played since) weren't looked at.
- The oracle that regret is taken against knows paydays and the season, which no feature tells: to choose without
  knowing of paydays costs it 15, 14 and 10 over 10,000 decisions in three worlds of *stationary* kept for tuning, 40
  over 30,000 in one.
- Rivals were tuned on one seed of their own, one option after the other (every setting that was tried is listed below
  the tables), most in *stationary* alone, whose setting they play elsewhere, too. Vowpal Wabbit has settings of its own
  for *base-rates*, *cap-pressure*, *cross-sell*, *fatigue*, *history*, *new-variant* and *xor*, and they matter: on the
  seeds of tuning squarecb loses 1,966 with its own where it loses 2,399 with that of *stationary* (*xor*), 1,608 for
  2,687 (*cap-pressure*), 1,241 for 1,715 (*new-variant*), 1,159 for 1,390 (*cross-sell*), and 2,519 for 2,762
  (*history*, by pairs of features). In *fatigue* the best that was tried loses 6,538, random choice 6,736. Where tastes
  drift, squarecb's rate still falls with time. Searches go on beyond the edge of a grid; those of regcb, rnd, bag,
  ε-greedy and, in *stationary*, many actions are of a time when they didn't, and of a smaller grid; `crossing=pairs`
  was tried in *cap-pressure*, *cross-sell*, *history*, *new-variant* and *xor* alone. Of the network's widths 32 is the
  least that was tried.
- Bag, cover, regcb, rnd and the linear bandits play the first 1,000 decisions alone, where cover is as good as
  squarecb; "the best Vowpal Wabbit" of longer plays is the best of those in its table.
- Rows of goals are judged by the mean, those of base rates and of new recipients by the whole interval.
- Our defaults were tuned on worlds of their own (seeds from 41 on). Where two ways of doing a thing were close, plays
  of seeds 1 to 10 decided some; no seed from 101 on decided any. Two of them prompted a question, which worlds kept for
  tuning answered: how wide draws should be, after a play that stuck (*base-rates*, seed 102) and four that cost more
  with wider ones (*stationary*).
- The learner has changed while this was played; the last column of the table says when each row was. All scenarios and
  the study *hillstrom* are of a learner that draws the precisions of its prior, too; one before took them for known. In
  six worlds of *stationary* kept for tuning, 10,000 decisions lost 998, 911, 831, 789, 912 and 894 since, and 988, 834,
  801, 846, 905 and 1,072 before. On Hillstrom's e-mails, where weekdays were waves then and have a step each today, it
  stood .0008 below Thompson sampling and stands level with it: the stretch there is reached by less than a tenth of a
  standard error.
- In one of the ten worlds of *base-rates* (seed 102) our play sticks: Wednesday is best for 76 of 100 people there, and
  gets 150 of the 40,000 messages after the first 10,000. It loses 4,366, the best static choice 2,907, Vowpal Wabbit
  4,564. The learner before, whose precisions were known, lost 3,750 there and 1,193 in the world of seed 101, where
  today's loses 1,427; rewards were counted otherwise (below), by which the best static choice and Vowpal Wabbit lost
  2,863 and 4,487 in the former. Where one message in fifty is clicked it takes long to learn of what is seldom tried,
  and wider draws cost in some worlds what they save in others: over 30,000 decisions in four kept for tuning 1,675,
  1,180, 1,688 and 1,419 with twice the width, 1,374, 1,247, 1,522 and 1,688 with that which is played, 1,628, 1,643,
  1,887 and 2,056 with known precisions.
- In one of the ten worlds of *history* (seed 108) no encoder joins before the last of 17 retrains, and with any of them
  about as much is lost as without: 2,147 to 2,166 for 2,222. In the nine others ours loses 1,176 to 1,597.
- Before *base-rates* and *fatigue* were played anew, purchases were worth what comes of them within 72 hours, .93 of
  them, whatever was chosen. Rewards, from which all learn, count them until 72 hours after the last possible send: .94
  of those that follow a message on the last day, .99 on the first, all but .002 without any. Both are scored by that
  now; Vowpal Wabbit's settings for them were found before. In *fatigue* the model of 30 November lost 2,852 of the
  6,905 that chance loses, .431 of Vowpal Wabbit's regret; today's loses 2,905 of 7,019, .432, in the same worlds.
- What *gate* says of power is of a first policy. Of the 40 later retrains of a run the first 13 judge no candidate: too
  few rows are held out. In *broken-propensities* none of the 32 later ones of the honest log does.
- In *gated* no later candidate passes: 46 of 66 had too few rows to be judged on; of the 20 that were judged, 10 were
  not shown to earn more and 10 failed, 5 of them on rows that weigh too much, too. What serves then has learned on from
  refresh to refresh, in 10 of 13 cases free of the bound that keeps it near the policy that was judged, since it was
  shown to predict better. There and in *gate* a candidate explored by the log's numbers and what served by those of its
  last revision; today's gate lets both explore as what is published would. Gate and canary cost 68 of regret there
  (standard error 54; more in 8 of 10 worlds), the schedules' difference included. The service of 28 November lost 989
  where 959 were lost without them, in the worlds of seeds 1 to 10.
- Power in *explored* (*estimators*) is of 3,000 logs, since 1,000 can't tell .90 from .93. Of 1,000, with the learner
  and the candidate of 30 November, it was .895 of that with the true reward model (340 logs for 380), by those of 27
  November .93 (599 for 645). Today's candidate draws more widely (its likeliest action has .36 of a draw, that of 30
  November .51), so that weights are lighter and more is seen with either. Reward models fitted to four fifths of a log
  in place of half of it were tried on twelve logs of a stream of their own: what their errors add to the variance that
  is the outcomes' own goes from 7.7 % to 6.7 %, for 2.6 times the time.
- Vowpal Wabbit's --l2 is 0 throughout: no grid has it. Of eight from 1e-8 to 1e-2, tried apart with the setting of
  *stationary* on the seed of tuning, 1e-4 lost least, 1,389 for 1,447; in the ten worlds of that table it loses 1,698
  for 1,684. One option after the other misses pairs: squarecb with a rate of 2 and a scale of 30,000 loses 1,364 for
  1,447 on that seed, 1,538 for 1,501 on the next, and 1,648 for 1,636 in the worlds of seeds 1 to 10. Of ways to
  estimate costs (--cb_type) the grids have mtr alone, where there is a choice."""
#: Below a table under some of whose policies not everybody could be asked.
_LOST = (
    "*Asked* is the share of the stream in which somebody could be asked: nobody who is lost, and nobody who may be "
    "sent nothing. Elsewhere regret counts 0, so losing people lowers it; the reward a decision, which is over the "
    "whole stream, counts 0 there, too. *Below the oracle's own play* charges for who is lost: how much less a "
    "decision of the whole stream earned than under the informed oracle, which meets people as it left them itself."
)


def _play(part: Part, seeds: range, processes: int, console: Console) -> None:
    from simulations.kept import Kept, code_version
    from simulations.simulate_run import Options, run, write

    options = Options(part.scenario, part.policies, len(seeds), first=seeds.start, against=part.against)
    kept = Kept(PLAYED / part.scenario, code_version())
    played = run(options, processes=processes, console=console, kept=kept)
    for path in write(FOLDER, options, played):
        console.print(f"written: {path}")
    shutil.rmtree(kept.folder, ignore_errors=True)


def _table(standings: Sequence[Mapping[str, Any]], reference: str | None) -> str:
    """Every policy's figures. Where not everybody could be asked, who could, and what the others cost."""
    ratio = f"regret / {reference}" if reference else "regret ratio"
    head = ["policy", "regret", "/inf, last fifth", "reward a decision", ratio, "regret to the full oracle"]
    rows = [_row(one) for one in standings]
    if any(one["asked"] < 1.0 for one in standings):
        oracle = next((one["reward"]["per_seed"] for one in standings if one["policy"] == "informed-oracle"), None)
        head += ["asked", "below the oracle's own play"]
        for row, one in zip(rows, standings, strict=True):
            below = "" if oracle is None else _of(_below(oracle, one["reward"]["per_seed"]), 4)
            row += [asked_share(one["asked"]), below]
    return fragments.table(head, rows)


def _row(one: Mapping[str, Any]) -> list[str]:
    return [
        one["policy"],
        _figure(one["regret"], 0),
        _figure(one["share"], 3),
        _figure(one["reward"], 4),
        "" if one["ratio"] is None else _figure(one["ratio"], 3),
        _figure(one["full_regret"], 0),
    ]


def _below(oracle: Sequence[float], rewards: Sequence[float]) -> Figure:
    """How much less than the oracle a policy earned a decision, world by world."""
    return figure_of([theirs - ours for theirs, ours in zip(oracle, rewards, strict=True)])


def _tenths(standings: Sequence[Mapping[str, Any]], names: Collection[str | None]) -> list[str]:
    """The way from chance to the informed oracle as it went, of the policies that the table is about."""
    told = [
        f"{one['policy']} {' '.join(f'{share:.3f}' for share in one['path'])}"
        for one in standings
        if one["policy"] in names
    ]
    return [f"/inf in each tenth of the decisions: {'; '.join(told)}."] if told else []


def _recovery(
    part: Part, found: Mapping[str, Sequence[Mapping[str, Any]]], together: Mapping[str, Mapping[str, Any]]
) -> str:
    """How fast each policy caught up after the change: by shares averaged over seeds, then one number a seed; – = not
    before the end. The newest variant's share of messages tells of that only where a variant is new."""
    levels = {"to_informed": "90 % of the informed lift", "to_before": "90 % of the share before"}
    if scenario(part.scenario).launch_at is not None:
        levels["to_final"] = "90 % of the newest variant's final share of messages"
    rows = []
    for name in [policy for policy in part.policies if policy in found]:
        cells = [
            f"**{_decisions(together[name][what])}**; " + ", ".join(_decisions(one[what]) for one in found[name])
            for what in levels
        ]
        rows.append([name, *cells])
    return fragments.table(["decisions after the change (**worlds together**; each) until", *levels.values()], rows)


def _decisions(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"


def _of(figure: Figure, digits: int) -> str:
    return _figure({"mean": figure.mean, "low": figure.low, "high": figure.high}, digits)


def _figure(figure: Mapping[str, Any], digits: int) -> str:
    mean = f"{figure['mean']:,.{digits}f}"
    if figure["low"] is None or figure["low"] != figure["low"]:
        return mean
    return f"{mean} ({figure['low']:,.{digits}f} … {figure['high']:,.{digits}f})"


def _tuning(name: str, found: Mapping[str, Any]) -> str:
    best = ", ".join(f"{key} {value}" for key, value in sorted(found["options"].items()))
    tried = "; ".join(f"{one['option']} {one['value']}: {one['regret']:,.0f}" for one in found["tried"])
    where = f"{found['scenario']}, {fragments.own_seeds(found['seeds'])}, {found['decisions']:,} decisions"
    return f"- {name} ({where}): **{best}**. Tried, in order, with regret: {tried}"
