"""Indexes of what goes by its own age, as ``sqlite_0011_retention`` has them."""

from __future__ import annotations

from typing import Final

from storage.migrations.sqlite_0011_retention import INDEXES

STATEMENTS: Final = INDEXES
