"""The words of the console: every language has all of them, with the same fields; numbers and times read well."""

from __future__ import annotations

import ast
import inspect
import re
import string
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from optimizer.bandit.conditions import condition
from optimizer.bandit.gate import Rung, Verdict
from optimizer.errors import Invalid
from optimizer.model import terms
from optimizer.service import erased, explain, ingest
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


def names_of_features() -> set[str]:
    """The features that a contribution may be of and that no workspace has named."""
    calls = [
        node
        for module in (terms, explain)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Name"
    ]
    pairs = [[str(one.value) for one in call.args if isinstance(one, ast.Constant)] for call in calls]
    return {pair[1] for pair in pairs if len(pair) == 2 and pair[0] != "residual" and pair[1]}


def test_every_feature_that_is_not_the_workspaces_own_has_words() -> None:
    features = names_of_features()
    assert features >= {"hour of the day", "cost of the message", "what happened last, in order"}
    for language in LANGUAGES.values():
        assert {one for one in features if f"feature_name.{one}" not in language.words} == set()


def verdict(*failed: str, alpha: float = 0.0, of: tuple[str, ...] = ("rows", "value"), **more: Any) -> dict[str, Any]:
    """A verdict as policies store it, with the conditions that it failed."""
    conditions = tuple(condition(name, name not in failed, 0.5, 0.25, "in English") for name in of)
    decision: Literal["publish", "reject"] = "publish" if alpha else "reject"
    return asdict(Verdict(decision, alpha, conditions, "in English", 0.01, None, **more))


HELD = (Rung(1.0, False, ("canary",)), Rung(0.5, False, ("support.weight",)), Rung(0.1, True, ()))


@pytest.mark.parametrize(
    ("told", "english", "russian"),
    [
        (verdict("value"), "No improvement was shown; what served before stays.", "Улучшение не показано; остаётся"),
        (
            verdict("rows", "value"),
            "Not met: Enough final outcomes (0.5, limit 0.25); Clearly worth more than what serves now (0.5, limit",
            "Не выполнено: Достаточно окончательных исходов (0,5, предел 0,25); Явно ценнее",
        ),
        (verdict(alpha=1.0), "Better than what served before: published at 100%.", "опубликована с долей 100\u00a0%."),
        (
            verdict(alpha=0.1, rungs=HELD),
            "published at 10%. 50% is held back: No single decision weighs too much.",
            "Доле 50\u00a0% мешает: Ни одно решение не весит слишком много.",
        ),
        (verdict(alpha=1.0, of=("rows",)), "the first policy goes live whole.", "первая политика вводится целиком."),
        ({"decision": "publish", "reason": "in English"}, "Published without a gate.", "Опубликована без контроля."),
    ],
)
def test_a_verdict_is_told_from_its_figures(told: dict[str, Any], english: str, russian: str) -> None:
    assert english in Sayings(ENGLISH).verdict(told)
    assert russian in Sayings(RUSSIAN).verdict(told)


@pytest.mark.parametrize("told", [{}, {"revision": True}, {"decision": "watched", "reason": "", "conditions": []}])
def test_what_is_no_verdict_of_the_gate_is_left_in_its_own_words(told: dict[str, Any]) -> None:
    assert Sayings(ENGLISH).verdict(told) == ""


@pytest.mark.parametrize("lacking", ["rungs", "alpha"])
def test_a_verdict_that_lacks_what_held_the_next_step_back_is_left_in_its_own_words(lacking: str) -> None:
    stored = {name: value for name, value in verdict(alpha=0.1, rungs=HELD).items() if name != lacking}
    assert Sayings(ENGLISH).verdict(stored) == ""


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
