"""What a study leaves in ``simulations/results/``: its figures as JSON, and the text that goes into ``RESULTS.md``."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

#: What plays are computed with. Tests hold our linear bandits to mabwiser, but nothing that is played runs it.
_PACKAGES = ("numpy", "torch", "onnxruntime", "vowpalwabbit")


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


def played() -> str:
    """When and on what figures are computed, as a sentence."""
    packages = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    return (
        f"Played {datetime.now(UTC):%Y-%m-%d} on {_processor()}, {os.cpu_count()} cores; Python "
        f"{platform.python_version()}, {packages}."
    )


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    if not told.exists():
        return platform.processor()
    lines = told.read_text(encoding="utf-8").splitlines()
    return ", ".join(sorted({line.partition(":")[2].strip() for line in lines if line.startswith("model name")}))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def seeds_named(first: int, count: int) -> str:
    """Which worlds were played: "seed 7", "seeds 1 to 10"."""
    return f"seed {first}" if count == 1 else f"seeds {first} to {first + count - 1}"


def own_seeds(count: int) -> str:
    """On how many worlds of its own a rival was tuned."""
    return f"{count} seed{'' if count == 1 else 's'} of its own"
