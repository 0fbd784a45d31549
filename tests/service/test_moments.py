"""Times from outside become UTC or a ``ValueError``, at both ends of the calendar too; so do those of every reader."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import orjson
import pytest

from optimizer.errors import Invalid
from optimizer.model.reading import parse_timestamp
from optimizer.service import cells, moments
from optimizer.service.mapping import read_mapping
from optimizer.service.webhooks import parsing
from optimizer.web.compat import segment_messages
from optimizer.web.schemas.fields import rfc3339

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
EAST, WEST = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))
#: Times that are none in UTC: the offset leads out of the calendar.
OUTSIDE = ["0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-12:00"]


@pytest.mark.parametrize(
    ("told", "zone", "at"),
    [
        ("2026-03-02T10:00:00+01:00", None, NOW),
        ("2026-03-02T10:00:00", BERLIN, NOW),
        (datetime(2026, 3, 2, 9), UTC, NOW),  # noqa: DTZ001  without an offset it is
        (NOW.astimezone(EAST), BERLIN, NOW),
        ("2026-03-29T02:30:00", BERLIN, datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
        ("2026-10-25T02:30:00", BERLIN, datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", None, datetime.min.replace(tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", None, datetime.max.replace(tzinfo=UTC)),
    ],
)
def test_a_time_is_taken_to_utc(told: str | datetime, zone: tzinfo | None, at: datetime) -> None:
    found = moments.as_utc(told, zone)
    assert (found, found.tzinfo) == (at, UTC)


@pytest.mark.parametrize("told", [*OUTSIDE, datetime.min.replace(tzinfo=EAST), datetime.max.replace(tzinfo=WEST)])
def test_a_time_outside_the_calendar_is_a_value_error(told: str | datetime) -> None:
    with pytest.raises(ValueError, match="1 to 9999"):
        moments.as_utc(told)


def test_so_is_one_whose_zone_leads_out_of_it() -> None:
    with pytest.raises(ValueError, match="1 to 9999"):
        moments.as_utc("0001-01-01T00:00:00", BERLIN)


@pytest.mark.parametrize("told", ["soon", "", "2026-02-30T00:00:00Z", "2026-03-02T10:00:00", None, 7, b"2026", [NOW]])
def test_what_is_no_time_is_a_value_error(told: object) -> None:
    with pytest.raises(ValueError, match=r"no time|offset|isoformat|day|month"):
        moments.as_utc(told)


@pytest.mark.parametrize(
    "told", [*OUTSIDE, "1969-12-31T23:59:59Z", "2200-01-01T00:00:00Z", "1970-01-01T00:00:00+01:00"]
)
@pytest.mark.parametrize(
    "read",
    [
        lambda told: cells.instant("at", told),
        lambda told: cells.instant("at", datetime.fromisoformat(told)),
        lambda told: segment_messages.moment({"at": told}, "at"),
    ],
    ids=["a cell", "a typed cell", "a Segment message"],
)
def test_readers_name_the_field(read: Callable[[str], object], told: str) -> None:
    with pytest.raises(Invalid) as refused:
        read(told)
    assert list(refused.value.errors) == ["at"]
    assert told[:10] in refused.value.detail
    assert rfc3339(told) is None


@pytest.mark.parametrize("told", OUTSIDE)
def test_vendors_and_mappings_name_it_too(told: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(Invalid) as refused:
        parsing.iso_time(told, "at", NOW)
    assert (refused.value.code, list(refused.value.errors)) == ("bad_time", ["at"])

    file = tmp_path_factory.mktemp("mapping") / "mapping.json"
    file.write_bytes(orjson.dumps({"formats": {"at": {"time": "%Y-%m-%dT%H:%M:%S%z"}}}))
    ((line, row),) = read_mapping(file).rows(iter([(1, {"at": told})]))
    assert line == 1
    assert isinstance(row, Invalid)
    assert list(row.errors) == ["at"]


@pytest.mark.parametrize("told", OUTSIDE)
def test_an_attribute_may_be_any_time(told: str) -> None:
    """It is told to the model as a number, which has no edge."""
    assert parse_timestamp(told) is not None
