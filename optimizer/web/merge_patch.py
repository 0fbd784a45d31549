"""JSON Merge Patch (RFC 7386)."""

from __future__ import annotations

from typing import Any


def merged(target: Any, patch: Any) -> Any:
    """``target`` with ``patch`` applied: null removes a member, objects merge, everything else replaces.

    Recursion is bounded: orjson reads no document that is nested deeper than 1,024, and a patch is at least as deep
    as the part of the target that it reaches. Neither argument is changed.
    """
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result
