"""``sendtide init``: a guided start, from an empty database to a first decision and a first webhook."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from optimizer.cli.call import Call, command, option
from optimizer.cli.firststeps import Begun, Step, Wishes, begin, body_of, steps
from optimizer.cli.group import EXIT_CODES
from optimizer.first_start import key_path
from optimizer.service.starters import AIMS, HOLDOUT, VARIANTS, webhook_url

if TYPE_CHECKING:
    from storage.log import Decision

_VENDORS = ("standard", "sendgrid", "mailgun", "postmark", "ses", "twilio", "none")
#: What is asked for where nobody says otherwise.
_DEFAULTS = {"campaign": "first", "channels": "email", "aim": "clicks", "vendor": "standard"}
_AIM = {
    "clicks": "a click is worth 1",
    "orders": "an order is worth its amount",
    "opens": "an open is worth 1",
}


class _Parted(click.types.StringParamType):
    """A text. In a variable there may be several, between marks; click would part them at blanks."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """The parts of a variable's value."""
        return re.split(self._mark, rv)


@click.command(epilog=EXIT_CODES)
@option("--campaign", help=f"The campaign's id.  [default: {_DEFAULTS['campaign']}]")
@option(
    "--variant",
    "variants",
    multiple=True,
    type=_Parted(r"\|"),
    help="A message, as ID=TEXT or an ID alone; may be given several times (in the variable: split by |).  "
    f"[default: {', '.join(name for name, _ in VARIANTS)}, each with a text]",
)
@option(
    "--channel",
    "channels",
    multiple=True,
    type=_Parted(r"[,\s]+"),
    help="email, sms, push, …; may be given several times (in the variable: split by commas).  "
    f"[default: {_DEFAULTS['channels']}]",
)
@option("--aim", type=click.Choice(list(AIMS)), help=f"What the campaign is for.  [default: {_DEFAULTS['aim']}]")
@option(
    "--holdout",
    type=click.FloatRange(0, 0.5),
    help=f"Share of people who get nothing, to compare with.  [default: {HOLDOUT:g}]",
)
@option(
    "--vendor",
    type=click.Choice(_VENDORS),
    help=f"Who reports opens and clicks by webhook.  [default: {_DEFAULTS['vendor']}]",
)
@option(
    "--secret",
    help="What the vendor's webhooks are checked with: its key; of `ses` the ARN of the SNS topic that posts them. "
    "`standard` makes one.",
)
@option("--yes", is_flag=True, help="Ask nothing: what no flag says has its default.")
@command(settings=("bind", "public_url"))
def init(call: Call, *, yes: bool, **given: Any) -> None:
    """Start from nothing: a key, a first campaign, a first decision, a first webhook, and the commands to go on with.

    What is there already stays as it is, so it may be run again. The service need not run yet.
    """
    try:
        wishes = _wishes(call, given, asks=not yes and not call.as_json)
    except click.Abort:
        raise click.UsageError("stopped before the last answer; nothing was made. --yes takes the defaults") from None
    with call.services(create=True) as services:
        begun = begin(services, wishes)
    next_steps = steps(call.settings, wishes, begun)
    if call.as_json:
        call.answer(_answer(call, wishes, begun, next_steps))
        return
    for line in _lines(call, wishes, begun, next_steps):
        click.echo(line)


def _wishes(call: Call, given: dict[str, Any], *, asks: bool) -> Wishes:
    """What flags say, and where they don't what people answer, or the defaults."""
    if asks:
        click.echo("Five questions; Enter takes what stands in brackets.\n")

    def wish(name: str, question: str, default: str = "", kind: Any = None) -> Any:
        default = default or _DEFAULTS[name]
        if given[name] not in (None, ()):
            return given[name]
        return click.prompt(question, default=default, type=kind) if asks else default

    campaign = wish("campaign", "An id for the campaign")
    variants = wish(
        "variants",
        "Its messages, ID=TEXT or an ID alone, split by |",
        "|".join(f"{name}={text}" for name, text in VARIANTS),
    )
    channels = wish("channels", "Channels, split by commas")
    if asks and given["aim"] is None:
        click.echo("What is it for? " + "; ".join(f"{aim}: {what}" for aim, what in _AIM.items()))
    aim = wish("aim", "Aim", kind=click.Choice(list(AIMS)))
    vendor = wish("vendor", "Who reports opens and clicks to you", kind=click.Choice(_VENDORS))
    secret = given["secret"]
    if asks and secret is None and vendor not in ("standard", "none"):
        what = "The ARN of the SNS topic that posts" if vendor == "ses" else f"The key that {vendor} signs with"
        secret = click.prompt(f"{what} (empty: later)", default="", show_default=False)
    return Wishes(
        workspace=call.workspace,
        campaign=campaign,
        variants=tuple(_variant(one) for one in _split(variants, "|")),
        channels=tuple(_split(channels, ",")),
        aim=aim,
        holdout=HOLDOUT if given["holdout"] is None else given["holdout"],
        vendor=None if vendor == "none" else vendor,
        secret=secret or None,
        base=call.settings.public_url or f"http://{call.settings.bind}",
    )


def _split(text: str | Sequence[str], mark: str) -> list[str]:
    parts = text.split(mark) if isinstance(text, str) else text
    return [part.strip() for part in parts if part.strip()]


def _variant(text: str) -> tuple[str, str]:
    name, _, words = text.partition("=")
    return name.strip(), words.strip()


def _answer(call: Call, wishes: Wishes, begun: Begun, next_steps: Sequence[Step]) -> dict[str, Any]:
    decision, source = begun.decision, begun.source
    return {
        "key_file": str(key_path(call.settings, call.workspace)),
        "campaign": {"campaign_id": begun.campaign.campaign_id, "is_new": begun.is_new, "body": body_of(wishes)},
        "decision": {
            "decision_id": decision.decision_id,
            "recipient_id": decision.recipient_id,
            "status": decision.status,
            "variant_id": decision.variant_id,
            "channel": decision.channel,
            "send_at": decision.send_at,
            "propensity": decision.propensity,
        },
        "webhook": source
        and {
            "source_id": source.source_id,
            "url": webhook_url(wishes.base, source),
            "secret_file": begun.secret_file and str(begun.secret_file),
        },
        "guide": f"{wishes.base}/console/start",
        "next": [{"what": step.what, "command": step.command} for step in next_steps],
    }


def _lines(call: Call, wishes: Wishes, begun: Begun, next_steps: Sequence[Step]) -> list[str]:
    campaign = begun.campaign
    offered = ", ".join(variant.id for variant in campaign.active_variants)
    by = ", ".join(channel.id for channel in campaign.channels)
    made = "" if begun.is_new else " (was there already, and stays as it is)"
    lines = [
        "",
        click.style("There is now", bold=True),
        f"  a key       {key_path(call.settings, call.workspace)}, for everything; keep it secret",
        f"  a campaign  {campaign.campaign_id}{made}: {offered}; by {by}; "
        f"{campaign.groups.holdout:.0%} of people get nothing, to compare with",
        f"  a decision  {_told(begun.decision)}",
        *_webhook(wishes, begun),
        "",
        click.style("Go on with these, from this folder", bold=True),
    ]
    for number, step in enumerate(next_steps, 1):
        lines += ["", click.style(f"# {number}. {step.what}", fg="cyan"), step.command]
    guide = (
        f"Or go on in the browser: {wishes.base}/console/start, signed in with that key; it sees what is done already."
    )
    return [*lines, "", guide, f"All routes: {wishes.base}/docs, once the service runs."]


def _told(decision: Decision) -> str:
    if decision.variant_id is None or decision.send_at is None:
        reasons = ", ".join(sorted({reason.rule_id for reason in decision.reasons})) or decision.group
        return f"{decision.decision_id}: nothing for {decision.recipient_id} now ({decision.status}; {reasons})"
    return (
        f"{decision.decision_id}: {decision.variant_id} for {decision.recipient_id} (made up) by {decision.channel} "
        f"at {decision.send_at:%Y-%m-%d %H:%M} UTC, drawn with probability {decision.propensity:.3g}"
    )


def _webhook(wishes: Wishes, begun: Begun) -> list[str]:
    source = begun.source
    if source is not None:
        told = f"  a webhook   {webhook_url(wishes.base, source)} for {source.vendor} to call"
        if begun.secret_file is not None:
            return [f"{told}; its secret is in {begun.secret_file}"]
        return [told if begun.source_is_new else f"{told} (was there already; its secret is known only to who made it)"]
    if wishes.vendor is None:
        return ["  no webhook: report outcomes to /v1/events"]
    what = "TOPIC_ARN once you have the topic" if wishes.vendor == "ses" else "KEY once you have the key"
    return [f"  no webhook: run this again with --vendor {wishes.vendor} --secret {what}"]
