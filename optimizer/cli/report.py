"""``sendtide report``: what a campaign brought, for people who read tables and for those who don't."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from optimizer.cli.call import Call, command, option
from optimizer.cli.group import EXIT_CODES
from optimizer.cli.tables import number, show, table
from optimizer.cli.times import time_of
from optimizer.service.reportwords import together
from storage.rules import WEEKDAYS

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHADES = " ░▒▓█"


@click.command(epilog=EXIT_CODES)
@click.argument("campaign")
@option("--since", help="Decisions made from this date or time on (UTC unless it says otherwise).")
@option("--until", help="Decisions made before this date or time.")
@command(settings=("report_folder",))
def report(call: Call, campaign: str, since: str | None, until: str | None) -> None:
    """Report what CAMPAIGN brought, and whether that is more than without Sendtide.

    Groups are compared by intention to treat and by recipient, on decisions whose attribution windows have all passed.
    The 95 % bounds hold on all days together: look as often as you like, and stop when it is clear.
    """
    from optimizer.service.report import report as report_of

    with call.services() as services:
        found = report_of(services, call.workspace, campaign, time_of("--since", since), time_of("--until", until))
    if call.as_json:
        call.answer(found)
        return
    show(_parts(found))


def _parts(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text(f"{found['campaign_id']}, as of {found['as_of']:%Y-%m-%d} 00:00 UTC\n", style="bold")
    for sentence in found["summary"]:
        yield Text(f"• {sentence}")
    yield Text("")
    yield _groups(found)
    if found["lifts"]:
        yield _lifts(found)
    for kind in ("variant", "channel"):
        if found[f"by_{kind}"]:
            yield _breakdown(found, kind)
    if found["by_hour"]:
        yield Text("Messages to the treated by local hour (darker = worth more, blank = none)", style="bold")
        yield Text("     0     6     12    18")
        yield from (Text(line) for line in _hours(found["by_hour"]))
    if found["rules"]:
        yield _rules(found["rules"])


def _interval(found: Mapping[str, Any] | None) -> str:
    if found is None or found["estimate"] is None:
        return "–"
    if found["low"] is None:
        return f"{number(found['estimate'])} (too early)"
    estimate, low, high = together([found[name] for name in ("estimate", "low", "high")], digits=4)
    return f"{estimate} ({low} … {high})"


def _groups(found: Mapping[str, Any]) -> RenderableType:
    money = [f"{found['currency']} a decision"] if _pays(found) else []
    columns = ["group", "recipients", "decisions", "compared", "value a decision", *money]
    harms = ("unsubscribed", "complained")
    rows = (
        [
            one["group"],
            f"{one['recipients']:,}",
            f"{one['decisions']:,}",
            f"{one['compared']:,}",
            _interval(one["value"]),
            *(_interval(one["money"]) for _ in money),
            *(f"{one['outcomes'][name]['count']:,}" for name in harms),
        ]
        for one in found["groups"]
    )
    return table("What each group brought", [*columns, *harms], rows)


def _pays(found: Mapping[str, Any]) -> bool:
    """Whether there is any money to speak of."""
    return any(one["revenue"] or one["cost"] for one in found["groups"])


def _lifts(found: Mapping[str, Any]) -> RenderableType:
    currency, pays = found["currency"], _pays(found)
    rows = (
        [
            one["control"],
            _interval(one["value"]),
            "–" if one["value"] is None or one["value"]["relative"] is None else f"{one['value']['relative']:+.1%}",
            *((_interval(one["money"]), _interval(one["money"] and one["money"]["total"])) if pays else ()),
            *(_rate(one["harms"].get(name)) for name in ("unsubscribed", "complained")),
        ]
        for one in found["lifts"]
    )
    money = [f"{currency} a decision", f"{currency} so far"] if pays else []
    columns = ["over", "lift a decision", "relative", *money]
    return table("What the choices brought more", [*columns, "unsubscribed", "complained"], rows)


def _rate(found: Mapping[str, Any] | None) -> str:
    return "–" if found is None else f"{found['estimate']:+.3%} ({found['low']:+.2%} … {found['high']:+.2%})"


def _breakdown(found: Mapping[str, Any], kind: str) -> RenderableType:
    rows = (
        [
            one[kind] or "(no message)",
            f"{one['decisions']:,}",
            _interval(one["treated"] and one["treated"]["value"]),
            _interval(one["random"] and one["random"]["value"]),
        ]
        for one in found[f"by_{kind}"]
    )
    return table(
        f"By {kind} (only what chance chose shows which is better)",
        [kind, "decisions", "value where the policy chose", "value where chance chose"],
        rows,
    )


def _hours(hours: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line a weekday, a shade an hour."""
    values = {(one["weekday"], one["hour"]): one["value"] for one in hours}
    low, high = min(values.values()), max(values.values())
    for day in WEEKDAYS:
        cells = []
        for hour in range(24):
            value = values.get((day, hour))
            place = 0 if value is None else 1 + round(3 * (value - low) / (high - low)) if high > low else 2
            cells.append(_SHADES[place])
        yield f"{day}  {''.join(cells)}"


def _rules(rules: Sequence[Mapping[str, Any]]) -> RenderableType:
    rows = (
        [
            one["rule_id"] + (" (dry run)" if one["dry_run"] else ""),
            one["kind"],
            f"{one['decisions']:,}",
            f"{one['withheld']:,}",
        ]
        for one in rules
    )
    return table("What rules masked", ["rule", "kind", "decisions", "withheld"], rows)
