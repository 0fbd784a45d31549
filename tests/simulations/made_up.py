"""A made-up experiment in the form of Hillstrom's file: a few hundred rows, nothing of it real."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from simulations.hillstrom import ARM_NAMES

COLUMNS = (
    "recency",
    "history_segment",
    "history",
    "mens",
    "womens",
    "zip_code",
    "newbie",
    "channel",
    "segment",
    "visit",
    "conversion",
    "spend",
)
#: The chance of a visit by assignment, in the order of ``ARM_NAMES``.
CHANCES = (0.6, 0.3, 0.1)


def write_experiment(path: Path, rows: int, seed: int = 7) -> Path:
    """Writes ``rows`` made-up customers, each assigned at random, to a CSV; returns its path."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for _ in range(rows):
            arm = int(rng.integers(3))
            history = float(rng.uniform(30, 800))
            writer.writerow(
                [
                    rng.integers(1, 13),
                    "low" if history < 300 else "high",
                    f"{history:.2f}",
                    rng.integers(2),
                    rng.integers(2),
                    rng.choice(["A", "B", "C"]),
                    rng.integers(2),
                    rng.choice(["Web", "Phone"]),
                    ARM_NAMES[arm],
                    int(rng.random() < CHANCES[arm]),
                    0,
                    0,
                ]
            )
    return path
