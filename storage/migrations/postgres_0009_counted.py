"""When messages came to count as sent, as ``sqlite_0015_counted`` has it."""

from __future__ import annotations

from typing import Final

STATEMENTS: Final = (
    "ALTER TABLE decisions ADD COLUMN counted_at BIGINT",
    "ALTER TABLE decisions ADD COLUMN joined_at BIGINT",
    "ALTER TABLE decisions ADD COLUMN joined_after BIGINT",
)
