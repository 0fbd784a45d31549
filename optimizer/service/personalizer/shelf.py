"""Where what is asked of a loop is kept: documents of one kind, by their ids, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

import msgspec

from optimizer.errors import NotFound
from optimizer.service.wiring import Services
from storage.port import Reader, Writer
from storage.ranks import DocumentKind


class Kept(Protocol):
    """What every document has."""

    @property
    def id(self) -> str:
        """Its id, of its kind's in the workspace."""

    @property
    def created_at(self) -> datetime:
        """When it was asked for."""


T = TypeVar("T", bound=Kept)


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
