"""Five classification sets of the UCI repository as bandits: choose a class, earn 1 if it is the right one.

The files are read from where they lie; nothing of them is kept in the project. A set that is shorter than what is asked
for goes round again, reshuffled.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import ConfigError
from optimizer.model.reading import parse_number
from storage.records import Attribute, AttributeType, JsonObject

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """Where a set lies and how its file reads.

    Attributes:
        file: name in the folder ``uci``.
        delimiter: between values.
        head: whether a line of names comes first; else features are named by their place.
        left_out: columns that only number the rows.
    """

    file: str
    delimiter: str = ","
    head: bool = False
    left_out: tuple[int, ...] = ()


#: The label is the last column of each.
SETS: dict[str, Source] = {
    "shuttle": Source("shuttle.trn.gz", delimiter=" "),
    "mushroom": Source("agaricus-lepiota.data.gz"),
    "adult": Source("adult.csv.gz", head=True),
    "covertype": Source("covertype_kaggle_train.csv.gz", head=True, left_out=(0,)),
    "letter": Source("letter.arff.gz"),
}


@dataclass(frozen=True)
class Classification:
    """n rows of a set.

    Attributes:
        contexts: features by name.
        label: (n,) int64, the right class in [0, classes).
        classes: K.
        attributes: the type of each feature, as a registry would say.
    """

    contexts: Sequence[JsonObject]
    label: Ints
    classes: int
    attributes: tuple[Attribute, ...]

    def stream(self, rounds: int, rng: np.random.Generator) -> Classification:
        """``rounds`` rows in random order; a shorter set goes round again in another order."""
        count = len(self.contexts)
        order = np.concatenate([rng.permutation(count) for _ in range(-(-rounds // count))])[:rounds]
        contexts = [self.contexts[i] for i in order.tolist()]
        return Classification(contexts, self.label[order], self.classes, self.attributes)


def file_of(folder: Path, name: str) -> Path:
    """Where the file of a set lies.

    Raises:
        ConfigError: no such set, or its file is missing.
    """
    if name not in SETS:
        raise ConfigError(f"set {name!r} is not one of {', '.join(SETS)}")
    source = SETS[name]
    places = [folder / "uci" / source.file, folder / source.file]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise ConfigError(f"{source.file} is neither in {folder} nor in {folder / 'uci'}")
    return path


def load(folder: Path, name: str) -> Classification:
    """A set from the folder of data.

    Raises:
        ConfigError: no such set, or its file is missing or not as expected.
    """
    path, source = file_of(folder, name), SETS[name]
    names, rows = _table(path, source)
    kept = [i for i in range(len(names)) if i not in source.left_out]
    columns = [[row[i] for row in rows] for i in kept]
    typed = [_typed(column) for column in columns]
    attributes = tuple(Attribute("uci", names[i], kind) for i, (kind, _) in zip(kept, typed, strict=True))
    used = [attribute.name for attribute in attributes]
    contexts = [dict(zip(used, row, strict=True)) for row in zip(*(values for _, values in typed), strict=True)]
    classes, label = np.unique([row[-1] for row in rows], return_inverse=True)
    return Classification(contexts, label.astype(np.int64), len(classes), attributes)


def _typed(column: Sequence[str]) -> tuple[AttributeType, list[Any]]:
    """A column's type and its values: all numbers, all 0 or 1, or categories."""
    if set(column) <= {"0", "1"}:
        return "boolean", [value == "1" for value in column]
    numbers = [parse_number(value) for value in column]
    if all(number is not None for number in numbers):
        return "number", list(numbers)
    return "category", list(column)


def _table(path: Path, source: Source) -> tuple[list[str], list[list[str]]]:
    """Names of the features, and the rows with the label last."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        reader = csv.reader(file, delimiter=source.delimiter, skipinitialspace=True)
        rows = [[value.strip() for value in row] for row in reader if row and not row[0].startswith("@")]
    names = rows.pop(0)[:-1] if source.head else [f"f{i:02d}" for i in range(len(rows[0]) - 1)]
    if not rows or any(len(row) != len(names) + 1 for row in rows):
        raise ConfigError(f"{path.name}: expected {len(names) + 1} values in every line")
    return names, rows
