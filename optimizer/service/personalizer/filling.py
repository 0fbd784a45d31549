"""Which actions each slot of a multi-slot request may show, so that no later slot is left with nothing.

Slots are filled in order, each action once. A place is open to a slot if, with it gone, every later slot can still be
filled: a bipartite matching (Kuhn's augmenting paths), which begins from the baselines, since they are unique and
allowed.
"""

from __future__ import annotations

from collections.abc import Sequence


class Filling:
    """The slots of one request while they are filled."""

    def __init__(self, allowed: Sequence[frozenset[int]], start: Sequence[int]) -> None:
        """Begins.

        Args:
            allowed: of each slot, the places of actions that are not excluded there.
            start: of each slot, a place; all different, each among those allowed.
        """
        self._allowed = allowed
        self._match = list(start)
        self._taken: set[int] = set()

    def open_places(self, slot: int) -> list[int]:
        """The places open to a slot, ascending; never empty. Earlier slots must have been filled."""
        return sorted(place for place in self._allowed[slot] - self._taken if self._without(slot, place) is not None)

    def take(self, slot: int, place: int) -> None:
        """Fills a slot with a place that is open to it."""
        match = self._without(slot, place)
        if match is None:
            raise ValueError(f"place {place} is not open to slot {slot}")
        self._match = match
        self._taken.add(place)

    def _without(self, slot: int, place: int) -> list[int] | None:
        """A matching in which this slot has that place; None = a later slot would stay empty."""
        match = list(self._match)
        match[slot] = place
        owner = next((later for later in range(slot + 1, len(match)) if match[later] == place), None)
        if owner is None:
            return match
        match[owner] = -1
        return match if self._rematch(owner, slot, match, {place}) else None

    def _rematch(self, slot: int, filled: int, match: list[int], seen: set[int]) -> bool:
        """Finds a place for ``slot``, moving slots after ``filled`` if need be."""
        for place in sorted(self._allowed[slot] - self._taken - seen):
            seen.add(place)
            owner = next((later for later in range(filled + 1, len(match)) if match[later] == place), None)
            if owner is None or self._rematch(owner, filled, match, seen):
                match[slot] = place
                return True
        return False
