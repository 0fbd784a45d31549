"""The shared statements in PostgreSQL's words: its marks for parameters, no index hints, its names of types."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

#: Its planner takes no hints; the statements that carry one have an index that starts with what they ask for.
_HINTS: Final = re.compile(r"\b(NOT INDEXED|INDEXED BY \w+)")
#: ``?`` counts on, ``?1`` is a number, ``:name`` a name. No statement has any of these inside quotes.
_MARKS: Final = re.compile(r"\?(\d*)|:([a-z_]\w*)")
#: In place of a message's ``decision_id`` where that equals its ``message_ref``.
SAME: Final = ""
_PHRASES: Final = (
    ("decision_id IS NOT 0", f"decision_id IS DISTINCT FROM '{SAME}'"),
    ("INSERT OR FAIL INTO", "INSERT INTO"),
    ("?2 IS NOT NULL", "workspace_id = ?2"),
    ("CAST(NULL AS BLOB)", "CAST(NULL AS BYTEA)"),
    # How far a workspace's positions are is its own here, not the database's.
    ("(SELECT max(seq) FROM decisions)", "(SELECT max(seq) FROM decisions WHERE workspace_id = ?1)"),
)
LIST: Final = "IN ({marks})"


@lru_cache(maxsize=1024)
def translated(statement: str) -> tuple[str, tuple[str, ...]]:
    """The statement with ``$1``, ``$2``, …, and the names of its parameters in that order (none = they have none)."""
    text = _HINTS.sub("", statement.replace(LIST, "= ANY(?)"))
    for shared, ours in _PHRASES:
        text = text.replace(shared, ours)
    names: list[str] = []
    count = 0

    def numbered(mark: re.Match[str]) -> str:
        nonlocal count
        number, name = mark.groups()
        if name is not None:
            if name not in names:
                names.append(name)
            return f"${names.index(name) + 1}"
        if number:
            return f"${number}"
        count += 1
        return f"${count}"

    return _MARKS.sub(numbered, text), tuple(names)
