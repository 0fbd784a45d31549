"""The guide for those who come from Azure Personalizer: its Python runs, its claims of limits are the code's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from optimizer.service.personalizer import evaluating, replaying
from optimizer.service.personalizer.loop import AGGREGATIONS
from optimizer.service.personalizer.loop import Loop as Configuration
from optimizer.web.compat.personalizer import bodies, shapes
from optimizer.web.compat.personalizer.versions import Version
from tests.web.personalizer.conftest import Loop

GUIDE = (Path(__file__).parents[3] / "docs" / "personalizer.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("slash", ["", "/"])
def test_its_python_runs(
    loop: Loop,
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    slash: str,
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    assert len(blocks) == 2
    monkeypatch.setenv("PERSONALIZER_ENDPOINT", endpoint + slash)
    monkeypatch.setenv("PERSONALIZER_KEY", loop.secret)
    exec(blocks[number], {})  # noqa: S102  the guide's own code is what is under test
    assert capsys.readouterr().out.strip() in {"pasta", "ice"}
    assert loop.learn()


def test_every_setting_of_the_api_is_in_the_table() -> None:
    told: Any = shapes.service(Configuration(), None, Version.V2022)
    for name in (*told, *bodies.ServiceIn.__struct_encode_fields__, *AGGREGATIONS):
        assert name in GUIDE, name


def test_its_numbers_are_the_codes() -> None:
    assert f"up to {replaying.MOST:,} of the range's newest answers" in " ".join(GUIDE.split())
    assert f"more than {replaying.MOST_ACTIONS:,} actions" in GUIDE
    assert f"at least {evaluating.FEWEST} of them" in GUIDE
