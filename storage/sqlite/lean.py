"""Imports sqlite-utils without pandas.

sqlite-utils imports pandas where it finds it, and that brings pyarrow: more than 60 MiB of every worker, for what is
not used here.
"""

from __future__ import annotations

import sys
from typing import Any

_modules: dict[str, Any] = sys.modules
if "pandas" not in _modules:
    _modules["pandas"] = None  # how Python is told that a module is not there
    try:
        import sqlite_utils  # noqa: F401
    finally:
        del _modules["pandas"]
