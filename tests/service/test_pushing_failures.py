"""Webhooks through failures, restarts and rival schedulers: tried again, stopped, started again; nothing is lost."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from optimizer.errors import Invalid
from optimizer.pusher import PUSH_THREADS, PUSH_THREADS_EACH, Pusher
from optimizer.service import endpoints, pushing, setup
from optimizer.service.endpoints import EndpointInput
from optimizer.service.wiring import Services
from storage.errors import StoreUnavailable
from tests.cli.test_serve import until
from tests.service.conftest import START, WORKSPACE, FakeClock
from tests.service.receiving import ALL, Receiver, change, opened, push, put, receiver, services, state

__all__ = ["receiver", "services"]  # fixtures


def test_a_change_that_fails_is_tried_again_with_the_same_id_later_and_later(
    services: Services, receiver: Receiver, clock: FakeClock
) -> None:
    put(services, receiver.url)
    change(services, "1", "2")
    receiver.answers = [500, 302, 204]
    assert push(services) == 0
    told = state(services).delivery
    assert (told.failures, told.last_status, told.next_at) == (1, 500, START + timedelta(seconds=5))
    assert state(services).behind == 2
    clock.forward(seconds=4)
    assert push(services) == 0
    assert len(receiver.got) == 1
    clock.forward(seconds=1)
    assert push(services) == 0
    assert state(services).delivery.next_at == services.clock() + timedelta(seconds=300)
    assert state(services).delivery.failing_since == START
    clock.forward(seconds=300)
    assert push(services) == 2
    assert receiver.details() == ["1", "1", "1", "2"]
    assert len(set(receiver.ids())) == 2
    told = state(services).delivery
    assert (told.failures, told.failing_since, told.next_at, told.last_status) == (0, None, None, 204)
    stamps = [int(headers["webhook-timestamp"]) for headers, _ in receiver.got]
    assert stamps == [int(START.timestamp()) + later for later in (0, 5, 305, 305)]


def test_a_change_that_failed_while_the_clock_was_ahead_is_tried_again_once_it_is_right(
    services: Services, receiver: Receiver, clock: FakeClock
) -> None:
    put(services, receiver.url)
    change(services, "1")
    receiver.answers = [500, 204]
    now = clock.now
    clock.forward(days=1200)
    assert push(services) == 0
    clock.now = now
    assert push(services) == 1
    assert receiver.details() == ["1", "1"]


def test_a_restart_in_between_loses_nothing_and_keeps_the_time_of_the_next_attempt(
    services: Services, receiver: Receiver, clock: FakeClock, tmp_path: Path
) -> None:
    put(services, receiver.url)
    change(services, "1", "2", "3")
    receiver.answers = [204, 503]
    assert push(services) == 1
    services.close()
    again = opened(tmp_path, clock)
    try:
        assert push(again) == 0
        clock.forward(seconds=5)
        assert push(again) == 2
    finally:
        again.close()
    assert receiver.details() == ["1", "2", "2", "3"]


def test_one_that_was_sent_but_not_noted_is_sent_again_under_its_id(
    services: Services, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(services, receiver.url)
    change(services, "1")

    def dies(*_: Any) -> None:
        raise StoreUnavailable("killed")

    with monkeypatch.context() as broken:
        broken.setattr(pushing, "_store", dies)
        with pytest.raises(StoreUnavailable):
            push(services)
    assert push(services) == 1
    assert receiver.details() == ["1", "1"]
    assert len(set(receiver.ids())) == 1


def test_a_receiver_that_is_gone_gets_nothing_more_until_it_is_put_again(
    services: Services, receiver: Receiver, clock: FakeClock
) -> None:
    put(services, receiver.url)
    change(services, "1")
    receiver.answers = [410]
    push(services)
    assert "410" in (state(services).delivery.stopped or "")
    change(services, "2")
    clock.forward(days=9)
    assert push(services) == 0
    assert len(receiver.got) == 1
    put(services, receiver.url)
    assert push(services) == 2
    assert receiver.details() == ["1", "1", "2"]


def test_after_days_of_failures_it_is_stopped_and_nothing_was_skipped(
    services: Services, receiver: Receiver, clock: FakeClock
) -> None:
    put(services, receiver.url)
    change(services, "1", "2")
    receiver.answers = [500] * 10
    for _ in range(10):
        assert state(services).delivery.stopped is None
        push(services)
        clock.now = state(services).delivery.next_at or clock.now
    assert "10 attempts failed since" in (state(services).delivery.stopped or "")
    assert clock.now - START > timedelta(days=3)
    put(services, receiver.url)
    assert push(services) == 2
    assert receiver.details()[-2:] == ["1", "2"]


def test_a_receiver_may_ask_for_more_time_but_not_for_ever(services: Services, receiver: Receiver) -> None:
    put(services, receiver.url)
    change(services, "1")
    for asked, waited in (("90", 90), ("1", 300), ("99999999", 86_400)):
        receiver.answers, receiver.headers = [429], {"Retry-After": asked}
        with services.store.read() as reader:
            (endpoint,) = reader.endpoints(WORKSPACE)
        pushing.push(services, endpoint, "me")
        assert state(services).delivery.next_at == services.clock() + timedelta(seconds=waited)


def test_one_that_is_off_gets_what_it_missed_when_it_is_on_again(services: Services, receiver: Receiver) -> None:
    put(services, receiver.url)
    put(services, receiver.url, enabled=False)
    change(services, "1")
    assert push(services) == 0
    put(services, receiver.url)
    assert push(services) == 1


def test_two_schedulers_never_send_the_same_at_once(services: Services, receiver: Receiver, clock: FakeClock) -> None:
    put(services, receiver.url)
    change(services, "1", "2")
    others: list[int] = []
    receiver.before_answer = lambda: others.append(push(services, "other"))
    assert push(services) == 2
    assert others == [0, 0]
    assert receiver.details() == ["1", "2"]
    # A holder that was killed holds it up no longer than its lease.
    change(services, "3")
    now = services.clock()
    lease = f"webhook:{WORKSPACE}:e"
    services.store.write(lambda writer: writer.take_lease(lease, "killed", now, now + pushing.LEASE))
    assert push(services) == 0
    clock.forward(seconds=pushing.LEASE.total_seconds())
    assert push(services) == 1


def test_a_failure_from_before_it_was_put_anew_delays_nothing(services: Services, receiver: Receiver) -> None:
    put(services, receiver.url)
    change(services, "1")
    receiver.answers = [500]

    def put_anew() -> None:
        receiver.before_answer = lambda: None
        services.clock.forward(seconds=1)  # type: ignore[attr-defined]  # a test's clock
        put(services, receiver.url)

    receiver.before_answer = put_anew
    push(services)
    assert state(services).delivery.failures == 0
    assert push(services) == 1


def test_one_that_is_deleted_meanwhile_stays_deleted(services: Services, receiver: Receiver) -> None:
    put(services, receiver.url)
    change(services, "1", "2")
    receiver.before_answer = lambda: services.store.write(lambda writer: writer.drop_endpoint(WORKSPACE, "e"))
    push(services)
    assert receiver.details() == ["1"]
    with services.store.read() as reader:
        assert reader.endpoints(WORKSPACE) == ()
        assert reader.delivery(WORKSPACE, "e") is None


def test_an_address_that_became_private_is_not_called(services: Services, receiver: Receiver) -> None:
    put(services, receiver.url)
    change(services, "1")
    strict = replace(services, settings=replace(services.settings, private_webhooks=False))
    assert push(strict) == 0
    assert receiver.got == []
    assert state(services).delivery.last_error == "127.0.0.1 is no public address"


@pytest.mark.parametrize("secret", ["", "x", "whsec_", "whsec_eA==", "whsec_***", "whsec_" + "A" * 100])
def test_a_secret_that_is_none_is_refused_and_not_repeated(services: Services, receiver: Receiver, secret: str) -> None:
    with pytest.raises(Invalid, match="whsec_ followed by 24 to 64 bytes") as caught:
        put(services, receiver.url, secrets=(secret,))
    assert secret in ("", "x", "whsec_") or secret not in str(caught.value)


def test_the_schedulers_pusher_holds_up_nobody_for_a_slow_receiver(services: Services, receiver: Receiver) -> None:
    put(services, receiver.url)
    endpoints.put_endpoint(services, WORKSPACE, "f", EndpointInput(receiver.url + "&to=f", ALL))
    change(services, "1")
    release, slow = threading.Event(), threading.Lock()

    def wait_once() -> None:
        if slow.acquire(blocking=False):
            release.wait(30)

    receiver.before_answer = wait_once
    pusher = Pusher(services, "me")
    pusher.look(WORKSPACE)
    until("the other one's", lambda: len(receiver.got) == 2 and len(pusher.busy) == 1)
    pusher.look(WORKSPACE)
    (slow_one,) = pusher.busy.values()
    release.set()
    slow_one.join(30)
    assert not pusher.busy
    assert len(receiver.got) == 2
    with services.store.read() as reader:
        assert [one.behind for one in endpoints.all_states(reader, WORKSPACE)] == [0, 0]


def waiting_for(services: Services, receiver: Receiver, workspace: str, count: int, changes: int) -> None:
    """So many endpoints of a workspace that each have so many changes waiting."""
    setup.ensure_workspace(services, workspace)
    for number in range(count):
        told = EndpointInput(f"{receiver.url}&to={workspace}", ALL)
        endpoints.put_endpoint(services, workspace, f"{workspace}-{number}", told)
    change(services, *(f"{workspace} {number}" for number in range(changes)), workspace=workspace)


def test_slow_receivers_of_one_workspace_never_hold_up_those_of_another(services: Services, receiver: Receiver) -> None:
    waiting_for(services, receiver, "slow", PUSH_THREADS + 5, 3)
    waiting_for(services, receiver, "other", 1, 2)
    release = threading.Event()
    receiver.before_answer = lambda: receiver.details()[-1].startswith("slow") and release.wait(30)
    pusher = Pusher(services, "me")
    pusher.look("slow")
    until("the slow ones have all that they may", lambda: len(receiver.got) == PUSH_THREADS_EACH)
    pusher.look("other")
    until("the other one has all of its own", lambda: receiver.details()[PUSH_THREADS_EACH:] == ["other 0", "other 1"])
    release.set()
    until("all have all", lambda: all_told(services, pusher, "slow"))


def test_slow_receivers_of_many_workspaces_take_turns_with_others(
    services: Services, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimizer.pusher.PUSH_TURN", 0.1)
    for name in ("slow-1", "slow-2"):
        waiting_for(services, receiver, name, PUSH_THREADS_EACH, 30)
    waiting_for(services, receiver, "other", 1, 1)
    receiver.before_answer = lambda: time.sleep(0.1)
    pusher = Pusher(services, "me")
    for name in ("slow-1", "slow-2"):
        pusher.look(name)
    assert len(pusher.busy) == PUSH_THREADS

    def told() -> bool:
        for name in ("slow-1", "slow-2", "other"):
            pusher.look(name)
        return "other 0" in receiver.details()

    until("the other one's turn", told)
    assert len(receiver.got) < 10 * PUSH_THREADS  # of 480
    pusher.stopping = True
    for thread in list(pusher.busy.values()):
        thread.join(30)


def all_told(services: Services, pusher: Pusher, workspace: str) -> bool:
    """Looks once more; whether every endpoint of the workspace has seen every change."""
    pusher.look(workspace)
    with services.store.read() as reader:
        return not any(one.behind for one in endpoints.all_states(reader, workspace))
