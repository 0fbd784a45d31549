"""Hot reload: a new policy is verified before it replaces the old one; on any fault the old one stays and says so."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from optimizer.errors import Conflict
from optimizer.service.ids import COLD_POLICY
from optimizer.service.learning import promote, rollback
from optimizer.service.publish import new_policy, publish, rolled_back
from optimizer.service.retrain import retrain
from optimizer.service.serving import PolicyServer
from optimizer.service.wiring import Services, open_services
from storage.errors import VersionConflict
from storage.policies import Artifact, Component, Pointer
from tests.service.asking import ask
from tests.service.conftest import WORKSPACE, FakeClock
from tests.service.test_retrain import audience, shop

__all__ = ["shop"]


@pytest.fixture
def served(shop: Services, clock: FakeClock) -> tuple[Services, Pointer]:
    """A service that serves a learned policy, and its pointer."""
    audience(shop, clock, 600, seed=21)
    retrain(shop, WORKSPACE)
    shop.policies.refresh_now()
    return shop, pointer_of(shop)


def pointer_of(services: Services) -> Pointer:
    with services.store.read() as reader:
        pointer = reader.pointer(WORKSPACE, "spring")
    assert pointer is not None
    return pointer


def publish_artifact(services: Services, pointer: Pointer, artifact: Artifact) -> str:
    parts = (Component(1.0, artifact.artifact_id),)
    policy = new_policy(
        WORKSPACE, "spring", services.clock(), parts, parent=pointer, exploration={}, verdict={}, run_id=None
    )
    return publish(services, [artifact], policy, pointer, services.clock()).policy_id


def stored_artifact(services: Services, pointer: Pointer) -> Artifact:
    with services.store.read() as reader:
        policy = reader.policy(WORKSPACE, pointer.policy_id)
        assert policy is not None
        artifact = reader.artifact(WORKSPACE, policy.mixture[0].artifact_id or "")
    assert artifact is not None
    return artifact


def test_a_published_policy_is_served_after_the_next_look(served: tuple[Services, Pointer]) -> None:
    services, pointer = served
    again = publish_artifact(services, pointer, stored_artifact(services, pointer))
    assert services.policies.current(WORKSPACE, "spring").policy_id == pointer.policy_id
    services.policies.refresh_now()
    assert services.policies.current(WORKSPACE, "spring").policy_id == again
    assert [(s.policy_id, s.generation, s.fault) for s in services.policies.status()] == [(again, 2, None)]


def test_what_a_replaced_model_held_is_given_back_once(
    served: tuple[Services, Pointer], monkeypatch: pytest.MonkeyPatch
) -> None:
    services, pointer = served
    given = []
    monkeypatch.setattr("optimizer.service.serving.give_back", lambda: given.append(1))
    services.policies.refresh_now()
    assert not given, "nothing has moved"
    publish_artifact(services, pointer, stored_artifact(services, pointer))
    services.policies.refresh_now()
    services.policies.refresh_now()
    assert len(given) == 1


def test_a_policy_is_ready_for_its_campaign_before_it_is_served(
    served: tuple[Services, Pointer], monkeypatch: pytest.MonkeyPatch
) -> None:
    services, _ = served

    def late(*_: object, **__: object) -> None:
        raise AssertionError("a decision had to wait for what could have been done before")

    monkeypatch.setattr("optimizer.model.inference.prepare", late)
    assert ask(services).policy_id == services.policies.current(WORKSPACE, "spring").policy_id


@pytest.mark.parametrize("fault", ["corrupt", "other spec", "missing", "no model"])
def test_a_policy_that_fails_its_checks_never_replaces_the_old_one(
    served: tuple[Services, Pointer], fault: str
) -> None:
    services, pointer = served
    good = stored_artifact(services, pointer)
    if fault == "corrupt":
        blob = bytearray(good.blob)
        blob[len(blob) // 2] ^= 1
        bad = replace(good, artifact_id="art_bad", blob=bytes(blob))
    elif fault == "other spec":
        bad = replace(good, artifact_id="art_bad", feature_hash="0" * 16)
    else:
        bad = replace(good, artifact_id="art_bad")
    broken = publish_artifact(services, pointer, bad)
    if fault == "missing":
        parts = (Component(1.0, "art_nowhere"),)
        policy = new_policy(
            WORKSPACE, "spring", services.clock(), parts, parent=pointer, exploration={}, verdict={}, run_id=None
        )
        broken = publish(services, [], policy, pointer_of(services), services.clock()).policy_id
    if fault == "no model":
        policy = new_policy(
            WORKSPACE, "spring", services.clock(), (), parent=pointer, exploration={}, verdict={}, run_id=None
        )
        broken = publish(services, [], policy, pointer_of(services), services.clock()).policy_id
    services.policies.refresh_now()
    assert services.policies.current(WORKSPACE, "spring").policy_id == pointer.policy_id
    status = services.policies.status()[0]
    assert status.policy_id == pointer.policy_id
    assert status.fault is not None
    assert broken in status.fault


@pytest.mark.parametrize("by", ["a guard", "a person"])
def test_a_rollback_passes_over_what_cannot_be_loaded(served: tuple[Services, Pointer], by: str) -> None:
    """Else workers would keep the very policy that is taken back."""
    services, first = served
    good = stored_artifact(services, first)
    broken = publish_artifact(services, first, replace(good, artifact_id="art_bad", blob=b"nothing"))
    later = publish_artifact(services, pointer_of(services), good)
    with pytest.raises(Conflict, match=f"{broken}.* can't be put into service: artifact of 7 bytes"):
        promote(services, WORKSPACE, broken)
    assert pointer_of(services).policy_id == later
    if by == "a guard":
        told = rolled_back(services, pointer_of(services), broken, services.clock(), "too many leave")
        assert told[0] == "rolled_back"
    else:
        rollback(services, WORKSPACE, "spring", "anna")
    assert pointer_of(services).policy_id == first.policy_id
    with services.store.read() as reader:
        change = reader.changes(WORKSPACE, after=0, limit=9)[-1]
    why = {"a guard": "too many leave", "a person": "anna"}[by]
    assert change.detail.startswith(f"{why}; {broken} can't be loaded (artifact of 7 bytes")


def test_a_rollback_ends_at_the_cold_start_where_nothing_can_be_loaded(served: tuple[Services, Pointer]) -> None:
    services, first = served
    bad = replace(stored_artifact(services, first), artifact_id="art_bad", blob=b"nothing")
    publish_artifact(services, Pointer(WORKSPACE, "spring", COLD_POLICY, first.generation, first.moved_at), bad)
    publish_artifact(services, pointer_of(services), stored_artifact(services, first))
    assert rollback(services, WORKSPACE, "spring") is None


def test_later_policies_are_picked_up_whatever_one_look_failed_of(
    served: tuple[Services, Pointer], monkeypatch: pytest.MonkeyPatch
) -> None:
    services, pointer = served
    server = PolicyServer(services.store, reload_seconds=0.01)
    refresh, failed = server.refresh_now, threading.Event()

    def once() -> None:
        if not failed.is_set():
            failed.set()
            raise IndexError("tuple index out of range")
        refresh()

    server.start()
    monkeypatch.setattr(server, "refresh_now", once)
    assert failed.wait(5)
    later = publish_artifact(services, pointer, stored_artifact(services, pointer))
    deadline = time.monotonic() + 5
    while server.current(WORKSPACE, "spring").policy_id != later and time.monotonic() < deadline:
        time.sleep(0.01)
    server.stop()
    assert server.current(WORKSPACE, "spring").policy_id == later


def test_a_fault_is_forgotten_once_a_good_policy_is_published(served: tuple[Services, Pointer]) -> None:
    services, pointer = served
    good = stored_artifact(services, pointer)
    publish_artifact(services, pointer, replace(good, artifact_id="art_bad", blob=b"nothing"))
    services.policies.refresh_now()
    mended = publish_artifact(services, pointer_of(services), good)
    services.policies.refresh_now()
    assert [(s.policy_id, s.fault) for s in services.policies.status()] == [(mended, None)]


def test_two_publishers_at_once_publish_one(served: tuple[Services, Pointer]) -> None:
    services, pointer = served
    artifact = stored_artifact(services, pointer)
    first = publish_artifact(services, pointer, artifact)
    with pytest.raises(VersionConflict):
        publish_artifact(services, pointer, artifact)
    assert pointer_of(services).policy_id == first


def test_a_new_process_serves_what_is_published(served: tuple[Services, Pointer]) -> None:
    services, pointer = served
    other = open_services(services.settings, services.clock, watch=False)
    assert other.policies.current(WORKSPACE, "spring").policy_id == pointer.policy_id != COLD_POLICY
    other.close()
