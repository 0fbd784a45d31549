"""JSON Merge Patch (RFC 7386)."""

from __future__ import annotations

from typing import Any

from optimizer.errors import Unreadable

#: How deep a patch may be nested: far deeper than any document of ours, and half of what Python's stack holds.
DEEPEST = 500


def merged(target: Any, patch: Any, levels: int = DEEPEST) -> Any:
    """``target`` with ``patch`` applied: null removes a member, objects merge, everything else replaces.

    A patch is at least as deep as the part of the target that it reaches. Neither of the two is changed.

    Args:
        target: what is patched. patch: the patch.
        levels: how deep the patch may be nested.

    Raises:
        Unreadable: it is nested deeper.
    """
    if not isinstance(patch, dict):
        return patch
    if not levels:
        raise Unreadable(f"the patch has objects nested deeper than the allowed {DEEPEST} levels")
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value, levels - 1)
    return result
