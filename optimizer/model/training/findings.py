"""What can be wrong with a feature, and from when on it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from optimizer.model.extremes import FAR
from optimizer.model.training.attributetypes import UNREADABLE

Problem = Literal[
    "constant", "missing", "exploding", "identity", "leaking", "unreadable", "shifted", "too_wide", "late"
]
#: Fewer recipients, or rows, in a half than this can't show a shift.
SHIFT_ROWS = 100


@dataclass(frozen=True, slots=True)
class QualityLimits:
    """What makes a feature suspicious.

    Attributes:
        missing: share of rows without a readable value, among rows of the campaigns that use the feature …
        present: … is left out where fewer rows than this have one. From so many on it is named and stays.
        endless: share of present values that are not finite.
        unreadable: share of present values that their type can't read: told, and the others are learned from.
        far: distance from the median in interquartile ranges (÷ 1.349) of the farthest value. Few so far away are
            missing values (``model.extremes``): told, and the others are learned from.
        ranges: newer values this many older ranges (.5 % to 99.5 %) outside the older range …
        outside: … in more than this share of the newer rows. From one distribution that has a chance below 1e-9.
        levels: a category with at least this many levels …
        identity: … and at least this many per recipient is an identity.
        leak_error: chance that any feature is called leaking though none is (see ``leaks``), over all together.
        shift_error: chance that any feature is called shifted though none is, over all together.
    """

    missing: float = 0.95
    present: int = 50
    endless: float = 0.01
    unreadable: float = UNREADABLE
    far: float = FAR
    ranges: float = 10.0
    outside: float = 0.02
    levels: int = 100
    identity: float = 0.5
    leak_error: float = 0.01
    shift_error: float = 0.01


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: ``figure`` is what was compared with ``limit``; ``declared``: the feature stays because it was
    declared for the model."""

    feature: str
    problem: Problem
    figure: float
    limit: float
    left_out: bool
    detail: str
    declared: bool = False
