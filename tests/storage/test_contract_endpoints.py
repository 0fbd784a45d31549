"""What every store keeps: webhook endpoints, how far pushing to them is, and how long the feed remembers."""

from __future__ import annotations

from dataclasses import replace

from storage.endpoints import Delivery, Endpoint
from storage.port import Store, Writer
from tests.storage.builders import WORKSPACE, at, make_policy

ENDPOINT = Endpoint(WORKSPACE, "b", "https://example.org/", ("whsec_x",), ("displaced", "promoted"), at(0), at(1))
DELIVERY = Delivery(WORKSPACE, "b", 7, 5, 2, at(1), at(2), at(3), 500, "é", None)


def put(store: Store, *records: Endpoint | Delivery) -> None:
    def work(writer: Writer) -> None:
        for one in records:
            if isinstance(one, Endpoint):
                writer.put_endpoint(one)
            else:
                writer.put_delivery(one)

    store.write(work)


def test_endpoints_come_back_by_id_and_only_those_of_the_workspace(store: Store) -> None:
    others = (replace(ENDPOINT, endpoint_id="a", enabled=False), replace(ENDPOINT, workspace_id="other"))
    put(store, ENDPOINT, *others)
    changed = replace(ENDPOINT, url="https://example.org/new", updated_at=at(2))
    put(store, changed)
    with store.read() as reader:
        assert reader.endpoints(WORKSPACE) == (others[0], changed)
        assert reader.endpoints("other") == (others[1],)
        assert reader.endpoints("none") == ()


def test_a_delivery_is_kept_with_its_endpoint_and_goes_with_it(store: Store) -> None:
    theirs = replace(DELIVERY, workspace_id="other", stopped="gone")
    put(store, ENDPOINT, DELIVERY, theirs)
    with store.read() as reader:
        assert reader.delivery(WORKSPACE, "b") == DELIVERY
        assert reader.delivery("other", "b") == theirs
        assert reader.delivery(WORKSPACE, "a") is None
    later = replace(DELIVERY, position=8, failures=0, failing_since=None)
    put(store, later)
    with store.read() as reader:
        assert reader.delivery(WORKSPACE, "b") == later
    assert store.write(lambda writer: writer.drop_endpoint(WORKSPACE, "b")) is True
    assert store.write(lambda writer: writer.drop_endpoint(WORKSPACE, "b")) is False
    with store.read() as reader:
        assert reader.delivery(WORKSPACE, "b") is None
        assert reader.delivery("other", "b") == theirs


def test_the_newest_change_is_that_of_the_workspace(store: Store) -> None:
    def changed(writer: Writer) -> None:
        for workspace_id in (WORKSPACE, "other", WORKSPACE):
            writer.add_change(workspace_id, "expired", at(0), decision_id="d")

    store.write(changed)
    with store.read() as reader:
        assert [reader.newest_change(one) for one in (WORKSPACE, "other", "none")] == [2, 1, 0]


def test_changes_go_by_their_age_in_bounded_steps_and_their_positions_never_come_again(store: Store) -> None:
    def changed(writer: Writer) -> None:
        for hours in (0, 1, 2, 3, 9, 4):
            writer.add_change(WORKSPACE, "revoked", at(hours), decision_id=f"dec_{hours}", detail="event:clicked:e")
        writer.add_change("other", "revoked", at(0), decision_id="dec_theirs")

    def prune(hours: float, told: int | None = None) -> int:
        return store.write(lambda writer: writer.prune_changes(WORKSPACE, at(hours), told=told, limit=2))

    def left(workspace_id: str = WORKSPACE) -> list[str | None]:
        with store.read() as reader:
            return [change.decision_id for change in reader.changes(workspace_id, after=0, limit=9)]

    store.write(changed)
    assert prune(0) == 0
    assert [prune(8, told=3) for _ in range(3)] == [2, 1, 0]
    assert left() == ["dec_3", "dec_9", "dec_4"], "somebody has yet to be told"
    assert [prune(8) for _ in range(2)] == [1, 0]
    assert left() == ["dec_9", "dec_4"], "what lies behind a young one waits for it"
    assert [prune(10) for _ in range(2)] == [2, 0]
    assert (left(), left("other")) == ([], ["dec_theirs"])
    with store.read() as reader:
        assert [reader.newest_change(one) for one in (WORKSPACE, "other")] == [6, 1]
    assert store.write(lambda writer: writer.add_change(WORKSPACE, "expired", at(11), decision_id="dec_11")) == 7
    with store.read() as reader:
        assert [change.position for change in reader.changes(WORKSPACE, after=2, limit=9)] == [7]


def test_what_became_of_a_policy_stays_as_long_as_the_policy(store: Store) -> None:
    def changed(writer: Writer) -> None:
        writer.add_policy(make_policy(policy_id="pol_stored"))
        writer.add_policy(make_policy(workspace_id="other", policy_id="pol_gone"))
        for policy_id in ("pol_stored", "pol_gone", "cold"):
            writer.add_change(WORKSPACE, "promoted", at(0), campaign_id="spring", policy_id=policy_id)
        writer.add_change(WORKSPACE, "rolled_back", at(0), policy_id="cold", replaced_id="pol_stored")
        writer.add_change(WORKSPACE, "expired", at(0), decision_id="dec")

    store.write(changed)
    assert store.write(lambda writer: writer.prune_changes(WORKSPACE, at(1), told=None, limit=9)) == 3
    with store.read() as reader:
        assert [one.policy_id for one in reader.changes(WORKSPACE, after=0, limit=9)] == ["pol_stored", "cold"]
        assert [one.policy_id for one in reader.policy_changes(WORKSPACE, limit=9)] == ["cold", "pol_stored"]
