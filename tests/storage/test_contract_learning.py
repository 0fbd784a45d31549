"""What every store keeps: artifacts, policies, pointers, runs, leases, the change feed, imports."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal

import pytest

from storage.errors import AlreadyExists, VersionConflict
from storage.policies import Component, Pointer, Policy, RunStatus, TrainingRun
from storage.port import Store, Writer
from tests.storage.builders import WORKSPACE, at, make_artifact, make_decision, make_policy, make_run
from tests.storage.conftest import StoreFactory


def pointer(generation: int, policy_id: str = "pol_1", campaign_id: str = "spring") -> Pointer:
    return Pointer(WORKSPACE, campaign_id, policy_id, generation, at(generation))


def move(to: Pointer) -> Callable[[Writer], None]:
    return lambda writer: writer.move_pointer(to)


def test_an_artifact_is_stored_once_byte_for_byte(store: Store) -> None:
    artifact = make_artifact(blob=bytes(range(256)) * 4096)
    store.write(lambda writer: writer.put_artifact(artifact))
    store.write(lambda writer: writer.put_artifact(make_artifact(blob=b"other")))
    with store.read() as reader:
        assert reader.artifact(WORKSPACE, "art_1") == artifact
        assert reader.artifact("w2", "art_1") is None


def test_policies_come_back_and_only_their_status_changes(store: Store) -> None:
    policy = make_policy(parent_id="pol_0", run_id="run_1", revision=True)
    store.write(lambda writer: writer.add_policy(policy))
    with pytest.raises(AlreadyExists):
        store.write(lambda writer: writer.add_policy(make_policy(campaign_id="summer")))
    store.write(lambda writer: writer.set_policy_status(WORKSPACE, "pol_1", "live"))
    with pytest.raises(VersionConflict):
        store.write(lambda writer: writer.set_policy_status("w2", "pol_1", "live"))
    with store.read() as reader:
        assert reader.policy(WORKSPACE, "pol_1") == replace(policy, status="live")
        assert reader.policy("w2", "pol_1") is None


def test_policies_are_paged_newest_first(store: Store) -> None:
    policies = [
        make_policy(policy_id=f"pol_{n}", created_at=at(n // 3), campaign_id=("spring", "summer")[n % 2])
        for n in range(11)
    ]

    def work(writer: Writer) -> None:
        for policy in policies:
            writer.add_policy(policy)

    store.write(work)
    for campaign_id in (None, "summer"):
        listed: list[Policy] = []
        cursor = None
        with store.read() as reader:
            while True:
                page = reader.policies(WORKSPACE, limit=4, cursor=cursor, campaign_id=campaign_id)
                listed += page.items
                cursor = page.cursor
                if cursor is None:
                    break
        assert listed == [p for p in reversed(policies) if campaign_id in (None, p.campaign_id)]


def test_what_the_gate_judged_is_paged_however_many_revisions_lie_between(store: Store) -> None:
    def policy(n: int) -> Policy:
        judged = n in (3, 4, 700, 1_200)
        return make_policy(
            policy_id=f"pol_{n}",
            created_at=at(n // 3),
            campaign_id="summer" if n == 700 else "spring",
            revision=not judged,
            status="live" if n == 1_150 else "retired",
        )

    def work(writer: Writer) -> None:
        for n in range(1_300):
            writer.add_policy(policy(n))

    store.write(work)
    for campaign_id, wanted in ((None, (1_200, 1_150, 700, 4, 3)), ("spring", (1_200, 1_150, 4, 3))):
        for limit in (1, 2, 4, 5):
            listed, cursor = list[Policy](), None
            with store.read() as reader:
                while True:
                    page = reader.policies(
                        WORKSPACE, limit=limit, cursor=cursor, campaign_id=campaign_id, revisions=False
                    )
                    listed += page.items
                    cursor = page.cursor
                    if cursor is None:
                        break
                    assert len(page.items) == limit
            assert listed == [policy(n) for n in wanted]


def test_a_pointer_moves_by_compare_and_set(store: Store) -> None:
    for wrong in (0, 2):
        with pytest.raises(VersionConflict):
            store.write(move(pointer(wrong)))
    store.write(lambda writer: writer.move_pointer(pointer(1)))
    for wrong in (0, 1, 3):
        with pytest.raises(VersionConflict, match="2 comes next"):
            store.write(move(pointer(wrong, "pol_x")))
    store.write(lambda writer: writer.move_pointer(pointer(2, "pol_2")))
    store.write(lambda writer: writer.move_pointer(pointer(1, "pol_3", "autumn")))
    with store.read() as reader:
        assert reader.pointer(WORKSPACE, "spring") == pointer(2, "pol_2")
        assert reader.pointer(WORKSPACE, "summer") is None
        assert reader.pointers() == (pointer(1, "pol_3", "autumn"), pointer(2, "pol_2"))


def test_of_racing_pointer_moves_one_wins(store: Store) -> None:
    def attempt(number: int) -> bool:
        try:
            store.write(move(pointer(1, f"pol_{number}")))
        except VersionConflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(attempt, range(32)))
    assert sum(won) == 1
    with store.read() as reader:
        assert reader.pointer(WORKSPACE, "spring") == pointer(1, f"pol_{won.index(True)}")


def test_a_failed_publish_leaves_neither_artifact_nor_policy(store: Store) -> None:
    store.write(lambda writer: writer.move_pointer(pointer(1)))

    def publish(writer: Writer) -> None:
        writer.put_artifact(make_artifact())
        writer.add_policy(make_policy())
        writer.move_pointer(pointer(1))

    with pytest.raises(VersionConflict):
        store.write(publish)
    with store.read() as reader:
        assert reader.artifact(WORKSPACE, "art_1") is None
        assert reader.policy(WORKSPACE, "pol_1") is None


def test_refreshes_go_before_retrains_and_never_the_newest_run_nor_one_that_is_not_over(store: Store) -> None:
    def run(n: int, kind: Literal["retrain", "refresh"], status: RunStatus = "rejected") -> TrainingRun:
        return make_run(run_id=f"run_{n}", created_at=at(n), kind=kind, status=status)

    runs = [
        run(0, "retrain"),
        run(1, "refresh"),
        run(2, "retrain", "failed"),
        run(3, "refresh"),
        run(4, "refresh", "running"),
        run(5, "retrain"),
        run(6, "refresh", "failed"),
        run(7, "refresh"),
    ]

    def work(writer: Writer) -> None:
        for one in runs:
            writer.put_training_run(one)
        writer.put_training_run(replace(runs[1], workspace_id="w2"))
        writer.put_training_run(replace(runs[7], workspace_id="w2"))

    store.write(work)

    def prune(limit: int) -> int:
        return store.write(lambda w: w.prune_runs(WORKSPACE, at(1), refreshes_before=at(60), limit=limit))

    assert [prune(2) for _ in range(4)] == [2, 1, 1, 0]
    with store.read() as reader:
        assert [one.run_id for one in reader.training_runs(WORKSPACE, limit=9).items] == [
            "run_7",
            "run_5",
            "run_4",
            "run_2",
        ]
        assert len(reader.training_runs("w2", limit=9).items) == 2


def _line() -> list[Policy]:
    """A gated policy and the revisions that followed, one an hour; then the next gated one and its revision."""
    named = [
        ("gated", "art_0"),
        *(
            ("idle", "art_1"),
            ("repriced", "art_1"),
            ("used", "art_2"),
            ("idle too", "art_3"),
            ("repriced too", "art_2"),
        ),
        *(("replaced", "art_4"), ("next", "art_5"), ("serves", "art_6")),
    ]
    policies = []
    for n, (name, artifact_id) in enumerate(named):
        policy = make_policy(
            policy_id=name,
            created_at=at(n),
            mixture=(Component(0.3, None), Component(0.7, artifact_id)),
            parent_id=named[n - 1][0] if n else None,
            revision=name not in ("gated", "next"),
            superseded_at=at(n + 1) if name not in ("replaced", "serves") else None,
        )
        policies.append(policy)
    return policies


def test_revisions_that_decided_nothing_go_with_their_models_once_they_were_superseded_for_long(store: Store) -> None:
    policies = _line()

    def work(writer: Writer) -> None:
        for n, policy in enumerate(policies):
            writer.put_artifact(make_artifact(artifact_id=f"art_{n}", created_at=at(n)))
            writer.add_policy(policy)
        writer.move_pointer(pointer(1, "serves"))
        writer.add_decision(make_decision(policy_id="used"), None)

    def left() -> tuple[dict[str, str | None], list[int]]:
        with store.read() as reader:
            found = [p for policy in policies if (p := reader.policy(WORKSPACE, policy.policy_id)) is not None]
            kept = [n for n in range(len(policies)) if reader.artifact(WORKSPACE, f"art_{n}") is not None]
        return {p.policy_id: p.parent_id for p in found}, kept

    store.write(work)
    before = left()
    assert store.write(lambda w: w.prune_revisions(WORKSPACE, at(2), limit=9)) == 0, "one was superseded just then"
    assert store.write(lambda w: w.prune_revisions("w2", at(99), limit=9)) == 0
    assert left() == before
    gone = [store.write(lambda w: w.prune_revisions(WORKSPACE, at(99), limit=3)) for _ in range(3)]
    assert gone == [3, 1, 0]
    line = {"gated": None, "used": "gated", "replaced": "used", "next": "replaced", "serves": "next"}
    assert left() == (line, [0, 2, 4, 5, 6, 7, 8])


def test_what_serves_again_was_not_superseded(store: Store) -> None:
    def status(now: Literal["live", "retired"], hours: float | None) -> None:
        when = None if hours is None else at(hours)
        store.write(lambda w: w.set_policy_status(WORKSPACE, "pol_1", now, superseded_at=when))

    store.write(lambda w: w.add_policy(make_policy(revision=True)))
    status("retired", 1)
    status("live", None)
    assert store.write(lambda w: w.prune_revisions(WORKSPACE, at(9), limit=9)) == 0
    status("retired", 5)
    assert store.write(lambda w: w.prune_revisions(WORKSPACE, at(5), limit=9)) == 0
    assert store.write(lambda w: w.prune_revisions(WORKSPACE, at(6), limit=9)) == 1


def test_training_runs_are_replaced_and_paged_newest_first(store: Store) -> None:
    runs = [make_run(run_id=f"run_{n}", created_at=at(n // 2), status="queued") for n in range(7)]
    done = replace(
        runs[4],
        status="published",
        started_at=at(1),
        finished_at=at(2),
        verdict={"alpha": 0.3, "kind": "retrain"},
        error='told: "kind":"retrain", \0, ü',
        kind="refresh",
    )

    def work(writer: Writer) -> None:
        for run in (*runs, done):
            writer.put_training_run(run)

    store.write(work)
    runs[4] = done
    with store.read() as reader:
        assert reader.training_run(WORKSPACE, "run_4") == done
        assert reader.training_run("w2", "run_4") is None
        first = reader.training_runs(WORKSPACE, limit=4)
        second = reader.training_runs(WORKSPACE, limit=4, cursor=first.cursor)
        assert [*first.items, *second.items] == list(reversed(runs))
        assert second.cursor is None
        assert reader.training_runs(WORKSPACE, limit=4, status="published").items == (done,)
        assert reader.training_runs(WORKSPACE, limit=4, kind="refresh").items == (done,)
        assert reader.training_runs(WORKSPACE, limit=4, kind="refresh", status="queued").items == ()
        first = reader.training_runs(WORKSPACE, limit=4, kind="retrain")
        second = reader.training_runs(WORKSPACE, limit=4, kind="retrain", cursor=first.cursor)
        assert [*first.items, *second.items] == [run for run in reversed(runs) if run != done]


def test_a_lease_has_one_holder_until_it_runs_out_or_is_given_back(store: Store) -> None:
    def take(holder: str, now: float, until: float, name: str = "retrain") -> bool:
        return store.write(lambda writer: writer.take_lease(name, holder, at(now), at(until)))

    assert take("a", 0, 1)
    assert not take("b", 0.5, 2)
    assert take("a", 0.5, 2)
    assert not take("b", 1.5, 3)
    assert take("b", 0, 1, "other lease")
    assert take("b", 2, 3)
    store.write(lambda writer: writer.drop_lease("retrain", "a"))
    assert not take("a", 2.5, 4)
    store.write(lambda writer: writer.drop_lease("retrain", "b"))
    assert take("a", 2.5, 4)


def test_a_lease_that_holds_far_longer_than_a_new_one_would_is_free(store: Store) -> None:
    def take(holder: str, now: datetime) -> bool:
        return store.write(lambda writer: writer.take_lease("l", holder, now, now + timedelta(seconds=20)))

    assert take("a", at(0) + timedelta(minutes=5))
    assert not take("b", at(0)), "the clocks of two hosts may differ by so much"
    assert take("a", at(0) + timedelta(days=1200))
    assert take("b", at(0))
    assert not take("c", at(0))


def test_of_racing_holders_one_gets_the_lease(store_factory: StoreFactory) -> None:
    stores = [store_factory() for _ in range(4)]

    def take(number: int) -> bool:
        return stores[number % 4].write(lambda writer: writer.take_lease("l", f"h{number}", at(0), at(1)))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(24))) == 1


def test_the_change_feed_has_no_gap_and_keeps_the_order_of_commits(store: Store) -> None:
    def fail(writer: Writer) -> None:
        writer.add_change(WORKSPACE, "revoked", at(0), decision_id="lost")
        raise ArithmeticError

    assert store.write(lambda writer: writer.add_change(WORKSPACE, "revoked", at(0), decision_id="dec_1")) == 1
    with pytest.raises(ArithmeticError):
        store.write(fail)
    assert store.write(lambda writer: writer.add_change("w2", "expired", at(0))) == 1
    with ThreadPoolExecutor(8) as pool:
        positions = list(
            pool.map(
                lambda n: store.write(
                    lambda writer: writer.add_change(
                        WORKSPACE,
                        "promoted",
                        at(n),
                        campaign_id="spring",
                        policy_id=f"pol_{n}",
                        replaced_id=f"old_{n}",
                        detail="α",
                    )
                ),
                range(40),
            )
        )
    assert sorted(positions) == list(range(2, 42))
    with store.read() as reader:
        feed = reader.changes(WORKSPACE, after=0, limit=100)
        assert [change.position for change in feed] == list(range(1, 42))
        assert (feed[0].kind, feed[0].at, feed[0].decision_id, feed[0].detail) == ("revoked", at(0), "dec_1", "")
        for number, position in enumerate(positions):
            change = feed[position - 1]
            assert (change.policy_id, change.at, change.detail) == (f"pol_{number}", at(number), "α")
            assert change.replaced_id == f"old_{number}"
        assert reader.changes(WORKSPACE, after=30, limit=3) == feed[30:33]
        assert reader.changes(WORKSPACE, after=41, limit=3) == ()
        assert reader.policy_changes(WORKSPACE, limit=3, policy_id="pol_7") == (feed[positions[7] - 1],)
        assert reader.policy_changes(WORKSPACE, limit=3, policy_id="old_7") == (feed[positions[7] - 1],)
        assert reader.policy_changes("w2", limit=3, policy_id="pol_7") == ()
        assert reader.policy_changes(WORKSPACE, limit=4) == feed[:-5:-1]
        assert reader.policy_changes(WORKSPACE, limit=100) == feed[:0:-1], "all but what became of a decision"
        assert reader.policy_changes("w2", limit=3) == ()
        assert reader.policy_changes(WORKSPACE, limit=3, campaign_id="spring") == feed[:-4:-1]
        assert reader.policy_changes(WORKSPACE, limit=3, campaign_id="summer") == ()


def test_import_positions_are_kept_by_import(store: Store) -> None:
    store.write(lambda writer: writer.put_import_position(WORKSPACE, "a", 1000))
    store.write(lambda writer: writer.put_import_position(WORKSPACE, "a", 2000))
    with store.read() as reader:
        assert reader.import_position(WORKSPACE, "a") == 2000
        assert reader.import_position(WORKSPACE, "b") == reader.import_position("w2", "a") == 0


def test_import_positions_are_forgotten_by_what_their_ids_begin_with(store: Store) -> None:
    for workspace_id, name in ((WORKSPACE, "p/a"), (WORKSPACE, "p/b"), (WORKSPACE, "P/c"), ("w2", "p/a")):
        store.write(lambda writer, at=(workspace_id, name): writer.put_import_position(*at, 5))  # type: ignore[misc]
    store.write(lambda writer: writer.drop_import_positions(WORKSPACE, "p/", keep="p/b"))
    with store.read() as reader:
        assert [reader.import_position(WORKSPACE, name) for name in ("p/a", "p/b", "P/c")] == [0, 5, 5]
        assert reader.import_position("w2", "p/a") == 5
    store.write(lambda writer: writer.drop_import_positions(WORKSPACE, "p/"))
    with store.read() as reader:
        assert reader.import_position(WORKSPACE, "p/b") == 0
