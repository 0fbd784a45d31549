"""What every store keeps: webhook endpoints, and how far pushing to them is."""

from __future__ import annotations

from dataclasses import replace

from storage.endpoints import Delivery, Endpoint
from storage.port import Store, Writer
from tests.storage.builders import WORKSPACE, at

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
