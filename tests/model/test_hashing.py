"""How texts become words: the same in every script, and for Latin and Cyrillic texts what they always were."""

from __future__ import annotations

import re

import numpy as np
import pytest

from optimizer.model.hashing import text_vector, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Sale 🔥🔥", ["sale", "🔥", "🔥"]),
        ("I ❤️ NY", ["i", "❤", "ny"]),
        ("Hi 👩🏽‍💻!", ["hi", "👩🏽‍💻"]),
        ("Win 🇩🇪🇫🇷", ["win", "🇩🇪", "🇫🇷"]),
        ("हिन्दी में छूट", ["हिन्दी", "में", "छूट"]),
        ("今日は sale", ["今日", "日は", "sale"]),
        ("iPhone大特価", ["iphone", "大特", "特価"]),
        ("本", ["本"]),
        ("コート・セール", ["コー", "ート", "セー", "ール"]),
        ("ที่นี่", ["ที่นี่"]),
        ("할인 행사", ["할인", "행사"]),
        ("Cafe\u0301", ["caf\u00e9"]),
    ],
)
def test_words_are_read_in_every_script(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_a_subject_with_an_emoji_is_another_subject() -> None:
    assert not np.array_equal(text_vector("Sale", 32), text_vector("Sale 🔥", 32))


def test_two_chinese_texts_share_what_they_have_in_common() -> None:
    one, other = text_vector("春季大促销", 64), text_vector("秋季大促销", 64)
    assert one @ other > 0.3


@pytest.mark.parametrize(
    "text",
    [
        "Don't miss: 50% off – today only!",
        "Grüße aus Köln, œuvre, łódź, İstanbul, ſtraße",
        "Скидка — только сегодня, ёлка и йод",
        "Αθήνα №5 → 20 € “quoted” snake_case ½ ª",
        "Tiếng Việt ưu đãi",
        "",
    ],
)
def test_latin_cyrillic_and_greek_texts_keep_their_words(text: str) -> None:
    """Stored models know texts by these."""
    assert words_of(text) == [word.lower() for word in re.findall(r"\w+", text)]
