"""Recipients of an import, column by column: straight to what is stored, no record in between."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optimizer.service import recipients as people
from optimizer.service.cells import CHANNELS, OBJECT_VALUES, Cells
from optimizer.service.erased import any_erased
from optimizer.service.importrows import recipient_row
from optimizer.service.rowparts import Table
from optimizer.service.wholecolumns import Memos, first_seen, joined, member, plain_ids, require, require_names
from storage.codec import pack_member, pack_recipient_members, to_micros
from storage.errors import OneByOne
from storage.port import Writer


@dataclass(frozen=True)
class NewRecipients:
    """Recipients as they are stored, if none of them is known: ids and documents; the cells that they come from; and
    who refuses a channel."""

    ids: Sequence[str]
    documents: Sequence[bytes]
    columns: Mapping[str, Sequence[Any]]
    refusing: Collection[str]


@dataclass
class RecipientColumns:
    """Reads chunks of one file. ``typed``: as of ``Cells``."""

    typed: bool
    _memos: Memos[str] = field(init=False)
    _refusals: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._memos = Memos(self._member)

    def read(self, table: Table, now: datetime) -> NewRecipients:
        """A chunk's recipients, as they would be stored at ``now``.

        Raises:
            Unusual: they are to be read row by row.
        """
        columns = table.columns
        nested: dict[str, list[Sequence[str]]] = {"attributes": [], "channels": []}
        for name in columns:
            group, dot, _ = name.partition(".")
            require(name in ("recipient_id", "timezone") or bool(dot and group in nested))
            if dot:
                nested[group].append(self._memos.of(name, columns[name]))
        require_names(columns)
        require(len(nested["attributes"]) <= OBJECT_VALUES and len(nested["channels"]) <= CHANNELS)
        require("recipient_id" in columns)
        ids = plain_ids(columns["recipient_id"])
        zones: Sequence[str] = [""] * len(ids)
        if "timezone" in columns:
            zones = self._memos.of("timezone", columns["timezone"])
        documents = pack_recipient_members(
            zones, joined(nested["attributes"], len(ids)), joined(nested["channels"], len(ids)), to_micros(now)
        )
        return NewRecipients(ids, documents, columns, self._refusing(ids, nested["channels"]))

    def _refusing(self, ids: Sequence[str], channels: Sequence[Sequence[str]]) -> Collection[str]:
        if not self._refusals:
            return ()
        return {one for column in channels for one, said in zip(ids, column, strict=True) if said in self._refusals}

    def _member(self, column: str, cell: Any) -> str:
        """What a cell adds to the document, in JSON; "" where it says nothing."""
        part = column.partition(".")[0]
        if part == "attributes":
            return member(column, cell, typed=self.typed)
        one = recipient_row(Cells({"recipient_id": "-", column: cell}, typed=self.typed), "")
        if part == "timezone":
            return "" if one.timezone is None else pack_member(one.timezone)
        said = "".join(pack_member(consent, name) for name, consent in one.channels.items())
        if not all(consent.state for consent in one.channels.values()):
            self._refusals.add(said)
        return said

    def store(self, writer: Writer, workspace_id: str, found: NewRecipients) -> None:
        """Stores them; ``OneByOne`` where some are known already or occur twice, somebody was erased once, or who
        refuses a channel has something reserved."""
        if any_erased(writer, workspace_id):
            raise OneByOne("recipients who may have been erased")
        if found.refusing and writer.with_open_decisions(workspace_id, list(found.refusing)):
            raise OneByOne("recipients whose messages are to be called off")
        writer.add_new_recipients(workspace_id, found.ids, found.documents)
        known = {attribute.name: attribute for attribute in writer.attributes(workspace_id)}
        people.sight(writer, workspace_id, known, first_seen(known, found.columns, "attributes", typed=self.typed))
