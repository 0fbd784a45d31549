"""What every store keeps of Personalizer loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storage.errors import AlreadyExists, VersionConflict
from storage.port import Store, Writer
from storage.ranks import Rank, RankedAction, RankModel, RankReward, SlotChoice
from tests.storage.builders import WORKSPACE, at

ACTIONS = (RankedAction("a", ({"topic": {"sport": 0.5}, "tags": ["x", None, True]},)), RankedAction("b"))
SLOT = SlotChoice("", (0, 1), (0.25, 0.75), chosen=1, baseline=0)


def make_rank(event_id: str = "e1", **changes: Any) -> Rank:
    rank = Rank(WORKSPACE, event_id, at(0), b"hash", "Online", 3, ACTIONS, (SLOT,), ({"user": {"age": 33}},))
    return replace(rank, **changes)


def reward(event_id: str, value: float, hours: float = 0.0, slot_id: str = "") -> RankReward:
    return RankReward(WORKSPACE, event_id, slot_id, value, at(hours))


def add(store: Store, *ranks: Rank) -> None:
    def work(writer: Writer) -> None:
        for rank in ranks:
            writer.add_rank(rank)

    store.write(work)


def test_an_answer_comes_back_as_it_was_given(store: Store) -> None:
    slots = (SlotChoice("s1", (0,), (1.0,), 0, 0, ({"size": "big"},), shadow=1), replace(SLOT, slot_id="s2"))
    rank = make_rank(slots=slots, multi_slot=True, mode="Apprentice", active_at=at(0.5))
    add(store, rank)
    with store.read() as reader:
        stored = reader.rank(WORKSPACE, "e1")
        assert stored is not None
        assert stored == replace(rank, position=stored.position)
        assert stored.position == reader.rank_position(WORKSPACE) > 0
        assert reader.rank(WORKSPACE, "e2") is None
        assert reader.rank("w2", "e1") is None


def test_an_event_id_is_taken_once_in_a_workspace(store: Store) -> None:
    add(store, make_rank())
    with pytest.raises(AlreadyExists):
        add(store, make_rank(ranked_at=at(1)))
    add(store, make_rank(workspace_id="w2"))


def test_answers_stream_by_position_with_their_rewards_in_order_of_arrival(store: Store) -> None:
    add(store, *(make_rank(f"e{n}", ranked_at=at(n)) for n in range(600)), make_rank("foreign", workspace_id="w2"))
    for one in (reward("e0", 1.0), reward("e599", -1.5), reward("e0", 0.5, 1, "s"), reward("nobody", 1.0)):
        store.write(lambda writer, one=one: writer.add_rank_reward(one))  # type: ignore[misc]  # bound at once
    with store.read() as reader:
        rows = list(reader.ranks(WORKSPACE))
        assert [row.rank.event_id for row in rows] == [f"e{n}" for n in range(600)]
        assert rows[0].rewards == (reward("e0", 1.0), reward("e0", 0.5, 1, "s"))
        assert rows[599].rewards == (reward("e599", -1.5),)
        some = reader.ranks(WORKSPACE, after=rows[9].rank.position, since=at(5), until=at(12))
        assert [row.rank.event_id for row in some] == ["e10", "e11"]
        assert reader.rank_span(WORKSPACE) == (at(0), at(599))
        assert reader.rank_span("w3") is None
    add(store, make_rank("nobody", ranked_at=at(600)))
    with store.read() as reader:
        assert [row.rewards for row in reader.ranks(WORKSPACE, since=at(600))] == [(reward("nobody", 1.0),)]


def test_a_deferred_event_is_activated_once(store: Store) -> None:
    add(store, make_rank(), make_rank("shown", active_at=at(0)))
    assert store.write(lambda writer: writer.activate_rank(WORKSPACE, "e1", at(1)))
    assert not store.write(lambda writer: writer.activate_rank(WORKSPACE, "e1", at(2)))
    assert not store.write(lambda writer: writer.activate_rank(WORKSPACE, "shown", at(2)))
    assert not store.write(lambda writer: writer.activate_rank(WORKSPACE, "nobody", at(2)))
    assert not store.write(lambda writer: writer.activate_rank("w2", "e1", at(2)))
    with store.read() as reader:
        stored = reader.rank(WORKSPACE, "e1")
        assert stored is not None
        assert stored.active_at == at(1)


def test_positions_never_come_again_even_when_the_whole_log_goes(store: Store) -> None:
    add(store, make_rank(), make_rank("e2", ranked_at=at(2)))
    store.write(lambda writer: writer.add_rank_reward(reward("e1", 1.0)))
    store.write(lambda writer: writer.add_rank_reward(reward("e2", 1.0, 2)))
    with store.read() as reader:
        before = reader.rank_position(WORKSPACE)
    assert store.write(lambda writer: writer.forget_ranks(WORKSPACE, at(1))) == 1
    with store.read() as reader:
        assert [row.rank.event_id for row in reader.ranks(WORKSPACE)] == ["e2"]
    assert store.write(lambda writer: writer.forget_ranks("w2", None)) == 0
    assert store.write(lambda writer: writer.forget_ranks(WORKSPACE, None)) == 1
    with store.read() as reader:
        assert reader.rank_position(WORKSPACE) == before
    add(store, make_rank(), make_rank("e2"))
    with store.read() as reader:
        assert reader.rank_position(WORKSPACE) > before
        assert [row.rewards for row in reader.ranks(WORKSPACE)] == [(), ()]  # theirs went with them


def test_a_model_is_published_by_compare_and_set(store: Store) -> None:
    first = RankModel(WORKSPACE, 1, at(0), at(0), 0, b"")
    second = RankModel(WORKSPACE, 2, at(0), at(1), 17, b"\x00blob")
    store.write(lambda writer: writer.put_rank_model(first))
    for wrong in (first, replace(second, generation=3)):
        with pytest.raises(VersionConflict):
            store.write(lambda writer, wrong=wrong: writer.put_rank_model(wrong))  # type: ignore[misc]  # bound at once
    store.write(lambda writer: writer.put_rank_model(second))
    store.write(lambda writer: writer.put_rank_model(replace(first, workspace_id="w2")))
    with store.read() as reader:
        assert reader.rank_model(WORKSPACE) == second
        assert reader.rank_model("w3") is None
        assert [reader.rank_generation(w) for w in (WORKSPACE, "w2", "w3")] == [2, 1, 0]


def test_documents_are_kept_by_kind_and_id(store: Store) -> None:
    def work(writer: Writer) -> None:
        writer.put_loop_document(WORKSPACE, "evaluation", "b", b"1")
        writer.put_loop_document(WORKSPACE, "evaluation", "a", b"2")
        writer.put_loop_document(WORKSPACE, "evaluation", "b", b"3")
        writer.put_loop_document(WORKSPACE, "importance", "a", b"4")
        writer.put_loop_document("w2", "evaluation", "c", b"5")

    store.write(work)
    with store.read() as reader:
        assert reader.loop_documents(WORKSPACE, "evaluation") == (b"2", b"3")
        assert reader.loop_document(WORKSPACE, "importance", "a") == b"4"
        assert reader.loop_document(WORKSPACE, "loop", "a") is None
    assert store.write(lambda writer: writer.replace_loop_document(WORKSPACE, "evaluation", "a", b"6"))
    with store.read() as reader:
        assert reader.loop_documents(WORKSPACE, "evaluation") == (b"6", b"3")
    assert store.write(lambda writer: writer.drop_loop_document(WORKSPACE, "evaluation", "a"))
    assert not store.write(lambda writer: writer.replace_loop_document(WORKSPACE, "evaluation", "a", b"7"))
    with store.read() as reader:
        assert reader.loop_documents(WORKSPACE, "evaluation") == (b"3",)
    assert not store.write(lambda writer: writer.drop_loop_document(WORKSPACE, "evaluation", "a"))
