"""``sendtide card``: what a policy was made from, what it looks at, how well it predicts, who put it there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from optimizer.cli.call import Call, command
from optimizer.cli.group import EXIT_CODES
from optimizer.cli.tables import bar, number, show, smaller, table
from optimizer.service.ids import COLD_POLICY

if TYPE_CHECKING:
    from rich.console import RenderableType

#: How many features are shown with a bar; what the others weigh is summed up.
_SHOWN = 12


@click.command(epilog=EXIT_CODES)
@click.argument("policy")
@command()
def card(call: Call, policy: str) -> None:
    """Show the card of POLICY: its data, its features, its calibration, the gate's verdict, who put it into service.

    Importance and calibration are measured on the campaign's newest closed decisions: on those made after the policy,
    which it can't have been trained on, where there are enough of them.
    """
    from optimizer.service.card import card as card_of

    with call.services() as services:
        found = card_of(services, call.workspace, policy)
    if call.as_json:
        call.answer(found)
        return
    show(_parts(found))


def _parts(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text(f"{found['policy_id']}, a policy of {found['campaign_id']}: {found['status']}\n", style="bold")
    for sentence in (*_origin(found), *_moves(found), *_data(found)):
        yield Text(f"• {sentence}")
    yield Text("")
    model = found["model"]
    if model is not None:
        yield _features(model["features"])
        if model["importance"]:
            yield _importance(model["importance"])
    yield from (_calibration(one) for one in found["calibration"])
    if found["verdict"].get("conditions"):
        yield _conditions(found["verdict"]["conditions"])


def _day(moment: datetime | str) -> str:
    known = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return f"{known:%Y-%m-%d %H:%M} UTC"


def _origin(found: Mapping[str, Any]) -> Iterator[str]:
    kind = "a refresh" if found["revision"] else "a retrain"
    first = found["parent_id"] in (None, COLD_POLICY)
    parent = ", the campaign's first" if first else f", from {found['parent_id']}"
    run = found["run"]
    by = f" by run {run['run_id']} ({run['trigger']})" if run else ""
    yield f"Made on {_day(found['created_at'])} by {kind}{by}{parent}."
    if len(found["mixture"]) > 1:
        told = ", ".join(f"{one['weight']:.0%} {one['artifact_id'] or 'random choice'}" for one in found["mixture"])
        yield f"It mixes several models: {told}."
    verdict = found["verdict"]
    if verdict.get("decision"):
        reason = f": {verdict['reason']}" if verdict.get("reason") else ""
        yield f"The gate's verdict: {verdict['decision']}{reason}."


def _moves(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["moves"]:
        yield "It has never been in service."
    for move in found["moves"]:
        back, on = move["kind"] == "rolled_back", f"on {_day(move['at'])}"  # of a rollback: why, or by whose key
        serves = "the cold start" if move["policy_id"] == COLD_POLICY else move["policy_id"]
        if move["policy_id"] == found["policy_id"]:
            yield (
                f"Put back into service by a rollback {on}: {move['by']}."
                if back
                else f"Promoted {on} by {move['by']}."
            )
        elif back:
            yield f"Taken back {on}, to {serves}: {move['by']}."
        else:
            yield f"Replaced {on} by {serves}, promoted by {move['by']}."


def _data(found: Mapping[str, Any]) -> Iterator[str]:
    model, period, tested = found["model"], found["verdict"].get("period"), found["evaluated_on"]
    if model is None:
        yield "No model of it is kept: it was rejected, or chooses at random."
        return
    span = f", of decisions from {_day(period[0])} to {_day(period[1])}" if period else ""
    several = len(found["mixture"]) > 1  # the period is that of the newest, the rows are those of the heaviest
    which, span = ("Its heaviest model was trained", "") if several else ("Trained", span)
    yield f"{which} on {model['rows']:,} rows of the workspace{span}, to predict {', '.join(model['outcomes'])}."
    for name in dict.fromkeys(one["outcome"] for one in model["follows"]):
        parts = [f"{one['share']:.2f} of {one['earlier']}" for one in model["follows"] if one["outcome"] == name]
        yield f"What moves {name} begins at {' and '.join(parts)}; its own rows tell the rest."
    if tested is None:
        yield "No decision has closed yet that its predictions could be held against."
        return
    known = "made after it" if tested["unseen"] else "some of which it was trained on"
    yield (
        f"Measured on {tested['decisions']:,} closed decisions, {known}, "
        f"from {_day(tested['first'])} to {_day(tested['last'])}."
    )


def _features(features: Sequence[Mapping[str, Any]]) -> RenderableType:
    rows = ([one["name"], "left out" if one["type"] == "dropped" else one["type"]] for one in features)
    return table("What it reads", ["feature", "type"], rows, names=2)


def _importance(importance: Sequence[Mapping[str, Any]]) -> RenderableType:
    shown, rest = importance[:_SHOWN], importance[_SHOWN:]
    longest = shown[0]["share"] or 1.0
    rows = [
        [one["feature"] or one["kind"], one["kind"], bar(one["share"] / longest), f"{one['share']:.1%}"]
        for one in shown
    ]
    if rest:
        rows.append([smaller(len(rest)), "", "", f"{sum(one['share'] for one in rest):.1%}"])
    title = "What moves the expected reward from message to message"
    return table(title, ["feature", "kind", "", "share"], rows, names=3)


def _calibration(found: Mapping[str, Any]) -> RenderableType:
    rows = (
        [
            f"{one['predicted']:.2%}",
            f"{one['observed']:.2%}",
            f"{one['low']:.2%} … {one['high']:.2%}",
            f"{one['rows']:,}",
            "" if one["low"] <= one["predicted"] <= one["high"] else "off",
        ]
        for one in found["bins"]
    )
    columns = ["predicted", "came true", "95 % of that", "decisions", ""]
    return table(f"Predictions of {found['outcome']} and what came of them", columns, rows, names=0)


def _conditions(conditions: Sequence[Mapping[str, Any]]) -> RenderableType:
    rows = (
        [
            one["name"],
            "passed" if one["passed"] else "failed",
            one.get("detail") or "",
            number(one["figure"]),
            number(one["limit"]),
        ]
        for one in conditions
    )
    return table("What the gate asked", ["condition", "", "", "figure", "limit"], rows, names=3)
