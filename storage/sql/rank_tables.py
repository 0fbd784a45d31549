"""The Personalizer loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from storage.codec import encode, from_micros, maybe_micros, maybe_time, to_micros
from storage.errors import AlreadyExists, VersionConflict
from storage.ranks import (
    DocumentKind,
    LoopMode,
    Rank,
    RankedAction,
    RankModel,
    RankReward,
    RankRow,
    SlotChoice,
)
from storage.sql.tables import Row, Tables

#: Answers that are joined with their rewards at a time.
CHUNK: Final = 512
_COLUMNS: Final = "seq, event_id, ranked_at, active_at, request_hash, model, detail"
_NEWEST_MODEL: Final = (
    "SELECT generation, made_at FROM rank_models WHERE workspace_id = ? ORDER BY generation DESC LIMIT 1"
)
_MODEL: Final = "SELECT generation, born_at, made_at, upto, blob FROM rank_models "
_REWARDS: Final = """
SELECT event_id, slot_id, value, at FROM rank_rewards INDEXED BY rank_rewards_event
WHERE workspace_id = ? AND event_id IN ({marks}) ORDER BY seq
"""


@dataclass(frozen=True, slots=True)
class _Detail:
    """What no query looks at."""

    mode: LoopMode
    actions: tuple[RankedAction, ...]
    slots: tuple[SlotChoice, ...]
    context: tuple[Any, ...]
    multi_slot: bool


_decoder: Final = msgspec.json.Decoder(_Detail)


class RankReader(Tables):
    """Queries on loops."""

    def rank(self, workspace_id: str, event_id: str) -> Rank | None:
        """See ``storage.ranks``."""
        row = self._row(
            f"SELECT {_COLUMNS} FROM ranks WHERE workspace_id = ? AND event_id = ?",  # noqa: S608 - a constant
            (workspace_id, event_id),
        )
        return None if row is None else _rank_from(workspace_id, row)

    def ranks(
        self, workspace_id: str, *, after: int = 0, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[RankRow]:
        """See ``storage.ranks``. A writer ends the stream before it changes answers or rewards."""
        conditions, parameters = "workspace_id = ? AND seq > ?", [workspace_id, after]
        for condition, moment in ((" AND ranked_at >= ?", since), (" AND ranked_at < ?", until)):
            if moment is not None:
                conditions += condition
                parameters.append(to_micros(moment))
        statement = f"SELECT {_COLUMNS} FROM ranks INDEXED BY ranks_position WHERE {conditions} ORDER BY seq"  # noqa: S608 - constants
        return self._rewarded(workspace_id, self._stream(statement, parameters).fetchmany)

    def _rewarded(self, workspace_id: str, fetch: Callable[[int], list[Row]]) -> Iterator[RankRow]:
        while rows := fetch(CHUNK):
            rewards: dict[str, list[RankReward]] = {}
            for row in self._rows_in(_REWARDS, (workspace_id,), [r[1] for r in rows]):
                rewards.setdefault(row[0], []).append(_reward_from(workspace_id, row))
            for row in rows:
                yield RankRow(_rank_from(workspace_id, row), tuple(rewards.get(row[1], ())))

    def rank_position(self, workspace_id: str) -> int:
        """See ``storage.ranks``."""
        row = self._row("SELECT position FROM rank_positions WHERE workspace_id = ?", (workspace_id,))
        return 0 if row is None else int(row[0])

    def rank_span(self, workspace_id: str) -> tuple[datetime, datetime] | None:
        """See ``storage.ranks``."""
        ends = [
            self._row(
                f"SELECT ranked_at FROM ranks WHERE workspace_id = ? ORDER BY ranked_at {way} LIMIT 1",  # noqa: S608 - a constant
                (workspace_id,),
            )
            for way in ("ASC", "DESC")
        ]
        first, last = ends
        return None if first is None or last is None else (from_micros(first[0]), from_micros(last[0]))

    def rank_model(self, workspace_id: str) -> RankModel | None:
        """See ``storage.ranks``."""
        row = self._row(_MODEL + "WHERE workspace_id = ? ORDER BY generation DESC LIMIT 1", (workspace_id,))
        if row is None:
            return None
        return RankModel(workspace_id, row[0], from_micros(row[1]), from_micros(row[2]), row[3], row[4])

    def rank_generation(self, workspace_id: str) -> int:
        """See ``storage.ranks``."""
        row = self._row("SELECT max(generation) FROM rank_models WHERE workspace_id = ?", (workspace_id,))
        return int(row[0]) if row is not None and row[0] is not None else 0

    def rank_newest(self, workspace_id: str) -> tuple[int, datetime | None]:
        """See ``storage.ranks``."""
        row = self._row(_NEWEST_MODEL, (workspace_id,))
        return (0, None) if row is None else (int(row[0]), from_micros(row[1]))

    def loop_document(self, workspace_id: str, kind: DocumentKind, document_id: str) -> bytes | None:
        """See ``storage.ranks``."""
        row = self._row(
            "SELECT document FROM loop_documents WHERE workspace_id = ? AND kind = ? AND document_id = ?",
            (workspace_id, kind, document_id),
        )
        return None if row is None else bytes(row[0])

    def loop_documents(self, workspace_id: str, kind: DocumentKind) -> tuple[bytes, ...]:
        """See ``storage.ranks``."""
        rows = self._rows(
            "SELECT document FROM loop_documents WHERE workspace_id = ? AND kind = ? ORDER BY document_id",
            (workspace_id, kind),
        )
        return tuple(bytes(row[0]) for row in rows)


class RankWriter(RankReader):
    """Changes of loops."""

    def add_rank(self, rank: Rank) -> None:
        """See ``storage.ranks``."""
        detail = _Detail(rank.mode, rank.actions, rank.slots, rank.context, rank.multi_slot)
        row = self._row(
            """
            INSERT INTO ranks (workspace_id, event_id, ranked_at, active_at, request_hash, model, detail)
            VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (workspace_id, event_id) DO NOTHING RETURNING seq
            """,
            (
                rank.workspace_id,
                rank.event_id,
                to_micros(rank.ranked_at),
                maybe_micros(rank.active_at),
                rank.request_hash,
                rank.model,
                encode(detail),
            ),
        )
        if row is None:
            raise AlreadyExists(f"event {rank.event_id} is logged already")
        self._query(
            """
            INSERT INTO rank_positions (workspace_id, position) VALUES (?, ?)
            ON CONFLICT (workspace_id) DO UPDATE SET position = excluded.position
            """,
            (rank.workspace_id, row[0]),
        )

    def activate_rank(self, workspace_id: str, event_id: str, at: datetime) -> bool:
        """See ``storage.ranks``."""
        changed = self._query(
            "UPDATE ranks SET active_at = ? WHERE workspace_id = ? AND event_id = ? AND active_at IS NULL",
            (to_micros(at), workspace_id, event_id),
        )
        return changed.rowcount > 0

    def add_rank_reward(self, reward: RankReward) -> None:
        """See ``storage.ranks``."""
        self._query(
            "INSERT INTO rank_rewards (workspace_id, event_id, slot_id, value, at) VALUES (?, ?, ?, ?, ?)",
            (reward.workspace_id, reward.event_id, reward.slot_id, reward.value, to_micros(reward.at)),
        )

    def put_rank_model(self, model: RankModel) -> None:
        """See ``storage.ranks``."""
        following = 1 + self.rank_generation(model.workspace_id)
        if model.generation != following:
            raise VersionConflict(f"model generation {model.generation} was to be stored, but {following} comes next")
        self._query("DELETE FROM rank_models WHERE workspace_id = ?", (model.workspace_id,))
        self._query(
            """
            INSERT INTO rank_models (workspace_id, generation, born_at, made_at, upto, blob) VALUES (?, ?, ?, ?, ?, ?)
            """,
            (
                model.workspace_id,
                model.generation,
                to_micros(model.born_at),
                to_micros(model.made_at),
                model.upto,
                model.blob,
            ),
        )

    def forget_ranks(self, workspace_id: str, before: datetime | None) -> int:
        """See ``storage.ranks``."""
        until = 1 << 62 if before is None else to_micros(before)
        self._query("DELETE FROM rank_rewards WHERE workspace_id = ? AND at < ?", (workspace_id, until))
        return self._query("DELETE FROM ranks WHERE workspace_id = ? AND ranked_at < ?", (workspace_id, until)).rowcount

    def put_loop_document(self, workspace_id: str, kind: DocumentKind, document_id: str, document: bytes) -> None:
        """See ``storage.ranks``."""
        self._query(
            """
            INSERT INTO loop_documents (workspace_id, kind, document_id, document) VALUES (?, ?, ?, ?)
            ON CONFLICT (workspace_id, kind, document_id) DO UPDATE SET document = excluded.document
            """,
            (workspace_id, kind, document_id, document),
        )

    def replace_loop_document(self, workspace_id: str, kind: DocumentKind, document_id: str, document: bytes) -> bool:
        """See ``storage.ranks``."""
        replaced = self._query(
            "UPDATE loop_documents SET document = ? WHERE workspace_id = ? AND kind = ? AND document_id = ?",
            (document, workspace_id, kind, document_id),
        )
        return replaced.rowcount > 0

    def drop_loop_document(self, workspace_id: str, kind: DocumentKind, document_id: str) -> bool:
        """See ``storage.ranks``."""
        gone = self._query(
            "DELETE FROM loop_documents WHERE workspace_id = ? AND kind = ? AND document_id = ?",
            (workspace_id, kind, document_id),
        )
        return gone.rowcount > 0


def _rank_from(workspace_id: str, row: Row) -> Rank:
    seq, event_id, ranked_at, active_at, request_hash, model, document = row
    detail = _decoder.decode(document)
    return Rank(
        workspace_id,
        event_id,
        from_micros(ranked_at),
        request_hash,
        detail.mode,
        model,
        detail.actions,
        detail.slots,
        detail.context,
        detail.multi_slot,
        maybe_time(active_at),
        seq,
    )


def _reward_from(workspace_id: str, row: Row) -> RankReward:
    return RankReward(workspace_id, row[0], row[1], row[2], from_micros(row[3]))
