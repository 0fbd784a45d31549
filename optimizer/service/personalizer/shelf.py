"""Where what is asked of a loop is kept: documents of one kind, by their ids, newest first; and how a scheduler carries
out those that are jobs: one at a time, the oldest first, each taken up once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Event, Thread
from typing import Any, Final, Generic, Protocol, TypeVar, cast

import msgspec

from optimizer.errors import NotFound
from optimizer.service.ids import fresh
from optimizer.service.wiring import Services
from storage.errors import StoreUnavailable
from storage.port import Reader, Writer
from storage.ranks import DocumentKind

log = logging.getLogger("sendtide.personalizer")

#: Statuses of a job that isn't done.
WAITING: Final = frozenset({"NotSubmitted", "Running"})
ABANDONED: Final = "the process that was at work on it ended before it was done; allowed: ask for another one"
_BROKEN: Final = "something went wrong on our side; see the log"
#: A process that is at work on a job renews its lease; whoever finds the job running and the lease lapsed knows that
#: its process has ended.
_LEASE: Final = timedelta(minutes=2)
_RENEWED: Final = timedelta(seconds=20)


class Kept(Protocol):
    """What every document has."""

    @property
    def id(self) -> str:
        """Its id, of its kind's in the workspace."""

    @property
    def created_at(self) -> datetime:
        """When it was asked for."""


class Job(Kept, Protocol):
    """A document that is carried out."""

    @property
    def status(self) -> str:
        """NotSubmitted, Running, Succeeded or Failed."""


T = TypeVar("T", bound=Kept)
J = TypeVar("J", bound=Job)


@dataclass(frozen=True)
class Shelf(Generic[T]):
    """The documents of one kind.

    Attributes:
        kind: the store's name of it. words: what people call one.
        missing: the code of the error when there is none.
        decoder: reads a stored one.
    """

    kind: DocumentKind
    words: str
    missing: str
    decoder: msgspec.json.Decoder[T]

    def save(self, writer: Writer, workspace_id: str, document: T) -> None:
        """Stores it under its id."""
        writer.put_loop_document(workspace_id, self.kind, document.id, msgspec.json.encode(document))

    def note(self, services: Services, workspace_id: str, document: T) -> bool:
        """Stores how a document that was asked for is now; False (and nothing is stored) where it was deleted."""
        told = msgspec.json.encode(document)

        def work(writer: Writer) -> bool:
            if not self.has(writer, workspace_id, document):
                return False
            return writer.replace_loop_document(workspace_id, self.kind, document.id, told)

        return services.store.write(work)

    def has(self, reader: Reader, workspace_id: str, document: T) -> bool:
        """Whether it is still there, and not another that was asked for under its id since."""
        stored = reader.loop_document(workspace_id, self.kind, document.id)
        return stored is not None and self.decoder.decode(stored).created_at == document.created_at

    def find(self, reader: Reader, workspace_id: str, document_id: str) -> T:
        """One of them; ``NotFound`` where there is none."""
        stored = reader.loop_document(workspace_id, self.kind, document_id)
        if stored is None:
            raise self._no_such(document_id)
        return self.decoder.decode(stored)

    def listed(self, reader: Reader, workspace_id: str) -> Sequence[T]:
        """All of them, newest first."""
        found = [self.decoder.decode(document) for document in reader.loop_documents(workspace_id, self.kind)]
        return sorted(found, key=lambda one: (one.created_at, one.id), reverse=True)

    def delete(self, services: Services, workspace_id: str, document_id: str) -> None:
        """Deletes one; ``NotFound`` where there is none."""
        if not services.store.write(lambda writer: writer.drop_loop_document(workspace_id, self.kind, document_id)):
            raise self._no_such(document_id)

    def _no_such(self, document_id: str) -> NotFound:
        return NotFound(f"no {self.words} {document_id!r:.80}", code=self.missing)


def carry_out_oldest(services: Services, workspace_id: str, shelf: Shelf[J], work: Callable[[J], J]) -> bool:
    """Carries out the oldest job that waits, in one process at a time; False where there is none to take up. ``work``
    makes the done job of one that is taken up.

    A job that is found running is failed: nobody is at work on it, and what ended its process would end the next one.
    """
    with services.store.read() as reader:
        if _oldest(reader, workspace_id, shelf) is None:
            return False
    now = services.clock()
    lease, holder = f"personalizer-{shelf.kind}/{workspace_id}", fresh("job")

    def take_up(writer: Writer) -> J | None:
        asked = _oldest(writer, workspace_id, shelf)
        if asked is None or not writer.take_lease(lease, holder, now, now + _LEASE):
            return None
        shelf.save(writer, workspace_id, _as(asked, "Running"))
        return asked

    asked = services.store.write(take_up)
    if asked is None:
        return False
    with _held(services, lease, holder):
        try:
            done = _as(asked, "Failed", ABANDONED) if asked.status == "Running" else work(asked)
            kept = shelf.note(services, workspace_id, done)
            told = {"workspace": workspace_id, shelf.kind: done.id, "status": done.status if kept else "deleted"}
            log.info("%s ends", shelf.words, extra=told)
        except Exception:  # whatever it is, it would be again: those behind this one must not wait for ever
            shelf.note(services, workspace_id, _as(asked, "Failed", _BROKEN))
            raise
    return True


@contextmanager
def _held(services: Services, lease: str, holder: str) -> Iterator[None]:
    """Renews a lease as long as the block lasts, and gives it back: a job of a long log takes longer than one."""
    over = Event()

    def longer(writer: Writer) -> bool:
        now = services.clock()
        return writer.take_lease(lease, holder, now, now + _LEASE)

    def renew() -> None:
        while not over.wait(_RENEWED.total_seconds()):
            try:
                if not services.store.write(longer):
                    return
            except StoreUnavailable as fault:
                log.warning("a lease could not be renewed: %s", fault, extra={"lease": lease})

    renewing = Thread(target=renew, name="lease", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join()
        services.store.write(lambda writer: writer.drop_lease(lease, holder))


def _oldest(reader: Reader, workspace_id: str, shelf: Shelf[J]) -> J | None:
    waiting = [job for job in shelf.listed(reader, workspace_id) if job.status in WAITING]
    return waiting[-1] if waiting else None


def _as(job: J, status: str, description: str = "") -> J:
    return cast(J, replace(cast(Any, job), status=status, description=description))
