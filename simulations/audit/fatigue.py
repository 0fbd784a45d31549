"""Fatigue rules: whether a policy heeded the limit on a predicted risk, by the risks that the decision stored.

A policy is a mixture; each component masks by its own predictions. So the drawn action must have been open to one.
"""

from __future__ import annotations

from simulations.audit.holdings import Held
from simulations.audit.verdicts import KEPT, Judgement
from storage.rules import Fatigue, RiskLimit, Rule

#: Relative slack of a comparison: a risk is predicted in single precision and stored in double.
_SLACK = 1e-6


def drawn_by_policy(held: Held) -> bool:
    """Whether a policy chose: not a baseline, nor a control group that none is asked for."""
    return held.group in ("treated", "random") and held.mode == "live"


def judge(rule: Rule, fatigue: Fatigue, judged: Held, *, learned: bool, sends_always: bool) -> Judgement:
    """Whether a reservation kept a fatigue rule that binds it.

    Args:
        rule: the version in force.
        fatigue: its parameters.
        judged: the reservation.
        learned: whether the policy that drew it has a model.
        sends_always: whether the campaign doesn't allow not sending. Then, where every action exceeds a limit, the one
            that does so by least stays open, and the log doesn't tell that it was so.
    """
    if not drawn_by_policy(judged) or not learned:
        return KEPT
    told = next((limit for limit in judged.limits if limit.rule_id == rule.rule_id), None)
    if told is None or not _same(told, fatigue, judged.channel):
        return Judgement("violated", "the policy was not told of this limit as it stood")
    if fatigue.outcome not in judged.risks:
        return Judgement("violated", f"no predicted risk of {fatigue.outcome} is stored")
    if open_to_some_component(judged):
        return KEPT
    if sends_always:
        return Judgement("unknown", "the log doesn't tell whether any action was within the limits")
    risks = [risk for risk in judged.risks[fatigue.outcome] if risk is not None]
    if all(_within(risk, fatigue.max_risk) for risk in risks):
        return KEPT  # another limit closed it
    return Judgement("violated", f"{fatigue.outcome} predicted at {max(risks):.3g}, limit {fatigue.max_risk:g}")


def open_to_some_component(judged: Held) -> bool:
    """Whether one component of the mixture found the action within every limit on its channel."""
    bound = [limit for limit in judged.limits if limit.channels is None or judged.channel in limit.channels]
    predicted = [(judged.risks.get(limit.outcome, ()), limit.max_risk) for limit in bound]
    components = max((len(risks) for risks, _ in predicted), default=0)
    return not bound or any(
        all(i >= len(risks) or risks[i] is None or _within(risks[i], most) for risks, most in predicted)
        for i in range(components)
    )


def _within(risk: float | None, most: float) -> bool:
    return risk is None or risk <= most * (1 + _SLACK)


def _same(told: RiskLimit, fatigue: Fatigue, channel: str) -> bool:
    on_channel = told.channels is None or channel in told.channels
    return on_channel and (told.outcome, told.max_risk) == (fatigue.outcome, fatigue.max_risk)
