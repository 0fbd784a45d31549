"""What a gate did in plays of the whole service, from the notes of each world: first policies, later candidates, the
traffic that a gated policy and its refitted model share, lines that progress freed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Note = Mapping[str, Any]

#: In the order in which they are told; others follow.
_DECISIONS = ("publish", "reject", "skipped")
_WORDS = {"publish": "published", "reject": "rejected"}
#: How a look at shared traffic ends that is no mere waiting for one; older notes tell a look by the first words alone.
_MOVED = ("publish", "superseded")
_STAYS = "stays at"
#: What puts another policy into service, from which revisions start anew.
_STARTS = ("publish", "rolled_back")


def told_of(name: str, notes: Sequence[Mapping[str, Any]]) -> str | None:
    """A paragraph on a policy's gate over its worlds; None of one that had no gate."""
    worlds = [note["verdicts"] for note in notes if "verdicts" in note]
    if not worlds:
        return None
    first: list[Note] = []
    later: list[Note] = []
    for verdicts in worlds:
        before, after = _parted([one for one in verdicts if one["kind"] == "retrain"])
        first += before
        later += after
    parts = [
        f"first policies in {len(worlds)} world{'s' * (len(worlds) > 1)}: {_counts(first)}",
        f"later candidates: {_counts(later)}",
    ]
    climbs = [one for verdicts in worlds for one in verdicts if one["kind"] == "climb"]
    if climbs:
        looked, more = sum(_looked(one) for one in climbs), sum(one["decision"] == "publish" for one in climbs)
        parts.append(
            f"traffic shared by a gated policy and its refitted model: looked at {_times(looked)}, of which {more} "
            f"gave the newer model more, and {_times(len(climbs) - looked)} too early"
        )
    return f"Gate, {name}: {'; '.join([*parts, *_freed(worlds)])}."


def _parted(retrains: Sequence[Note]) -> tuple[Sequence[Note], Sequence[Note]]:
    """What was judged as a world's first policy, the one that was published included, and what came later."""
    published = next((i for i, one in enumerate(retrains) if one["decision"] == "publish"), len(retrains) - 1)
    return retrains[: published + 1], retrains[published + 1 :]


def _counts(judged: Sequence[Note]) -> str:
    made = [one["decision"] for one in judged]
    told = [*_DECISIONS, *sorted(set(made) - set(_DECISIONS))]
    return ", ".join(f"{_WORDS.get(one, one)} {made.count(one)}" for one in told) if made else "none judged"


def _looked(climb: Note) -> bool:
    if "looked" in climb:
        return bool(climb["looked"])
    return climb["decision"] in _MOVED or (climb["reason"] or "").startswith(_STAYS)


def _freed(worlds: Sequence[Sequence[Note]]) -> list[str]:
    """How many lines of revisions progress freed; a line goes from one policy put into service to the next."""
    if not any(_revises(one) for verdicts in worlds for one in verdicts):
        return []
    if not any("freed" in one for verdicts in worlds for one in verdicts):
        return ["whether progress freed a line of revisions, these plays did not record"]
    lines: list[bool] = []
    for verdicts in worlds:
        begins = True
        for one in verdicts:
            if _revises(one):
                lines += [False] if begins else []
                lines[-1], begins = lines[-1] or bool(one.get("freed")), False
            begins = begins or (one["kind"] != "refresh" and one["decision"] in _STARTS)
    return [f"lines of revisions that progress freed: {sum(lines)} of {len(lines)}"]


def _revises(one: Note) -> bool:
    return (one["kind"], one["decision"]) == ("refresh", "publish")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
