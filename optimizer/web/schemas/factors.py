"""What may be wrong with the things that a campaign chooses between, taken together."""

from __future__ import annotations

from typing import Any, Final

from optimizer.web.schemas.fields import misspelled

#: The fields of a campaign that say what there is to choose between.
FACTORS: Final = frozenset({"variants", "channels"})


def faults_of_factors(data: dict[str, Any]) -> dict[str, Any]:
    """What is wrong with the ``FACTORS`` of a loaded campaign, by field."""
    faults = {
        i: [f"{fault} Got {one.id!r}."] for i, one in enumerate(data["channels"]) if (fault := misspelled(one.id))
    }
    return {"channels": faults} if faults else {}
