"""What comes in from a vendor, and what is read from it: the two ends of each vendor's module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from optimizer.service.requests import Breadth, OneTimeToken, RejectedEvent, VendorEvent
from optimizer.service.webhooks.certificates import Certificates
from storage.records import JsonObject
from storage.webhooks import WebhookSource

#: The name under which a sender gives a vendor our decision id, and the vendor gives it back: a custom argument, a
#: metadata field, a variable, a tag. 20 characters, the most that Postmark takes.
DECISION_ARGUMENT = "sendtide_decision_id"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One HTTP request of a vendor, before anything of it is believed.

    Attributes:
        source: the source whose address was called.
        headers: by lower-case name.
        raw: the body as it came.
        form: whether the body is a form (else JSON).
        urls: the addresses under which the vendor may have called, query included, likeliest first.
        query: the address's parameters.
        now: aware UTC.
        certificates: where signing certificates come from.
    """

    source: WebhookSource
    headers: Mapping[str, str]
    raw: bytes
    form: bool
    urls: Sequence[str]
    query: Mapping[str, str]
    now: datetime
    certificates: Certificates

    def header(self, name: str) -> str:
        """A header's value, empty where it is missing."""
        return self.headers.get(name.lower(), "")


@dataclass(frozen=True, slots=True)
class Batch:
    """What a delivery says. ``unknown`` counts events of types that nobody here knows; they are among ``items``.

    ``token`` can be used for this delivery only; ``confirm_url`` is to be fetched to confirm a subscription.
    """

    items: tuple[VendorEvent | RejectedEvent, ...] = ()
    unknown: int = 0
    token: OneTimeToken | None = None
    confirm_url: str | None = None


@dataclass(frozen=True, slots=True)
class Signs:
    """What may betray a machine, in one vendor's words.

    ``flagged``: the vendor's own verdict, empty where none. ``timed``: whether the vendor says when it happened; else
    the event's time is that of the report, which may come in any order and tells nothing of who did it.
    """

    flagged: str = ""
    user_agent: str = ""
    address: str = ""
    url: str = ""
    method: str = ""
    timed: bool = True


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one kind of a vendor's event means.

    Attributes:
        event: the vendor's name of it.
        outcome: ours.
        where: the vendor's field that narrows it, if any.
        value: what stands in that field.
        hard: of a bounce, whether it is for good.
        refuses: how much it refuses, where that is not what its outcome says (``service.optout``).
        opted_out: of a failure, whether the vendor won't send since the person had unsubscribed.
    """

    event: str
    outcome: str
    where: str = ""
    value: str = ""
    hard: bool = True
    refuses: Breadth | None = None
    opted_out: bool = False


@dataclass(frozen=True)
class Understood:
    """A vendor's table of meanings."""

    vendor: str
    meanings: tuple[Meaning, ...]
    _by: dict[tuple[str, str], Meaning] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Indexes the table; two rows for the same thing are a mistake."""
        by = {(one.event, one.value): one for one in self.meanings}
        if len(by) != len(self.meanings):
            raise ValueError(f"{self.vendor}: two meanings for one event")
        object.__setattr__(self, "_by", by)

    def of(self, event: str, value: str = "") -> Meaning | None:
        """The meaning of an event, the narrower one first; None for a type that nobody here knows."""
        return self._by.get((event, value)) or self._by.get((event, ""))


Read = Callable[[Delivery], Batch]
SignsOf = Callable[[JsonObject], Signs]
