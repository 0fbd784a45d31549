"""``docs/webhooks.md`` says what the code does."""

from __future__ import annotations

from pathlib import Path

from optimizer.service.webhooks.delivery import DECISION_ARGUMENT
from optimizer.service.webhooks.machines import AUTOMATED_FROM, BURST_LINKS, MOST, TOO_SOON
from optimizer.service.webhooks.tables import FIELDS, tables
from optimizer.service.webhooks.vendors import VENDORS

PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"


def test_the_tables_of_the_page_are_those_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for table in tables():
        assert table in page, f"docs/webhooks.md lacks this table:\n{table}"
    rows = sum(len(table.splitlines()) for table in tables())
    assert sum(line.startswith("|") for line in page.splitlines()) == rows
    assert FIELDS.keys() == VENDORS.keys()


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert (AUTOMATED_FROM, BURST_LINKS, TOO_SOON.total_seconds(), MOST) == (0.5, 3, 1.5, 1000)
    assert DECISION_ARGUMENT in page
    assert len(DECISION_ARGUMENT) <= 20  # Postmark's limit
