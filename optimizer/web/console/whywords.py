"""Why a decision is what it is, in words of the page's language: a phrase for each fact of ``explain``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from optimizer.service.explainwords import reasons_told, shortened, withheld_by
from optimizer.web.console.filters import Sayings
from storage.records import Mode


def why_told(say: Sayings, facts: Mapping[str, Any], mode: Mode) -> Markup:
    """A sentence or two. ``mode`` is the campaign's own, where the decision's may be the workspace's."""
    return Markup(" ").join([*_why(say, facts, mode), *_masked(say, facts)])


def contribution(say: Sayings, one: Mapping[str, Any]) -> Markup:
    """What a contribution is of, without its size."""
    t, name = say.language, say.named("feature_name", one["feature"])
    kind, value = one["kind"], one["value"]
    if kind == "attribute":
        # The name is the workspace's own, whatever it is called.
        name = one["feature"]
        told = t("why.feature.unknown", name=name)
        if value is not None:
            told = t("why.feature.attribute", name=name, value=shortened(value))
    elif kind == "product":
        told = t("why.feature.product", name=one["feature"])
    elif kind in ("history", "price", "copy"):
        told = t(f"why.feature.{kind}", name=name)
    elif kind == "value":
        told = t("why.feature.value", name=say.named("outcome", one["feature"]))
    else:
        told = Markup.escape(name)
    return t("why.through", feature=told, through=t(f"why.by.{one['through']}")) if one["through"] else told


def _why(say: Sayings, facts: Mapping[str, Any], mode: Mode) -> Iterator[Markup]:
    t, kind = say.language, facts["kind"]
    if kind == "withheld":
        yield t("why.withheld", why=t(f"why.withheld_by.{withheld_by(facts, mode)}"))
    elif kind == "baseline":
        grouped = facts["group"] == "baseline"
        why = t("why.baseline_group") if grouped else t("why.baseline_mode", mode=say.named("mode", facts["mode"]))
        yield t("why.baseline", why=why)
    elif kind == "random":
        yield t("why.random", n=say.whole(facts["eligible_actions"]))
    elif kind == "cold_start":
        yield t("why.cold_start", chance=say.percent(facts["propensity"]))
    elif kind == "learned":
        yield from _learned(say, facts)
    else:
        yield t(f"why.{kind}")


def _learned(say: Sayings, facts: Mapping[str, Any]) -> Iterator[Markup]:
    t, explored = say.language, facts["exploration"]
    told = {"action": _action(say, facts["chosen"]), "chance": say.percent(facts["propensity"])}
    if explored["greedy_was_chosen"]:
        yield t("why.greedy", **told)
    else:
        other = {"other": _action(say, facts["greedy"]), "other_chance": say.percent(explored["probability_of_greedy"])}
        yield t("why.explored", **told, **other)
    runner_up = next((one for one in facts["comparisons"] if one["to"] == "runner_up"), None)
    if runner_up is None:
        yield t("why.alone")
        return
    gap = runner_up["difference"]
    for_it, against = reasons_told(runner_up)
    because = Markup("")
    if for_it:
        because += t("why.because", features=Markup(", ").join(_sized(say, one) for one in for_it))
    if against is not None:
        because += t("why.against", feature=_sized(say, against))
    name = "why.above" if gap >= 0 else "why.below"
    yield t(name, gap=say.number(abs(gap)), other=_action(say, runner_up["action"]), because=because)


def _sized(say: Sayings, one: Mapping[str, Any]) -> Markup:
    return Markup("{} ({})").format(contribution(say, one), say.signed(one["contribution"]))


def _action(say: Sayings, told: Mapping[str, Any]) -> Markup:
    if told["variant_id"] is None:
        return say.language("why.nothing")
    at = say.local(told["send_at_local"])
    return say.language("why.action", variant=told["variant_id"], channel=told["channel"], at=at)


def _masked(say: Sayings, facts: Mapping[str, Any]) -> Iterator[Markup]:
    t = say.language
    # What fatigue rules mask is told with the risks, guardrails among them.
    real = [one for one in facts["masked"] if one["masked"] and not one["dry_run"] and one["kind"] != "fatigue"]
    if real:
        rules = Markup(", ").join(
            Markup("{} ({}, {})").format(one["rule_id"], say.named("rule_kind", one["kind"]), say.whole(one["masked"]))
            for one in real
        )
        yield t("why.masked", rules=rules, all=say.whole(facts["actions"]))
    by_risk = facts["masked_by_risk"]
    if by_risk and by_risk["actions"]:
        yield t("why.risk", by_risk["actions"], n=say.whole(by_risk["actions"]))
