"""A report in sentences, for those who read no tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_CONTROLS = {
    "holdout": "sending nothing (holdout)",
    "random": "choosing at random (random)",
    "baseline": "what was sent before (baseline)",
}


def told(facts: Mapping[str, Any]) -> list[str]:
    """What the report says, the most important first."""
    return [*_warnings(facts), *_lifts(facts), *_harms(facts), *_maturity(facts)]


def number(value: float) -> str:
    """A number as people read it: three significant digits, no exponent."""
    if value == 0.0:
        return "0"
    size = abs(value)
    return f"{value:,.0f}" if size >= 999.5 else f"{value:.3g}" if size >= 1e-4 else f"{value:.1e}"


def together(values: Sequence[float], digits: int = 3) -> list[str]:
    """An estimate and what belongs to it, as its bounds, all with as many decimals as give the estimate its digits: who
    reads "+0.11" beside "+0.152" takes it for less sure than it is."""
    size = abs(values[0])
    if size < 1e-4:
        return [number(one) for one in values]
    places = max(0, digits - 1 - math.floor(math.log10(size)))
    return [f"{one:z,.{places}f}" for one in values]


def _signed(values: Sequence[float]) -> list[str]:
    return [("+" if value > 0.0 else "") + told for value, told in zip(values, together(values), strict=True)]


def _warnings(facts: Mapping[str, Any]) -> Iterator[str]:
    sizes = facts["group_sizes"]
    if sizes["mismatch"]:
        found = ", ".join(
            f"{group} {sizes['recipients'][group]:,} instead of {sizes['expected'][group]:,.0f}"
            for group in sizes["recipients"]
            if sizes["recipients"][group] or sizes["expected"][group]
        )
        yield (
            f"Don't trust the comparisons: the groups have not the sizes that they should ({found}; "
            f"p = {sizes['p_value']:.1g}). Recipients are lost before or after the choice, unevenly."
        )
    yield from _forms(facts)


def _forms(facts: Mapping[str, Any]) -> Iterator[str]:
    """What is reported in two forms, or of one group alone."""
    groups_of = {one["outcome"]: one["groups"] for one in facts["forms"]}
    doubted: dict[tuple[str, str], list[str]] = {}
    for lift in facts["lifts"]:
        for one in lift["doubts"]:
            doubted.setdefault((one["doubt"], one["outcome"]), []).append(lift["control"])
    for (doubt, name), controls in doubted.items():
        groups = groups_of[name]
        if doubt == "two_forms":
            found = ", ".join(
                f"{group} {groups[group]['by_decision']:,} and {groups[group]['by_recipient']:,}"
                for group in ("treated", *controls)
            )
            yield (
                f"Don't trust the lift over {' and '.join(controls)}: some events of {name} name a decision and count "
                f"for it alone, others only the recipient and count for every open decision ({found}). Report all of "
                "them by recipient_id."
            )
        else:
            yield (
                f"No {name} of the holdout was reported, and {groups['treated']['by_decision']:,} of the treated, all "
                "naming a decision. If it happens without a message too, report all of them by recipient_id."
            )


def _lifts(facts: Mapping[str, Any]) -> Iterator[str]:
    if not facts["lifts"]:
        yield "There is nothing to compare with: the campaign has no holdout, random or baseline group."
    treated = sum(one["compared"] for one in facts["groups"] if one["group"] == "treated")
    for lift in facts["lifts"]:
        yield from _lift(lift, facts["currency"], treated)


def _lift(lift: Mapping[str, Any], currency: str, treated: int) -> Iterator[str]:
    over, value = _CONTROLS[lift["control"]], lift["value"]
    if value is None:
        yield f"Lift over {over}: nothing to say yet, no decisions of both groups can be compared."
        return
    if value["low"] is None:
        have = value["power"]["outcomes"]
        fewer = min(("treated", "control"), key=lambda name: have[name])
        whose = "treated" if fewer == "treated" else lift["control"]
        days = value["power"]["days_until_clear"]
        when = f", in about {days:,} days at this pace" if days else ""
        whole = math.floor(have[fewer] + 1e-9)  # rounded up, it would have what is needed
        people = "1 recipient" if whole == 1 else f"{whole} recipients"
        yield (
            f"Lift over {over}: too early to say. As good as {people} of the group {whose} had an "
            f"outcome; {have['needed']:.0f} are needed{when}."
        )
        return
    estimate, low, high = _signed([value[name] for name in ("estimate", "low", "high")])
    share = f", {value['relative']:+.1%} of {number(value['base'])}" if value["relative"] is not None else ""
    size = f"{estimate} a decision (95 %: {low} to {high}{share})"
    if any(one["doubt"] == "two_forms" for one in lift["doubts"]):
        yield f"Lift over {over}: {size}. It shows nothing, as long as outcomes are reported in two forms."
        return
    if value["clear"] == "higher":
        yield f"A clear lift over {over}: {size}."
    elif value["clear"] == "lower":
        yield f"Worse than {over}: {size}. Consider pausing or rolling back."
    else:
        yield f"No lift over {over} can be seen: {size}. {_until(value['power'])}"
    yield from _money(lift["money"], currency, treated)


def _until(power: Mapping[str, Any]) -> str:
    days = power["days_until_clear"]
    if power["detectable"] is None:
        return ""
    told_of = f"A lift of {number(power['detectable'])} would be clear by now"
    if days is None:
        return f"{told_of}; at this pace, one of the size seen would not be within ten years."
    return f"{told_of}; one of the size seen would be in about {days:,} more days at this pace."


def _money(money: Mapping[str, Any] | None, currency: str, treated: int) -> Iterator[str]:
    """What the lift is in money so far, where money was reported at all; and of what, where that isn't everything."""
    if money is None or money["total"]["low"] is None:
        return
    total = money["total"]
    part = ""
    if total["decisions"] < treated:
        part = (
            f", with {total['decisions']:,} of {treated:,} treated decisions: those made while the group to compare "
            "with was large enough to tell"
        )
    estimate, low, high = _signed([total[name] for name in ("estimate", "low", "high")])
    yield f"In money, costs deducted: {estimate} {currency} so far (95 %: {low} to {high}){part}."


def _harms(facts: Mapping[str, Any]) -> Iterator[str]:
    for lift in facts["lifts"]:
        for name, harm in lift["harms"].items():
            if harm["clear"] == "higher" and lift["control"] != "holdout":
                more = f"{harm['estimate']:+.3%} of decisions (95 %: {harm['low']:+.3%} to {harm['high']:+.3%})"
                yield f"More recipients {name} than in the group {lift['control']}: {more}."


def _maturity(facts: Mapping[str, Any]) -> Iterator[str]:
    counts = facts["decisions"]
    if counts["total"] == 0:
        yield "No decisions in this period."
    elif counts["windows_open"]:
        day = counts["next_closes_at"].date().isoformat()
        yield (
            f"{counts['compared']:,} decisions are compared; {counts['windows_open']:,} are not yet, since something "
            f"may still come of them (the next on {day})."
        )
