"""The words of the console: every language has all of them, with the same fields; numbers and times read well."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from optimizer.errors import Invalid
from optimizer.service import erased, ingest
from optimizer.web.compat import segment_messages
from optimizer.web.console import figures
from optimizer.web.console.filters import Sayings
from optimizer.web.console.language import LANGUAGES, PLURALS, Forms, Language

ENGLISH, RUSSIAN = LANGUAGES["en"], LANGUAGES["ru"]
CONSOLE = Path(figures.__file__).parent
TEMPLATES = CONSOLE.parent / "templates" / "console"
AT = datetime(2026, 11, 24, 9, 5, tzinfo=UTC)


def fields(word: str | Forms) -> set[str]:
    texts = [word] if isinstance(word, str) else list(word.values())
    return {name for text in texts for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("code", [code for code in LANGUAGES if code != "en"])
def test_every_language_has_the_same_words_with_the_same_fields(code: str) -> None:
    theirs = LANGUAGES[code].words
    assert set(theirs) == set(ENGLISH.words)
    for name, word in ENGLISH.words.items():
        assert fields(theirs[name]) == fields(word), name
        assert isinstance(theirs[name], str) == isinstance(word, str), name


def codes_of_refused_events() -> set[str]:
    """The codes that whatever reads events from the outside can raise; the plain schema's is that of ``Invalid``."""
    service, compat = Path(ingest.__file__).parent, Path(segment_messages.__file__).parent
    files = [service / "ingest.py", *(service / "webhooks").glob("*.py"), *compat.glob("*.py")]
    found = {Invalid.code, erased.CODE}
    for call in (
        node for file in files for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)
    ):
        told = [word.value for word in call.keywords if word.arg == "code"]
        if isinstance(call.func, ast.Name) and call.func.id == "RejectedEvent":
            told += call.args[1:2]
        found |= {one.value for one in told if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return found


def test_every_code_of_a_refused_event_has_words() -> None:
    codes = codes_of_refused_events()
    assert codes >= {"event_id_reused", "no_user_anon_id", "too_large", "uncorrelated", "unreadable"}
    for language in LANGUAGES.values():
        assert {code for code in codes if f"rejected.{code}" not in language.words} == set()


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_word_that_hangs_on_a_number_has_all_forms_of_its_language(code: str) -> None:
    needed = {PLURALS[code](n) for n in range(200)}
    for name, word in LANGUAGES[code].words.items():
        if not isinstance(word, str):
            assert set(word) == needed, name


def used_words() -> Iterator[tuple[str, str]]:
    """Words that templates and code name outright, or by a prefix that ends with a dot."""
    for path in [*TEMPLATES.glob("*.html"), *CONSOLE.glob("*.py")]:
        for name in re.findall(r"""\b(?:t|language|words)\(\s*f?["']([a-z0-9_.]+)""", path.read_text(encoding="utf-8")):
            yield path.name, name


def test_the_words_that_pages_ask_for_are_there() -> None:
    found = list(used_words())
    assert len(found) > 20
    for where, name in found:
        there = (
            any(word.startswith(name) for word in ENGLISH.words) if name.endswith((".", "_")) else name in ENGLISH.words
        )
        assert there, f"{where}: {name}"


def test_fields_are_escaped() -> None:
    assert ENGLISH("frame.title", page="<b>") == "&lt;b&gt; – Sendtide"


@pytest.mark.parametrize(
    ("value", "english", "russian"),
    [
        (None, "–", "–"),
        (0, "0", "0"),
        (1234567.4, "1,234,567", "1\u00a0234\u00a0567"),
        (-12.34, "\N{MINUS SIGN}12.3", "\N{MINUS SIGN}12,3"),
        (0.1234, "0.123", "0,123"),
        (0.01234, "0.0123", "0,0123"),
        (0.0001234, "0.000123", "0,000123"),
        (1e-9, "0", "0"),
        (100.0, "100", "100"),
        (2.5, "2.5", "2,5"),
    ],
)
def test_numbers_read_well(value: float | None, english: str, russian: str) -> None:
    assert figures.number(ENGLISH, value) == english
    assert figures.number(RUSSIAN, value) == russian


def test_shares_signs_and_short_counts_read_well() -> None:
    assert figures.percent(ENGLISH, 0.1234) == "12.3%"
    assert figures.percent(RUSSIAN, 0.1234) == "12,3\u00a0%"
    assert figures.percent(ENGLISH, 0.00123) == "0.12%"
    assert figures.percent(ENGLISH, 0.0) == "0.0%"
    assert figures.signed_percent(ENGLISH, 0.05) == "+5.0%"
    assert figures.signed(ENGLISH, 0.05) == "+0.05"
    assert figures.signed(ENGLISH, -0.05) == "\N{MINUS SIGN}0.05"
    assert figures.signed(ENGLISH, 0.0) == "0"
    assert figures.compact(ENGLISH, 1_234_567) == "1.23\u00a0M"
    assert figures.compact(RUSSIAN, 12_000) == "12\u00a0тыс."
    assert figures.compact(ENGLISH, 12) == "12"


@pytest.mark.parametrize(
    ("span", "english", "russian"),
    [
        (timedelta(seconds=3), "just now", "только что"),
        (timedelta(minutes=1), "1 minute ago", "1 минуту назад"),
        (timedelta(minutes=22), "22 minutes ago", "22 минуты назад"),
        (timedelta(hours=11), "11 hours ago", "11 часов назад"),
        (timedelta(days=21), "21 days ago", "21 день назад"),
        (-timedelta(hours=2), "in 2 hours", "через 2 часа"),
    ],
)
def test_ages_agree_with_their_number(span: timedelta, english: str, russian: str) -> None:
    assert figures.age(ENGLISH, span) == english
    assert figures.age(RUSSIAN, span) == russian


@pytest.mark.parametrize(
    ("language", "told"), [(ENGLISH, "24\u00a0Nov\u00a02026, 09:05"), (RUSSIAN, "24\u00a0ноя.\u00a02026, 09:05")]
)
def test_times_are_told_in_utc(language: Language, told: str) -> None:
    elsewhere = AT.astimezone(tz=None)
    assert figures.clock(language, elsewhere) == told
    assert figures.local_clock(ENGLISH, AT) == "Tue 24\u00a0Nov, 09:05"


@pytest.mark.parametrize(
    "name", ["value", "integrity.replay", "calibration.clicked.slope", "guardrails.unsubscribed.rate"]
)
def test_conditions_of_the_gate_have_words(name: str) -> None:
    for language in LANGUAGES.values():
        assert Sayings(language).condition(name) != name
    assert Sayings(ENGLISH).condition("guardrails.my.own.rate").endswith("my.own")


def test_what_has_no_words_is_told_by_its_name() -> None:
    assert Sayings(ENGLISH).condition("something.new") == "something.new"
    assert Sayings(RUSSIAN).named("outcome", "booked") == "booked"
