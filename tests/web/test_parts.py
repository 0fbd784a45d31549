"""The small parts: merge patches, entity tags, times, the per-process holder, the metrics of several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.config import Settings
from optimizer.errors import PreconditionFailed
from optimizer.web.etags import Preconditions
from optimizer.web.holder import ServiceHolder
from optimizer.web.merge_patch import merged
from optimizer.web.schemas.fields import rfc3339

#: RFC 7386, appendix A: target, patch, result.
APPENDIX_A: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), APPENDIX_A)
def test_a_merge_patch_does_what_the_rfc_shows(target: Any, patch: Any, result: Any) -> None:
    assert merged(target, patch) == result


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-24T09:00:00Z", datetime(2026, 11, 24, 9, tzinfo=UTC)),
        ("2026-11-24t09:00:00z", datetime(2026, 11, 24, 9, tzinfo=UTC)),
        ("2026-11-24 10:00:00+01:00", datetime(2026, 11, 24, 9, tzinfo=UTC)),
        ("2026-11-24T09:00:00.123456789Z", datetime(2026, 11, 24, 9, 0, 0, 123456, UTC)),
        ("2026-11-24T09:00:00-00:00", datetime(2026, 11, 24, 9, tzinfo=UTC)),
    ],
)
def test_times_of_rfc_3339_are_read_as_utc(text: str, moment: datetime) -> None:
    assert rfc3339(text) == moment


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-24T09:00:00",
        "2026-11-24",
        "2026-11-24T09:00Z",
        "2026-11-24T09:00:00+0100",
        "2026-11-24T09:00:00+24:00",
        "2026-11-24T24:00:00Z",
        "2026-13-24T09:00:00Z",
        "20261124T090000Z",
        "2026-W48-2T09:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2200-01-01T00:00:00Z",
        "2026-11-24T09:00:00Z\n",
        "٢٠٢٦-11-24T09:00:00Z",
        1764000000,
        None,
    ],
)
def test_what_is_no_time_is_not_taken_for_one(text: object) -> None:
    assert rfc3339(text) is None


@given(text=st.one_of(st.text(), st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?([zZ]|[+-]\d\d:\d\d)")))
def test_no_text_breaks_the_reading_of_times(text: str) -> None:
    moment = rfc3339(text)
    assert moment is None or moment.tzinfo is UTC


@given(header=st.text(alphabet='"*,W/0123 x'), version=st.integers(0, 3))
def test_no_if_match_header_breaks_the_check_and_only_the_right_tag_passes(header: str, version: int) -> None:
    try:
        expected = Preconditions(header, None).expected(version)
    except PreconditionFailed:
        return
    assert expected == version
    assert version > 0
    assert f'"{version}"' in header or "*" in header


class Opened:
    """Stands in for the service."""

    closed = False

    def close(self) -> None:
        self.closed = True


def test_the_service_is_opened_on_first_use_and_anew_in_a_forked_process(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def open_one() -> Any:
        made.append(Opened())
        return made[-1]

    holder = ServiceHolder(Settings(), open_one)
    assert holder.opened is None
    assert made == []
    holder.warm()
    assert holder.get() is holder.opened is made[0]
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: -1)
        assert holder.opened is None
        assert holder.get() is made[1]
        holder.close()
    assert [one.closed for one in made] == [False, True]


_WORKER = """
import sys
from optimizer.config import Settings
from optimizer.web import create_app
app = create_app(Settings(database=sys.argv[1]))
client = app.test_client()
for _ in range(3):
    client.get("/healthz")
print(client.get("/metrics").get_data(as_text=True))
app.extensions["sendtide"].close()
"""


def test_a_scrape_of_one_process_answers_for_all(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    texts = [
        subprocess.run(
            [sys.executable, "-c", _WORKER, f"sqlite:///{tmp_path}/{i}.db"],
            env=environment,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for i in range(2)
    ]
    line = 'sendtide_requests_total{method="GET",route="/healthz",status="200"} '
    assert [line + str(count) in text for count, text in zip((3.0, 6.0), texts, strict=True)] == [True, True]
    assert "sendtide_store_up 1.0" in texts[1]
