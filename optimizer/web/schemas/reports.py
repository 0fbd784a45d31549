"""Reports: what a campaign brought, and what of that it owes to the choices."""

from __future__ import annotations

from typing import Any, get_args

from marshmallow import ValidationError, fields, validates_schema

from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Body, Shown, moment, state
from optimizer.web.schemas.fields import Flag, Id, Number, Text, TimeOrDay, Whole
from storage.log import Group
from storage.rules import WEEKDAYS

#: Estimates have no bound of their own: a value is in the objective's unit.
_LARGEST = 1e300
_LEVEL = "the bounds of all daily looks hold together with probability `level`"


class ReportQuery(Body):
    """Which decisions."""

    since = TimeOrDay("Decisions made from then on; left out: from the first.", load_default=None)
    until = TimeOrDay("Decisions made before; left out: up to now.", load_default=None)

    @validates_schema
    def _period(self, data: dict[str, Any], **_: Any) -> None:
        since, until = data.get("since"), data.get("until")
        if since is not None and until is not None and until <= since:
            raise ValidationError(f"Must be after since ({since.isoformat()}).", "until")


def _number(about: str = "", *, known: bool = True, least: float = -_LARGEST) -> Number:
    return Number(about, minimum=least, maximum=_LARGEST, required=True, allow_none=not known)


def _count(about: str = "") -> Whole:
    return Whole(about, maximum=limits.POSITION, required=True)


def _nested(schema: type[Shown], about: str = "", *, known: bool = True) -> fields.Nested:
    return fields.Nested(schema, required=True, allow_none=not known, metadata={"description": about} if about else {})


def _list(schema: type[Shown], about: str) -> fields.List[Any]:
    return fields.List(fields.Nested(schema), required=True, metadata={"description": about})


def _table(of: type[Shown], about: str) -> fields.Dict:
    return fields.Dict(keys=fields.String(), values=fields.Nested(of), required=True, metadata={"description": about})


def _counts(about: str) -> fields.Dict:
    return fields.Dict(keys=fields.String(), values=_count(), required=True, metadata={"description": about})


class EstimateOut(Shown):
    """A mean a decision; the bounds of all daily looks hold together. Bounds are null before anything can be stated."""

    estimate = _number("null: nothing to compare yet.", known=False)
    low = _number(known=False)
    high = _number(known=False)


class CountedOut(EstimateOut):
    """How often an outcome happened: a count, and its rate a decision."""

    count = _count()


class ReportCountsOut(Shown):
    """Decisions of the period."""

    total = _count()
    recipients = _count()
    compared = _count("Live ones whose attribution windows had all passed at `as_of`, whatever was drawn.")
    windows_open = _count("Live ones that are not compared yet: something may still come of them.")
    next_closes_at = moment("When the next of these can be compared.", known=False)
    not_live = _count("Made in shadow, on the baseline only or while paused; never compared.")
    by_status = _counts("How they stand now.")


class ReportGroupOut(Shown):
    """What one group brought, by intention to treat: withheld and released decisions are in."""

    group = state(get_args(Group))
    configured_share = Number(
        "By the newest version of the campaign that decided in the period.", minimum=0, maximum=1, required=True
    )
    recipients = _count()
    decisions = _count()
    withheld = _count()
    messages = _count("Decisions for a message, whatever became of it.")
    compared = _count()
    value = _nested(EstimateOut, "Reward a compared decision, in the objective's unit, costs deducted.")
    money = _nested(
        EstimateOut,
        "The same in `currency`: values of outcomes that pay by value, less those that cost by it and costs. An order "
        "that names no decision is divided evenly over the recipient's decisions that it counts for.",
    )
    revenue = _number("Of the compared decisions, in `currency`.")
    cost = _number("Of the compared decisions, in `currency`.", least=0)
    outcomes = _table(CountedOut, "By outcome, over the compared decisions.")


class EvidenceOut(Shown):
    """As good as how many recipients of like worth had an outcome, in each of two groups."""

    treated = _number(least=0)
    control = _number(least=0)
    needed = _number("In each, before a lift is stated.", least=0)


class PowerOut(Shown):
    """What a comparison could show, and when."""

    detectable = _number("A lift of this size would be clear by now.", known=False, least=0)
    days_until_clear = Whole(
        "At the pace of the last week, for a lift of the size seen; null: not within ten years.",
        maximum=limits.POSITION,
        required=True,
        allow_none=True,
    )
    outcomes = _nested(EvidenceOut)


class TotalOut(EstimateOut):
    """What treated decisions brought more, all together."""

    decisions = _count("How many these are: those made while the control group was large enough to tell.")


class LiftOut(EstimateOut):
    """How much more a treated decision brings than one of the control group.

    Where shares of groups changed, groups are compared within each stretch of equal shares, and stretches weigh by what
    they tell, 1/(1/treated decisions + 1/control decisions).
    """

    base = _number("What a decision of the control group is worth, over the same stretches.")
    relative = _number(
        "The estimate over `base`; null where that is not above 0, and while `low` is null.", known=False
    )
    clear = state(("higher", "lower", "no"), "Whether the bounds exclude 0; no while `doubts` tell of two forms.")
    total = _nested(TotalOut, "Stretches weigh by their treated decisions. Without bounds: nobody can tell.")
    power = _nested(PowerOut)


class HarmOut(Shown):
    """How much more often a harm happens to the treated."""

    estimate = _number()
    low = _number()
    high = _number()
    clear = state(("higher", "lower", "no"))


class DoubtOut(Shown):
    """Why a comparison can't be believed."""

    outcome = Text("One that needs no message.", required=True)
    doubt = state(
        ("two_forms", "unseen"),
        "`two_forms`: some events name decisions and count for these alone, others only recipients and count for every "
        "open decision (see `forms`). `unseen`: those of the treated name decisions, and none of the holdout was "
        "reported. Report all of them by `recipient_id`.",
    )


class FormsOut(Shown):
    """How many events of compared decisions name what."""

    by_decision = _count("Events that name a decision.")
    by_recipient = _count("Events that name only the recipient, each once.")


class ReportedOut(Shown):
    """In which forms an outcome was reported."""

    outcome = Text(required=True)
    groups = _table(FormsOut, "By group.")


class ComparisonOut(Shown):
    """The treated against a control group."""

    control = state(("holdout", "random", "baseline"))
    compared = _count("Decisions of the control group.")
    value = _nested(LiftOut, "In the objective's unit; null: nothing to compare yet.", known=False)
    money = _nested(LiftOut, "In `currency`.", known=False)
    doubts = _list(DoubtOut, "Why it can't be believed; mostly empty.")
    harms = _table(HarmOut, "`unsubscribed` and `complained`, a decision.")


class GroupSizesOut(Shown):
    """Whether recipients fall into the groups as the shares say."""

    p_value = Number("Valid at any time of looking.", minimum=0, maximum=1, required=True)
    mismatch = Flag("Then recipients are lost unevenly, and no comparison can be trusted.", required=True)
    recipients = _counts("In each group.")
    expected = fields.Dict(keys=fields.String(), values=_number(least=0), required=True)


class RuleCountOut(Shown):
    """What a rule (or consent, suppression) masked."""

    rule_id = Id(required=True)
    kind = Text(required=True)
    dry_run = Flag("It only reported.", required=True)
    decisions = _count("In how many decisions it masked something: caps hit, quiet hours, …")
    withheld = _count("How many of these were withheld.")
    masked = _count("Actions masked, all decisions together.")


class BoundsOut(Shown):
    """Bounds of a rate."""

    low = Number(minimum=0, maximum=1, required=True)
    high = Number(minimum=0, maximum=1, required=True)


class FiguresOut(Shown):
    """What came of some compared decisions."""

    compared = _count()
    value = _nested(EstimateOut)
    outcomes = _counts("How often each happened.")
    harms = _table(BoundsOut, "Rates of `unsubscribed` and `complained`.")


class _PartOut(Shown):
    decisions = _count()
    treated = _nested(FiguresOut, "What the policy chose: what happened, not which is better.", known=False)
    random = _nested(FiguresOut, "What chance chose: rows may be compared.", known=False)


class VariantPartOut(_PartOut):
    """Decisions of one variant."""

    variant = Id("null: no message.", required=True, allow_none=True)


class ChannelPartOut(_PartOut):
    """Decisions of one channel."""

    channel = Id("null: no message.", required=True, allow_none=True)


class HourPartOut(Shown):
    """Messages to the treated that were planned for one local hour of the week."""

    weekday = state(WEEKDAYS)
    hour = Whole(maximum=23, required=True)
    compared = _count()
    value = _number("Mean reward.")
    outcomes = _counts("How often each happened.")


class ReportOut(Shown):
    """What a campaign brought. Counts are as of now, estimates as of the newest midnight UTC."""

    campaign_id = Id(required=True)
    currency = Text(required=True)
    since = moment("As asked.", known=False)
    until = moment("As asked.", known=False)
    generated_at = moment()
    as_of = moment("The look that estimates belong to.")
    level = Number(f"Of each estimate: {_LEVEL}.", minimum=0, maximum=1, required=True)
    summary = fields.List(Text(longest=10_000), required=True, metadata={"description": "The report in sentences."})
    decisions = _nested(ReportCountsOut)
    groups = _list(ReportGroupOut, "Groups that have decisions.")
    lifts = _list(ComparisonOut, "The treated against each control group, one without decisions included.")
    forms = _list(ReportedOut, "Outcomes of worth that need no message, as far as compared decisions had any.")
    group_sizes = _nested(GroupSizesOut)
    rules = _list(RuleCountOut, "What masked actions, the most often first.")
    by_variant = _list(VariantPartOut, "The most frequent first.")
    by_channel = _list(ChannelPartOut, "The most frequent first.")
    by_hour = _list(HourPartOut, "By local hour of the week; hours without messages are left out.")
