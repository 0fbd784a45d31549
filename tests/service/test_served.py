"""From a revision to the gated policy that its line started from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from optimizer.service.publish import new_policy
from optimizer.service.served import gated_of, line_of
from optimizer.service.wiring import Services
from storage.policies import Policy
from storage.port import Writer
from tests.service.conftest import START, WORKSPACE


def made(name: str, parent: str | None, gated: str | None = None) -> Policy:
    """A policy; one of a line that started from a gated one is a revision."""
    policy = new_policy(
        WORKSPACE,
        "spring",
        START,
        (),
        parent=None,
        exploration={},
        verdict={},
        run_id=None,
        gated_id=gated,
    )
    return replace(policy, policy_id=name, parent_id=parent)


def store(services: Services, policies: tuple[Policy, ...]) -> None:
    """Stores them."""

    def work(writer: Writer) -> None:
        for policy in policies:
            writer.add_policy(policy)

    services.store.write(work)


BEFORE, FIRST = made("before", None), made("first", "before")
SECOND, THIRD, FOURTH = (
    made(name, parent, "first") for name, parent in (("second", "first"), ("third", "second"), ("fourth", "third"))
)


@pytest.mark.parametrize(
    ("stored", "of", "gated"),
    [
        ((BEFORE, FIRST), FIRST, FIRST),
        ((FIRST, SECOND, THIRD), FOURTH, FIRST),
        ((FIRST,), FOURTH, FIRST),
        ((SECOND, THIRD), FOURTH, SECOND),
        ((THIRD,), FOURTH, THIRD),
        ((), FOURTH, FOURTH),
        ((BEFORE, FIRST), replace(SECOND, gated_id=None), FIRST),
    ],
    ids=["itself", "named", "named across a gap", "gone: the oldest left", "gone, and the next", "alone", "not named"],
)
def test_a_line_started_from_the_policy_that_it_names(
    services: Services, stored: tuple[Policy, ...], of: Policy, gated: Policy
) -> None:
    store(services, stored)
    with services.store.read() as reader:
        assert gated_of(reader, of) == gated


def test_a_line_is_told_newest_first_down_to_its_gated_policy(services: Services) -> None:
    store(services, (BEFORE, FIRST, SECOND, THIRD))
    with services.store.read() as reader:
        assert line_of(reader, FOURTH) == [FOURTH, THIRD, SECOND, FIRST]
