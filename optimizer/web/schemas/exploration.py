"""How a campaign explores: the rate of moves, the method, and the one number that some methods have."""

from __future__ import annotations

from typing import Any, get_args

from marshmallow import ValidationError, post_load, validates_schema

from optimizer.bandit.explorers import DEFAULTS
from optimizer.web.schemas.body import Body
from optimizer.web.schemas.fields import Choice, Number
from storage.records import EXPLORATION_PARAMETERS, ExplorationMethod


class ExplorationIn(Body):
    """How much is tried."""

    rate = Number(
        "Ceiling of the share of moves that change one factor at random.", minimum=0, maximum=1, load_default=0.02
    )
    method = Choice(
        get_args(ExplorationMethod),
        "How a learned policy chooses among the eligible actions. posterior_bank: Thompson sampling from a frozen bank "
        "of posterior draws. marginal_thompson: the same with independent actions. inverse_gap: variant, then channel, "
        "then slot by inverse-gap weighting. softmax, epsilon_greedy. uniform: learns, and keeps choosing at random.",
        load_default="posterior_bank",
    )
    gamma = Number(
        "Of inverse_gap: how sharply what looks worse is left out. Gaps are counted in standard deviations of the "
        f"posterior, so it anneals by itself. Left out: {DEFAULTS['inverse_gap']:g}.",
        above=0,
        maximum=1e6,
    )
    temperature = Number(
        "Of softmax, for gaps in standard deviations of the posterior, so it anneals by itself. "
        f"Left out: {DEFAULTS['softmax']:g}.",
        minimum=1e-3,
        maximum=1e3,
    )
    epsilon = Number(
        "Of epsilon_greedy: ceiling of the share that is chosen uniformly, annealed as the rate is. "
        f"Left out: {DEFAULTS['epsilon_greedy']:g}.",
        minimum=0,
        maximum=1,
    )

    @validates_schema(skip_on_field_errors=True)
    def _consistent(self, data: dict[str, Any], **_: Any) -> None:
        problems = {
            name: [f"Belongs to method {method}, not to {data['method']}."]
            for method, name in EXPLORATION_PARAMETERS.items()
            if name in data and method != data["method"]
        }
        if problems:
            raise ValidationError(problems)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {
            "exploration_rate": data["rate"],
            "exploration_method": data["method"],
            "exploration_parameter": data.get(EXPLORATION_PARAMETERS.get(data["method"], "")),
        }


#: The fields of a campaign that doesn't say how it explores.
EXPLORATION: dict[str, Any] = ExplorationIn().load({})
