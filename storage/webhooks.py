"""Inbound webhooks, as a store keeps them: sources, one-time tokens, and what vendors said in their own words.

A source's id is part of an address that the outside world posts to, without a key, so it is unique in the whole
installation and never passes from one workspace to another: a deleted source keeps its id and loses its secrets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from storage.log import Event
from storage.records import JsonObject

Vendor = Literal["sendgrid", "mailgun", "postmark", "ses", "twilio", "standard"]


@dataclass(frozen=True, slots=True)
class WebhookSource:
    """Where a vendor's webhooks come in.

    ``secrets`` are what the vendor's signatures are checked with (any of them, so that they can be rotated);
    ``topic_arns`` the SNS topics that may post. A ``deleted`` one has neither and takes nothing.
    """

    workspace_id: str
    source_id: str
    vendor: Vendor
    secrets: tuple[str, ...] = field(default=(), repr=False)
    topic_arns: tuple[str, ...] = ()
    deleted: bool = False
    version: int = 1
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class VendorWords:
    """A stored event, with the vendor that reported it and its own words for it."""

    event: Event
    vendor: str
    words: JsonObject


@dataclass(frozen=True, slots=True)
class Label:
    """What is believed of an event: whether a machine did it, how sure that is (0 = no sign of one), and why."""

    automated: bool
    confidence: float
    reason: str


class WebhookReader(Protocol):
    """Queries on what came in by webhooks; part of ``storage.port.Reader``."""

    def webhook_source(self, source_id: str) -> WebhookSource | None:
        """The source of that id in whichever workspace, deleted or not."""

    def webhook_sources(self, workspace_id: str) -> tuple[WebhookSource, ...]:
        """A workspace's sources by id, those that are not deleted."""

    def heard_vendors(self, workspace_id: str) -> bool:
        """Whether the workspace has or ever had a source: else no vendor has said anything."""

    def vendor_words(self, workspace_id: str, decision_id: str) -> tuple[VendorWords, ...]:
        """The events that name or were joined to this decision and have a vendor's words, by occurrence, then id."""

    def labelled(self, workspace_id: str, decision_id: str, *, limit: int) -> int:
        """How many events name or were joined to this decision and have a label's confidence; counted up to ``limit``,
        and no more are read."""

    def vendor_decisions(self, workspace_id: str, *, after: str = "", limit: int) -> tuple[str, ...]:
        """Ids of decisions that such events name, in order, beginning behind ``after``."""


class WebhookWriter(WebhookReader, Protocol):
    """Changes of what came in by webhooks; part of ``storage.port.Writer``."""

    def put_webhook_source(self, source: WebhookSource) -> None:
        """Stores ``source.version``; ``VersionConflict`` unless it is the stored version + 1, ``AlreadyExists`` when
        the id is another workspace's."""

    def use_token(
        self, workspace_id: str, source_id: str, token: str, used_for: str, *, now: datetime, until: datetime
    ) -> str:
        """Notes what a one-time token was used for, unless that is noted already; returns what holds.

        Notes are kept until ``until`` at least, and go some time after it.
        """

    def add_vendor_event(self, event: Event, vendor: str, words: JsonObject) -> bool:
        """``add_event``, with the vendor's words beside it."""

    def join_event(self, event: Event) -> Event | None:
        """Joins the stored event of this id, while it is unmatched, to the decision, recipient and campaign that
        ``event`` names, and notes the position as that of its report. Nothing else of ``event`` is taken over.

        Returns:
            The stored event as it is now; None (and nothing changed) when it is matched already, or isn't stored.
        """

    def label_events(self, workspace_id: str, labels: Sequence[tuple[str, Label]]) -> None:
        """Sets the labels of stored events by event id. Where ``automated`` changes, the position is noted in
        ``Event.flipped_after``."""
