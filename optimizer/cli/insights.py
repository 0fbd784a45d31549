"""``sendtide insights``: which words and features of variants go with a higher response, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from optimizer.cli.call import Call, command, option
from optimizer.cli.group import EXIT_CODES
from optimizer.cli.tables import show, table

if TYPE_CHECKING:
    from rich.console import RenderableType

#: A direction is called likely from here on; the others are left out unless ``--all`` asks for them.
_LIKELY = 0.9


@click.command(epilog=EXIT_CODES)
@click.argument("campaign")
@option("--all", "everything", is_flag=True, help="What says nothing yet, too.")
@command()
def insights(call: Call, campaign: str, *, everything: bool) -> None:
    """Show which words and features of CAMPAIGN's variants go with a higher response, and how sure that is.

    "seen" is what share of their messages brought the outcome, with 95 % bounds that hold however often you look; the
    rest is what the model that serves believes, averaged over recipients. It begins at no difference and for rare
    outcomes stays near it, so state what was seen. Variants differ in more than one thing, so this is what goes
    together and not what causes it; what the same variants share is told as one. Numbers are told as the upper half
    against the lower one.
    """
    from optimizer.service.insights import insights as insights_of

    with call.services() as services:
        found = insights_of(services, call.workspace, campaign)
    if call.as_json:
        call.answer(found)
        return
    show(_parts(found, everything=everything))


def _parts(found: Mapping[str, Any], *, everything: bool) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text(f"{found['campaign_id']}, by the model of {found['policy_id']}\n", style="bold")
    every = found["insights"]
    shown = [one for one in every if everything or _sure(one) >= _LIKELY]
    for outcome in dict.fromkeys(one["outcome"] for one in shown):
        yield _table(outcome, [one for one in shown if one["outcome"] == outcome], found["level"])
    if not every:
        yield Text("Its active variants differ in no word and no feature: give them texts and features to compare.")
    elif len(shown) < len(every):
        yield Text(f"{len(every) - len(shown)} more say nothing yet (less than {_LIKELY:.0%} sure): --all shows them.")


def _sure(one: Mapping[str, Any]) -> float:
    """How sure the direction is."""
    higher: float = one["probability_higher"]
    return max(higher, 1.0 - higher)


def _table(outcome: str, rows: Sequence[Mapping[str, Any]], level: float) -> RenderableType:
    seen, believed = (f"seen with ({level:.0%})", "seen without"), ("model: with", "without", "odds ×", "sure")
    return table(f"What goes with {outcome}", ["with", "in", *seen, *believed], (_row(one) for one in rows), names=2)


def _row(one: Mapping[str, Any]) -> list[str]:
    return [
        ", ".join([*(f"“{word}”" for word in one["words"]), *one["features"]]),
        ", ".join(one["variants"]),
        _seen(one["observed_with"]),
        _seen(one["observed_without"]),
        f"{one['chance_with']:.2%}",
        f"{one['chance_without']:.2%}",
        f"{one['odds_ratio']:.2f} ({one['low']:.2f} … {one['high']:.2f})",
        f"{_sure(one):.0%} {'higher' if one['probability_higher'] > 0.5 else 'lower'}",
    ]


def _seen(found: Mapping[str, Any]) -> str:
    if found["estimate"] is None:
        return "–"
    return f"{found['estimate']:.2%} of {found['messages']:,} ({found['low']:.1%} … {found['high']:.1%})"
