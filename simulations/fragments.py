"""What a study leaves in ``simulations/results/``: its figures as JSON, and the text that goes into ``RESULTS.md``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson


def leave(folder: Path, name: str, figures: Any, text: str) -> None:
    """Writes ``name.json`` and the fragment ``name.md`` into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)
    (folder / f"{name}.json").write_bytes(packed + b"\n")
    (folder / f"{name}.md").write_text(text, encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
