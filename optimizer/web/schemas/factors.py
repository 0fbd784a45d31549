"""What may be wrong with the things that a campaign chooses between, taken together."""

from __future__ import annotations

from typing import Any, Final

from optimizer.bandit.actions import MAX_ACTIONS
from optimizer.bandit.consent import misspelled

#: The fields of a campaign that say what there is to choose between.
FACTORS: Final = frozenset({"variants", "channels", "slot_minutes", "default_window_hours", "allow_no_send"})


def faults_of_factors(data: dict[str, Any], *, no_send: bool) -> dict[str, Any]:
    """What is wrong with the ``FACTORS`` of a loaded campaign, by field; ``no_send``: not sending may be answered."""
    faults = {
        i: [f"{fault} Got {one.id!r}."] for i, one in enumerate(data["channels"]) if (fault := misspelled(one.id))
    }
    found: dict[str, Any] = {"channels": faults} if faults else {}
    size = _fault_of_size(data, no_send)
    return {**found, "default_window_hours": [size]} if size else found


def _fault_of_size(data: dict[str, Any], no_send: bool) -> str | None:
    """Why a request without a window of its own could never be answered; None = it could."""
    variants, channels = sum(v.status == "active" for v in data["variants"]), len(data["channels"])
    minutes, each = data["slot_minutes"], variants * channels
    # Whole seconds, rounded down: where a window starts within a second decides on a slot at its end.
    slots = -(-int(data["default_window_hours"] * 3600) // (minutes * 60))
    size = each * slots + no_send
    if size <= MAX_ACTIONS:
        return None
    product = f"{variants} active variants x {channels} channels x {slots} slots of {minutes} minutes"
    hours = (MAX_ACTIONS - no_send) // each * minutes / 60
    shorter = f"at most {hours:g} hours, wider slots, or " if hours else ""
    return (
        f"{size} actions ({product}{', and not sending' if no_send else ''}) are more than {MAX_ACTIONS}, so a request "
        f"without a window of its own would be refused; allowed: {shorter}fewer variants or channels."
    )
