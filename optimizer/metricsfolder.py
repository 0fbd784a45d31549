"""The folder of metric files: no other file in it may end as theirs do."""

from __future__ import annotations

import re
from pathlib import Path

from optimizer.errors import ConfigError

#: A file of prometheus-client's: what it holds, and the process.
_METRIC_FILE = re.compile(r"(counter|gauge_[a-z]+|histogram|summary)_\d+\.db")


def require_metrics_alone(folder: str) -> None:
    """Refuses a folder in which other files end in ``.db``, such as a database.

    prometheus-client opens whatever ends so, in the very processes that have the database open
    (``storage.sqlite.connect`` says what comes of that).

    Raises:
        ConfigError: names them.
    """
    others = sorted(file.name for file in Path(folder).glob("*.db") if not _METRIC_FILE.fullmatch(file.name))
    if others:
        raise ConfigError(
            f"--metrics-dir {folder}: {', '.join(others)} there is no file of metrics, but whatever ends in .db is "
            f"read as one; name a folder for metrics alone"
        )
