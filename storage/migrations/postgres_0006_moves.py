"""The index of what became of policies, as ``sqlite_0012_moves`` has it."""

from __future__ import annotations

from typing import Final

from storage.migrations.sqlite_0012_moves import INDEXES

STATEMENTS: Final = INDEXES
