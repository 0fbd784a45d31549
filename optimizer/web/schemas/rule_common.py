"""What every kind of rule has, and how a kind is described to the registry in ``schemas.rules``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from marshmallow import post_load

from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Body, Stored
from optimizer.web.schemas.containers import Many, Part
from optimizer.web.schemas.fields import ChannelName, Choice, Flag, Id, Time, Whole
from storage.rules import WEEKDAYS, RuleKind, RuleParameters, Selector


def _ids(of: Callable[[], Id] = Id) -> Many:
    return Many(
        of(),
        "Left out: all; must not be empty.",
        shortest=1,
        longest=limits.ENTRIES,
        load_default=None,
        allow_none=True,
    )


class SelectorIn(Body):
    """Which messages: left out means all."""

    channels = _ids(ChannelName)
    except_channels = _ids(ChannelName)
    categories = _ids()
    except_categories = _ids()
    campaigns = _ids()
    except_campaigns = _ids()

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Selector:
        return Selector(**{name: None if ids is None else tuple(ids) for name, ids in data.items()})


class RuleBody(Stored):
    """What every kind of rule has."""

    rule_id = Id(dump_only=True)
    version = Whole("Grows with every change; the ETag.", minimum=1, maximum=2**31, dump_only=True)
    updated_at = Time("null: not known.", allow_none=True, dump_only=True)
    archived = Flag(dump_only=True)

    kind = Choice(get_args(RuleKind), required=True)
    applies_to = Part(SelectorIn, load_default=Selector, metadata={"description": "Which requests it binds."})
    counts = Part(
        SelectorIn,
        load_default=None,
        allow_none=True,
        metadata={"description": "Which messages it counts; left out: those that it binds."},
    )
    enabled = Flag(load_default=True)
    dry_run = Flag("Reported in the reasons of decisions, not enforced.", load_default=False)


def kind_of(name: RuleKind) -> Choice:
    """The field that says which kind a rule is, in the schema of that kind."""
    return Choice((name,), required=True)


def week_start() -> Choice:
    """The field that says on which day calendar weeks start."""
    return Choice(WEEKDAYS, "For a calendar week; left out: mon.", load_default=None, allow_none=True)


@dataclass(frozen=True)
class Kind:
    """How one kind of rule is read, made into its record's parameters, and shown in the form of a PUT.

    ``show`` gets parameters of the class that ``parameters`` makes; which class that is, is the kind's own matter.
    """

    schema: type[Body]
    parameters: Callable[[dict[str, Any]], RuleParameters]
    show: Callable[[Any], dict[str, Any]]
