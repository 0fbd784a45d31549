"""PostgreSQL under a real server: it dies, cuts connections, has none left, hangs, or fails what rivals do at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest

from simulations.pgserver import Blow
from storage.postgres.store import STATEMENT_SECONDS, WAIT_SECONDS
from tests.faults.service import Service, assert_refused, callers, serving, until
from tests.postgresql import Server, running

pytestmark = pytest.mark.drill

#: A trigger on the table of decisions, with what it does for people of this name.
_TRIGGER = """
CREATE FUNCTION stumble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {does} RETURN NEW; END $$;
CREATE TRIGGER stumble BEFORE INSERT ON decisions FOR EACH ROW
WHEN (NEW.recipient_id LIKE 'p-{whom}%') EXECUTE FUNCTION stumble();
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as started:
        yield started


@pytest.fixture
def url(server: Server) -> str:
    return server.create()


@pytest.fixture
def service(url: str, tmp_path: Path) -> Iterator[Service]:
    with serving(url, tmp_path) as served:
        assert served.decide("first").status == 201
        yield served


def run(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def stumbling(url: str, whom: str, does: str) -> None:
    """Makes the store of decisions about some people do something else first."""
    run(url, _TRIGGER.format(whom=whom, does=does))


def acknowledged_or_unknown(service: Service) -> None:
    """All that is stored was acknowledged, or asked for when the answer to a commit was lost: then it is whole too."""
    assert set(service.holds_whole_decisions()) >= set(service.acknowledged)


@pytest.mark.parametrize(
    "how",
    [
        "power",
        "fast",
        pytest.param("kill", marks=pytest.mark.long),
        pytest.param("immediate", marks=pytest.mark.long),
    ],
)
def test_a_server_that_goes_down_under_load_makes_503s_and_loses_nothing(
    service: Service, server: Server, how: Blow
) -> None:
    with callers(service, 8) as answers:
        until("there is load", lambda: len(answers) > 40)
        server.stop(how)
        service.refuses("down")
        service.refuses_much_at_once()
        server.start()
        before = len(answers)
        until("callers are served again", lambda: any(one.status == 201 for one in answers[before:]))
    assert {answer.status for answer in answers} == {201, 503}
    acknowledged_or_unknown(service)
    service.recovers()
    assert set(service.holds_whole_decisions()) == set(service.acknowledged)


def test_connections_that_are_cut_again_and_again_make_503s_at_most(service: Service, url: str) -> None:
    with callers(service, 8) as answers:
        for _ in range(20):
            seen = len(answers)
            until("there is load", lambda seen=seen: len(answers) > seen + 8)  # type: ignore[misc]
            run(
                url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
    assert {answer.status for answer in answers} <= {201, 503}
    acknowledged_or_unknown(service)
    service.recovers()
    assert set(service.holds_whole_decisions()) == set(service.acknowledged)


def test_a_table_that_somebody_locks_uses_up_the_pool_and_nobody_waits_long(service: Service, url: str) -> None:
    with psycopg.connect(url) as rival, callers(service, 48) as answers:
        rival.execute("LOCK TABLE decisions IN ACCESS EXCLUSIVE MODE")
        until("all of them were refused", lambda: sum(answer.status == 503 for answer in answers) >= 48)
        assert_refused(service.call("GET", "/v1/decisions"))
        rival.rollback()
        before = len(answers)
        until("callers are served again", lambda: any(one.status == 201 for one in answers[before:]))
    refused = [answer for answer in answers if answer.status == 503]
    # A connection that somebody else waits with, and one's own lock or that of the group before.
    assert max(answer.seconds for answer in refused) < 2 * WAIT_SECONDS + 5
    service.recovers()
    assert set(service.holds_whole_decisions()) == set(service.acknowledged)


def test_a_server_without_a_connection_left_makes_503s(service: Service, url: str) -> None:
    with ExitStack() as taken:
        mine = taken.enter_context(psycopg.connect(url, autocommit=True))

        def none_is_left() -> bool:
            """Whether the service got none of the connections that it was cut off from."""
            mine.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sendtide'")
            with suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(psycopg.connect(url))
            left = mine.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sendtide'").fetchone()
            return left == (0,)

        until("the service has no connection", none_is_left)
        service.refuses("full")
    service.recovers()
    assert set(service.holds_whole_decisions()) == set(service.acknowledged)


def test_what_the_server_fails_because_of_rivals_is_done_again_unnoticed(service: Service, url: str) -> None:
    """Every other transaction fails to serialize; that one fails as often as a write is tried happens in 1 of 50,000
    runs."""
    half = "(hashint8(pg_current_xact_id()::text::bigint) & 1) = 0"
    stumbling(url, "", f"IF {half} THEN RAISE 'rivals' USING ERRCODE = '40001'; END IF;")
    with callers(service, 4, most=5) as answers:
        pass
    assert [answer.status for answer in answers] == [201] * 20
    assert set(service.holds_whole_decisions()) == set(service.acknowledged)


def test_what_fails_for_ever_because_of_rivals_is_refused_and_leaves_nothing(service: Service, url: str) -> None:
    stumbling(url, "doomed", "RAISE 'rivals' USING ERRCODE = '40001';")
    assert service.decide("doomed").status == 503
    assert service.decide("other").status == 201
    assert set(service.holds_whole_decisions()) == {"first", "other"}


@pytest.mark.long
def test_a_statement_that_hangs_is_ended_and_those_who_wait_for_it_are_refused(service: Service, url: str) -> None:
    stumbling(url, "doomed", "PERFORM pg_sleep(3600);")
    with callers(service, 4) as answers:
        doomed = service.decide("doomed")
        before = len(answers)
        until("callers are served again", lambda: any(one.status == 201 for one in answers[before:]))
    assert doomed.status == 503
    assert STATEMENT_SECONDS - 1 < doomed.seconds < STATEMENT_SECONDS + 2 * WAIT_SECONDS
    assert max(answer.seconds for answer in answers if answer.status == 503) < STATEMENT_SECONDS + 2 * WAIT_SECONDS
    run(url, "DROP TRIGGER stumble ON decisions")
    service.recovers()
    assert set(service.holds_whole_decisions()) == set(service.acknowledged)
