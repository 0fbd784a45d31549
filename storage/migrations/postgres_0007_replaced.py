"""What a policy took the place of, as ``sqlite_0013_replaced`` has it."""

from __future__ import annotations

from typing import Final

from storage.migrations.sqlite_0013_replaced import COLUMNS

STATEMENTS: Final = COLUMNS
