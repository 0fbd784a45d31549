"""What all tests share: the PostgreSQL server of this test process, which starts when a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgresql import Server, running


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    with running() as server:
        yield server
