"""Cursors of lists whose keys are as long as they may be."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.web.conftest import CAMPAIGN, Caller

LISTS: dict[str, tuple[str, dict[str, Any]]] = {
    "campaigns": ("campaign_id", CAMPAIGN),
    "rules": ("rule_id", {"kind": "gap", "minutes": 5}),
    "attributes": ("name", {"type": "number"}),
}


@pytest.mark.parametrize("script", ["漢", "😀"])
@pytest.mark.parametrize("plural", LISTS)
def test_a_page_that_ends_with_a_long_name_in_any_script_leads_to_the_next(
    admin: Caller, plural: str, script: str
) -> None:
    member, document = LISTS[plural]
    names = {script * 255 + last for last in "ab"}
    for name in names:
        assert admin("PUT", f"/v1/{plural}/{quote(name)}", document).status_code in (200, 201)
    found: list[str] = []
    cursor: str | None = None
    while cursor is not None or not found:
        query = {"limit": "1", **({"cursor": cursor} if cursor else {})}
        page = admin("GET", f"/v1/{plural}", query_string=query)
        assert page.status_code == 200, page.get_json()
        found += [one[member] for one in page.get_json()[plural]]
        cursor = page.get_json()["cursor"]
    assert names <= set(found)
