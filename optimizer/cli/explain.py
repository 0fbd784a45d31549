"""``sendtide explain``: why a decision is what it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from optimizer.cli.call import Call, command
from optimizer.cli.group import EXIT_CODES
from optimizer.cli.tables import smaller

_TO = {
    "runner_up": "the best other action",
    "other_variant": "the best of another variant",
    "other_channel": "the best on another channel",
    "no_send": "not sending",
}
#: How many contributions of a comparison are shown; the rest is summed up.
_SHOWN = 8
#: Width of the longest bar.
_BAR = 24


@click.command(epilog=EXIT_CODES)
@click.argument("decision")
@command()
def explain(call: Call, decision: str) -> None:
    """Explain DECISION: what spoke for the chosen action, what was masked, and what exploration did.

    Contributions add up to the difference of two scores; a score is the expected reward less cost and prices.
    """
    from optimizer.service.explain import explain as explain_decision

    with call.services() as services:
        found = explain_decision(services, call.workspace, decision)
    call.answer(found, *_lines(found))


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    from optimizer.service.explainwords import is_silence

    yield found["sentence"]
    alike: list[tuple[list[str], Mapping[str, Any]]] = []
    for comparison in found["comparisons"]:
        # The best other action is often the best of another variant as well, or not to send: one comparison, two names.
        names = next((names for names, one in alike if one["action"] == comparison["action"]), None)
        if names is None:
            alike.append(([comparison["to"]], comparison))
        else:
            names.append(comparison["to"])
    for names, comparison in alike:
        yield ""
        yield from _comparison(names, comparison, silent=is_silence(found["chosen"]))


def _comparison(names: Sequence[str], found: Mapping[str, Any], *, silent: bool) -> Iterator[str]:
    from optimizer.service.explainwords import action, feature

    named = f": {action(found['action'])}" if "no_send" not in names else ""
    rivals = " and ".join(filter(None, [", ".join(_TO[one] for one in names[:-1]), _TO[names[-1]]]))
    yield f"Score against {rivals}{named}: {found['difference']:+.4g}"
    shown, rest = found["contributions"][:_SHOWN], found["contributions"][_SHOWN:]
    longest = max((abs(one["contribution"]) for one in shown), default=1.0) or 1.0
    for one in shown:
        bar = "█" * max(1, round(_BAR * abs(one["contribution"]) / longest))
        yield f"  {one['contribution']:+10.4g} {bar:{_BAR}} {feature(one, silent=silent).rpartition(' (')[0]}"
    if rest:
        yield f"  {sum(one['contribution'] for one in rest):+10.4g} {'':{_BAR}} {smaller(len(rest))}"
    if abs(found["residual"]) > 1e-9:
        yield f"  {found['residual']:+10.4g} {'':{_BAR}} residual"
