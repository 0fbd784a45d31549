"""An explanation in a sentence or two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from storage.records import Mode

#: How many contributions are named.
_NAMED = 3
#: Where a contribution comes from; {0} is whose message it is of.
_THROUGH = {
    "variant": "with {0} variant",
    "channel": "on {0} channel",
    "pair": "with {0} variant and channel",
    "campaign": "in this campaign",
    "time": "at {0} time",
}
#: Why nothing was chosen, see ``withheld_by``.
_WITHHELD: Final = {
    "none_eligible": "no message was eligible",
    "paused": "the campaign is paused",
    "workspace_paused": "the workspace is paused",
    "no_baseline": "the baseline was to answer, and the campaign has none",
    "not_requested": "the baseline is not among the variants and channels that were asked for",
    "outside_window": "the baseline's time does not come in the window",
}


def sentence(facts: Mapping[str, Any], mode: Mode) -> str:
    """Why, for people. ``mode`` is the campaign's own, where the decision's may be the workspace's."""
    return " ".join([*_why(facts, mode), *_masked(facts)])


def withheld_by(facts: Mapping[str, Any], mode: Mode) -> str:
    """What left nothing to choose, by the kind of the first reason; a rule that masked everything has no name here."""
    first = facts["masked"][0]["kind"] if facts["masked"] else ""
    if first == "paused" and mode != "paused":
        return "workspace_paused"
    return first if first in _WITHHELD else "none_eligible"


def _why(facts: Mapping[str, Any], mode: Mode) -> Iterator[str]:
    kind = facts["kind"]
    if kind == "imported":
        yield "This decision was made by another system and imported; there is nothing to explain it by."
    elif kind == "withheld":
        yield f"Withheld: {_WITHHELD[withheld_by(facts, mode)]}."
    elif kind == "holdout":
        yield "Nothing was sent: the recipient is in the group holdout, which shows what happens without messages."
    elif kind == "baseline":
        why = (
            "the recipient is in the group baseline" if facts["group"] == "baseline" else f"the mode is {facts['mode']}"
        )
        yield f"The baseline was chosen at its first eligible time, since {why}."
    elif kind == "random":
        yield (
            f"Chosen at random among {facts['eligible_actions']} eligible actions: {action(facts['chosen'])}. The "
            "recipient is in the group random, which shows what the policy adds."
        )
    elif kind == "cold_start":
        chance = _chance(facts["propensity"])
        drawn = action(facts["chosen"])
        yield f"Nothing has been learned yet: {drawn} was drawn with probability {chance} from the cold start."
    else:
        yield from _learned(facts)


def _learned(facts: Mapping[str, Any]) -> Iterator[str]:
    explored, greedy = facts["exploration"], facts["greedy"]
    chosen, chance = action(facts["chosen"]), _chance(facts["propensity"])
    if is_silence(facts["chosen"]):  # an id stays as it is, at the head of a sentence too
        chosen = capitalize_first(chosen)
    if explored["greedy_was_chosen"]:
        whose = "Its"
        yield f"{chosen} was the most valued action and was chosen with probability {chance}."
    else:
        whose = "The chosen one's"
        other = _chance(explored["probability_of_greedy"])
        yield (
            f"{chosen} was chosen with probability {chance}, to learn; the most valued action was {action(greedy)} "
            f"(probability {other})."
        )
    runner_up = next((one for one in facts["comparisons"] if one["to"] == "runner_up"), None)
    if runner_up is None:
        yield "No other action was open."
        return
    gap, other = runner_up["difference"], action(runner_up["action"])
    because = _because(runner_up, silent=is_silence(facts["chosen"]))
    yield f"{whose} score is {abs(gap):.3g} {'above' if gap >= 0 else 'below'} that of {other}{because}."


def reasons_told(
    comparison: Mapping[str, Any],
) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Any] | None]:
    """The largest contributions of the difference's own sign, and the largest against it."""
    sign = 1.0 if comparison["difference"] >= 0.0 else -1.0
    for_it = [one for one in comparison["contributions"] if one["contribution"] * sign > 0.0][:_NAMED]
    return for_it, next((one for one in comparison["contributions"] if one["contribution"] * sign < 0.0), None)


def _because(comparison: Mapping[str, Any], *, silent: bool) -> str:
    for_it, against = reasons_told(comparison)
    told = ", mostly because of " + ", ".join(feature(one, silent=silent) for one in for_it) if for_it else ""
    return told + (f"; against it speaks {feature(against, silent=silent)}" if against is not None else "")


def is_silence(told: Mapping[str, Any] | None) -> bool:
    """Whether an action is not to send."""
    return told is not None and told["variant_id"] is None


def feature(one: Mapping[str, Any], *, silent: bool) -> str:
    """A contribution in words, with its size. ``silent``: not sending was chosen, so variant, channel and time are of
    the message that it is compared with."""
    name, whose = one["feature"], "the other's" if silent else "this"
    told = {
        "attribute": f"{name} = {shortened(one['value'])}" if one["value"] is not None else f"{name} (unknown)",
        "product": f"{name} together",
        "history": f"the recipient's history ({name})",
        "price": f"the price of what {name} makes scarce",
        "variant": "the other's variant itself" if silent else name,
        "channel": "the other's channel" if silent else name,
        "pair": "the other's variant on its channel" if silent else name,
        "copy": f"the other variant's {name}" if silent else f"the variant's {name}",
        "value": f"what {name} is worth after {whose} variant",
    }.get(one["kind"], name)
    through = f" {_THROUGH[one['through']].format(whose)}" if one["through"] else ""
    return f"{told}{through} ({one['contribution']:+.3g})"


def shortened(value: Any) -> str:
    """The text of an attribute's value, no longer than a sentence can take."""
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def action(told: Mapping[str, Any]) -> str:
    """An action in words."""
    if is_silence(told):
        return "not sending"
    return f"{told['variant_id']} by {told['channel']} on {told['send_at_local']:%A at %H:%M}"


def _masked(facts: Mapping[str, Any]) -> Iterator[str]:
    # What fatigue rules mask is told with the risks, guardrails among them.
    real = [one for one in facts["masked"] if one["masked"] and not one["dry_run"] and one["kind"] != "fatigue"]
    if real:
        told = ", ".join(f"{one['rule_id']} ({one['kind']}, {one['masked']})" for one in real)
        yield f"Masked by rules: {told}, of {facts['actions']} actions."
    by_risk = facts["masked_by_risk"]
    if by_risk and by_risk["actions"]:
        yield f"{by_risk['actions']} more were left out because of their predicted risk."


def capitalize_first(text: str) -> str:
    """A sentence that starts with a capital; the rest stays as it is."""
    return text[:1].upper() + text[1:]


def _chance(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
