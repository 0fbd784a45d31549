"""What is understood of learning settings written for Vowpal Wabbit.

Azure Personalizer passed them to its engine as they were. Here they are stored and given back as they were, and four
things in them have an effect: whether features are multiplied (``-q``, ``--interactions``, ``--quadratic``,
``--cubic``), how much is explored (``--epsilon``), and two methods of exploration (``--squarecb`` with
``--gamma_scale``, ``--softmax`` with ``--lambda``). The rest (``--cb_type``, ``-l``, ``--power_t``, …) sets numbers of
another learner.
"""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from optimizer.errors import Invalid

#: The settings that every loop began with in Azure Personalizer.
DEFAULT_ARGUMENTS = "--cb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::"
Method = Literal["posterior", "inverse_gap", "softmax"]
_PRODUCTS = ("-q", "--quadratic", "--interactions", "--cubic", "--full_name_interactions")
_CODE = "InvalidPolicyConfiguration"
_EPSILON = re.compile(r"(?<!\S)(--epsilon(?:=|\s+))\S+")


@dataclass(frozen=True, slots=True)
class LearningSettings:
    """How a policy learns and explores.

    Attributes:
        products: whether every two features are multiplied.
        method: how it explores; ``parameter`` is that method's number.
        epsilon: the most that is explored, if the arguments say so.
    """

    products: bool
    method: Method = "posterior"
    parameter: float = 0.0
    epsilon: float | None = None

    @property
    def network(self) -> bool:
        """Whether a network may choose where all actions are plain (``model.plain``): it multiplies features, and
        explores in a way of its own."""
        return self.products and self.method == "posterior"


@lru_cache(maxsize=256)
def read_arguments(arguments: str) -> LearningSettings:
    """The settings that a line of arguments asks for.

    Raises:
        Invalid: quotes that don't close, or a number that can't be one.
    """
    try:
        words = [part for word in shlex.split(arguments) for part in word.split("=", 1)]
    except ValueError as error:
        raise Invalid.field("arguments", f"can't be read: {error}", code=_CODE) from None
    products = any(word.startswith(_PRODUCTS) for word in words)
    epsilon = _number(words, "--epsilon", 0.0, 1.0)
    if "--squarecb" in words:
        scale = _number(words, "--gamma_scale", 0.0, 1e9)
        return LearningSettings(products, "inverse_gap", 10.0 if scale is None else scale, epsilon)
    if "--softmax" in words:
        sharpness = _number(words, "--lambda", 0.0, 1e9)
        return LearningSettings(products, "softmax", 1.0 if sharpness is None else sharpness, epsilon)
    return LearningSettings(products, epsilon=epsilon)


def with_epsilon(arguments: str, share: float) -> str:
    """The same arguments, with this ``--epsilon`` where they have one."""
    return _EPSILON.sub(lambda found: f"{found[1]}{share}", arguments, count=1)


def _number(words: list[str], name: str, low: float, high: float) -> float | None:
    if name not in words:
        return None
    place = words.index(name) + 1
    text = words[place] if place < len(words) else ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise Invalid.field("arguments", f"{name} {text!r:.40}: must be a number from {low:g} to {high:g}", code=_CODE)
    return value
