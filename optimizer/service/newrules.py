"""What is refused of a rule that is new or changed. One that is stored may stay as it is, since an older version
took it: it must still be possible to turn it off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from optimizer.errors import Invalid
from storage.rules import Cap, Capacity, Rule, RuleParameters

#: What reasons, breaches and metrics name where no rule of the workspace masks: conditions of a variant, a campaign's
#: mode, its baseline, what the recipient agreed to.
BUILT_IN: Final = frozenset({"baseline", "consent", "mode", "requires", "suppression"})


def require_sound(stored: Rule | None, new: Rule) -> None:
    """Refuses a rule that could be taken for something else, or whose limits contradict each other.

    Args:
        stored: the rule as it was, None where it is new.
        new: the rule as it shall be.

    Raises:
        Invalid: names the field and what is allowed.
    """
    if stored is None and new.rule_id in BUILT_IN:
        names = ", ".join(sorted(BUILT_IN))
        raise Invalid.field("rule_id", f"{new.rule_id!r} is what reasons name themselves; allowed: any but {names}")
    if stored is not None and stored.parameters == new.parameters:
        return
    for path, limit, most in _lower(new.parameters):
        if limit > most:
            raise Invalid.field(path, f"{limit} must be at most limit ({most})")


def _lower(parameters: RuleParameters) -> Iterator[tuple[str, int, int]]:
    """The limits that may only be lower than the rule's own, with their fields and that."""
    if isinstance(parameters, Cap) and parameters.adapt is not None:
        yield "adapt.limit", parameters.adapt.limit, parameters.limit
    if isinstance(parameters, Capacity):
        for at, step in enumerate(parameters.warm_up):
            yield f"warm_up.{at}.limit", step.limit, parameters.limit
