"""What every schema shares: unknown fields are refused by name, and answers are documented from the same fields."""

from __future__ import annotations

import copy
from typing import Any

from marshmallow import RAISE, Schema, fields, missing, pre_load

from optimizer.web.schemas import limits
from optimizer.web.schemas.containers import Many
from optimizer.web.schemas.fields import Choice, Text, Time, Whole


class Body(Schema):
    """A JSON object that is read: a field that isn't declared is an error that says which are."""

    class Meta:
        """Unknown fields are refused."""

        unknown = RAISE

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        allowed = ", ".join(sorted(self.load_fields)) or "none"
        self.error_messages["unknown"] = f"Unknown field; allowed: {allowed}."
        self.error_messages["type"] = "Must be an object."


class Stored(Body):
    """A document that can be read, changed and put back: its read-only (``dump_only``) fields are dropped when read."""

    @pre_load
    def _without_read_only(self, data: Any, **_: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {k: v for k, v in data.items() if k not in self.fields or k in self.load_fields}


class Shown(Schema):
    """A JSON object that is answered; used for the document only, answers are rendered by ``render``."""


def shown(source: type[Schema], name: str, leave_out: tuple[str, ...] = (), **more: fields.Field[Any]) -> type[Schema]:
    """The answer's form of ``source``: the same fields, all of them always there, and ``more``."""
    own = {k: copy.deepcopy(f) for k, f in source._declared_fields.items() if k not in leave_out}
    for field in own.values():
        field.required = True
        field.load_default = missing
    return type(name, (Shown,), {**own, **more, "__doc__": (source.__doc__ or "").replace("is read", "is answered")})


class Nothing(Body):
    """An empty object."""


class PageQuery(Body):
    """Which part of a list."""

    limit = Whole("How many at most.", minimum=1, maximum=limits.PAGE_MAX, load_default=limits.PAGE, textual=True)
    cursor = Text(
        "Where to go on: the `cursor` of the page before.", shortest=1, longest=limits.CURSOR, load_default=None
    )


class Problem(Shown):
    """What went wrong, as RFC 9457 says it."""

    type = Text("A relative URI that names the kind of problem.", required=True, metadata={"format": "uri-reference"})
    title = Text(required=True)
    status = Whole("The HTTP status.", minimum=400, maximum=599, required=True)
    detail = Text("For people: what is wrong with this request.", longest=10_000, required=True)
    code = Text("For programs.", required=True)
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        metadata={"description": "What is wrong by field path, with what was given and what is allowed."},
    )
    request_id = Text("As in `X-Request-Id`.")
    index = Whole("The row of a batch.", maximum=limits.ROWS)


def next_page() -> Text:
    """The member of a list's answer by which the next page is asked for."""
    return Text("The next page; null at the end.", longest=limits.CURSOR, required=True, allow_none=True)


def page_of(item: type[Schema], plural: str, **more: fields.Field[Any]) -> type[Schema]:
    """The answer of a list route: items under their own name, the cursor of the next page, and ``more`` about the list
    as a whole."""
    members: dict[str, Any] = {
        plural: fields.List(fields.Nested(item), required=True),
        "cursor": next_page(),
        **more,
        "__doc__": f"A page of {plural}.",
    }
    return type(f"{plural.title().replace('_', '')}Page", (Shown,), members)


def state(choices: tuple[str, ...], about: str = "") -> Choice:
    """A required answer field with a fixed set of values."""
    return Choice(choices, about, required=True)


def moment(about: str = "", *, known: bool = True) -> Time:
    """A required answer field with a UTC time; not ``known``: may be null."""
    return Time(about, required=True, allow_none=not known)


def rows(of: type[Schema]) -> Many:
    """The rows of a batch, documented as ``of`` but unread, so that a bad one spoils no other.

    Their number is checked before the schema, since too many is 413 and not 422, and how many may come is a setting.
    """
    return Many(
        fields.Raw(allow_none=True, metadata={"of": of}),
        longest=None,
        required=True,
        metadata={"maxItems": limits.ROWS},
    )
