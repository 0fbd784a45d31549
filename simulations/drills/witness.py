"""A store that notes in which order what counts against the caps was committed.

The times in the log don't tell the order of commits: a decision's time is read before its transaction. Here every
change of a counted message takes a number from a counter that all processes share, inside the write transaction.
Transactions run one after the other, so the numbers are the order of commits, and the audit can be exact.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, TypeVar, cast

from simulations.holdings import Entry
from storage.log import Decision, Message
from storage.port import Reader, Store, Writer

T = TypeVar("T")


class WitnessStore:
    """``storage.port.Store`` over another one; ``entries`` is what this process committed."""

    def __init__(self, store: Store, counter: Callable[[], int]) -> None:
        """Notes with numbers from ``counter``, which must be unique over all processes and rise."""
        self._store = store
        self._counter = counter
        self._lock = threading.Lock()
        self.entries: list[Entry] = []

    def read(self) -> AbstractContextManager[Reader]:
        """See ``storage.port``."""
        return self._store.read()

    def write(self, work: Callable[[Writer], T], *, recipients: Sequence[tuple[str, str]] = ()) -> T:
        """See ``storage.port``. What a transaction noted is kept only once it is committed."""

        def noted(writer: Writer) -> tuple[T, list[Entry]]:
            witness = _Witness(writer, self._counter)
            return work(cast(Writer, witness)), witness.entries

        result, entries = self._store.write(noted, recipients=recipients)
        with self._lock:
            self.entries += entries
        return result

    def check(self) -> None:
        """See ``storage.port``."""
        self._store.check()

    def close(self) -> None:
        """See ``storage.port``."""
        self._store.close()


class _Witness:
    """A writer that notes every change of a counted message and passes everything on."""

    def __init__(self, writer: Writer, counter: Callable[[], int]) -> None:
        self._writer = writer
        self._counter = counter
        self.entries: list[Entry] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def add_decision(self, decision: Decision, message: Message | None) -> None:
        """See ``storage.port``."""
        self.add_decisions([(decision, message)])

    def add_decisions(self, rows: Sequence[tuple[Decision, Message | None]]) -> None:
        """See ``storage.port``."""
        self._writer.add_decisions(rows)
        for decision, message in rows:
            if message is not None:
                self._note(decision.recipient_id, decision.decision_id, message.at)

    def update_decision(self, decision: Decision, message: Message | None) -> None:
        """See ``storage.port``."""
        self._writer.update_decision(decision, message)
        self._note(decision.recipient_id, decision.decision_id, message.at if message is not None else None)

    def add_message(self, message: Message) -> bool:
        """See ``storage.port``."""
        added = self._writer.add_message(message)
        if added:
            self._note(message.recipient_id, message.message_ref, message.at)
        return added

    def _note(self, recipient_id: str, ref: str, at: datetime | None) -> None:
        self.entries.append(Entry(self._counter(), recipient_id, ref, at))
