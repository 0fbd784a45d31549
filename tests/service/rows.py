"""Files of rows for tests of imports and exports, and what is logged afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow
from pyarrow import parquet

from optimizer.service.wiring import Services
from storage.log import Decision, FeedbackRow
from tests.service.conftest import START, WORKSPACE

DAY = timedelta(days=1)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """The rows as a file of the suffix's format."""
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), path)
    elif path.suffix == ".ndjson":
        path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    else:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        lines = [",".join(columns)]
        lines += [",".join(_text(row.get(name)) for name in columns) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def logged(services: Services) -> list[FeedbackRow]:
    with services.store.read() as reader:
        return list(reader.feedback(WORKSPACE))


def decisions(services: Services) -> list[Decision]:
    return [row.decision for row in logged(services)]


def history_rows(count: int) -> list[dict[str, Any]]:
    at = START - 10 * DAY
    return [
        {
            "recipient_id": f"u{i % 7}",
            "campaign_id": "spring",
            "variant_id": ("mens", "womens")[i % 2],
            "channel": "email",
            "send_at": (at + timedelta(minutes=i)).isoformat(),
            "propensity": 0.5,
            "context.age": 20 + i % 5,
            "outcome.clicked": int(i % 3 == 0),
        }
        for i in range(count)
    ]
