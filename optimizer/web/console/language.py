"""The console's words: one file a language under ``words/``, all with the same names; a test compares them.

A language is added by adding its file. A word may hold ``{fields}``; one that hangs on a number has a form for each
plural category of its language (CLDR's ``one``, ``few``, ``many``, ``other``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from markupsafe import Markup, escape

FOLDER: Final = Path(__file__).parent / "words"
#: What is taken where a browser asks for no language that we have.
DEFAULT: Final = "en"

Forms = Mapping[str, str]


def _english(count: float) -> str:
    return "one" if count == 1 else "other"


def _russian(count: float) -> str:
    """CLDR's rule for whole numbers; what has a fraction takes the genitive singular, as 2 to 4 do."""
    if count % 1:
        return "few"
    ten, hundred = count % 10, count % 100
    if ten == 1 and hundred != 11:
        return "one"
    return "few" if 2 <= ten <= 4 and not 12 <= hundred <= 14 else "many"


_CATEGORIES: Final = {"one", "few", "many", "other"}
#: Which form a number takes, by language.
PLURALS: Final[Mapping[str, Callable[[float], str]]] = {"en": _english, "ru": _russian}


@dataclass(frozen=True)
class Language:
    """The words of one language, by dotted name."""

    code: str
    words: Mapping[str, str | Forms]

    def __call__(self, name: str, count: float | None = None, /, **fields: Any) -> Markup:
        """A word with its fields filled in, safe to stand in HTML: fields are escaped, and so is the word.

        Raises:
            KeyError: there is no such word.
        """
        word = self.words[name]
        if not isinstance(word, str):
            word = word[PLURALS[self.code](abs(count or 0))]
        return escape(word).format(**fields)

    def named(self, group: str, name: Any) -> str:
        """The word of a stored name, such as a status; the name itself where nobody has given it one."""
        word = self.words.get(f"{group}.{name}", str(name))
        return word if isinstance(word, str) else str(name)

    @property
    def thousands(self) -> str:
        """What stands between groups of three digits."""
        return str(self.words["format.thousands"])

    @property
    def decimal(self) -> str:
        """What stands before the decimals."""
        return str(self.words["format.decimal"])

    @property
    def months(self) -> Sequence[str]:
        """The months, short, from January."""
        return str(self.words["format.months"]).split()

    @property
    def weekdays(self) -> Sequence[str]:
        """The days of the week, short, from Monday."""
        return str(self.words["format.weekdays"]).split()


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, str | Forms]:
    """Nested groups of words as dotted names; a group of nothing but plural categories is one word."""
    found: dict[str, str | Forms] = {}
    for name, below in node.items():
        if isinstance(below, str) or set(below) <= _CATEGORIES:
            found[prefix + name] = below
        else:
            found |= _flat(below, f"{prefix}{name}.")
    return found


def read_languages() -> dict[str, Language]:
    """Every language that has a file, by code."""
    return {
        path.stem: Language(path.stem, _flat(orjson.loads(path.read_bytes()))) for path in sorted(FOLDER.glob("*.json"))
    }


LANGUAGES: Final = read_languages()
