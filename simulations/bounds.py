"""What bounds the goals that are missed, and what was tried, by ``goals.Goal.key``."""

from __future__ import annotations

from collections.abc import Mapping

BOUNDS: Mapping[str, str] = {}
