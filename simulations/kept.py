"""Finished plays on disk, so that a run of hours goes on where it was stopped.

A play is known by all that determines it: the code, the scenario, the policy with its options, the seed, the length. So
nothing that another version has played is taken for this one's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from simulations.play import NUMBERS, PLACES, Played

_ROOT = Path(__file__).parents[1]
#: What a play runs through; ``tuned.json`` is part of the last.
_PACKAGES = ("optimizer", "storage", "simulations")


@dataclass(frozen=True)
class Kept:
    """A folder of plays of one version of the code."""

    folder: Path
    version: str

    def get(self, play: Callable[[], Played], *known_by: Any) -> Played:
        """The play that is known by this: from its file, else played now and kept."""
        name = blake2b(repr((self.version, *known_by)).encode(), digest_size=16).hexdigest()
        file = self.folder / f"{name}.npz"
        if file.exists():
            return _read(file)
        played = play()
        _write(file, played)
        return played


def code_version() -> str:
    """A hash of the code."""
    digest = blake2b(digest_size=16)
    for package in _PACKAGES:
        for file in sorted((_ROOT / package).rglob("*")):
            if file.suffix == ".py" or file.name == "tuned.json":
                digest.update(f"{file.relative_to(_ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _write(file: Path, played: Played) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    said = {"policy": played.policy, "seed": played.seed, "seconds": played.seconds, "notes": played.notes}
    text = np.frombuffer(orjson.dumps(said, option=orjson.OPT_SERIALIZE_NUMPY), np.uint8)
    columns: dict[str, Any] = {"said": text, **played.numbers, **played.places}
    part = file.with_suffix(".part")
    with part.open("wb") as out:
        np.savez_compressed(out, **columns)
    part.replace(file)  # a run that is killed meanwhile leaves no half file behind


def _read(file: Path) -> Played:
    with np.load(file) as found:
        numbers, places = ({name: found[name] for name in names} for names in (NUMBERS, PLACES))
        return Played(numbers=numbers, places=places, **orjson.loads(found["said"].tobytes()))
