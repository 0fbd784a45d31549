"""What is understood of each vendor, as the tables of ``docs/webhooks.md``; a test compares them with that page."""

from __future__ import annotations

from collections.abc import Iterator

from optimizer.service.webhooks.delivery import Meaning, Understood
from optimizer.service.webhooks.machines import CONFIDENCE
from optimizer.service.webhooks.vendors import VENDORS

#: Where each vendor names the event, and where what may betray a machine stands.
FIELDS = {
    "sendgrid": ("event", "`sg_machine_open`, `useragent`, `ip`, `url`"),
    "mailgun": ("event", "`client-info.bot`, `client-info.user-agent`, `ip`, `url`"),
    "postmark": ("RecordType", "`UserAgent`, `Geo.IP`, `OriginalLink`"),
    "ses": ("eventType or notificationType", "`userAgent`, `ipAddress`, `link`"),
    "twilio": ("MessageStatus", "nothing does"),
    "standard": ("type", "`data.automated`, `data.user_agent`, `data.ip`, `data.url`, `data.method`"),
}
_JUDGED = {"opened", "clicked"}


def vendor_table(understood: Understood) -> str:
    """One vendor's table."""
    event, signs = FIELDS[understood.vendor]
    return "\n".join(
        (
            f"| `{event}` | narrowed by | our outcome | by a machine? |",
            "| --- | --- | --- | --- |",
            *(_row(one, signs, understood.vendor) for one in understood.meanings),
        )
    )


def rule_table() -> str:
    """The rules by which machines are told from people, with how sure each is."""
    rows = (f"| `{rule}` | {confidence:g} |" for rule, confidence in CONFIDENCE.items())
    return "\n".join(("| rule | confidence |", "| --- | --- |", *rows))


def tables() -> Iterator[str]:
    """All of them, in the order of the page."""
    for module in VENDORS.values():
        yield vendor_table(module.understood)
    yield rule_table()


def _row(one: Meaning, signs: str, vendor: str) -> str:
    outcome = one.outcome
    if outcome == "bounced":
        outcome += ", hard" if one.hard else ", soft"
    if one.opted_out:
        outcome += " (opted out before)"
    if one.refuses is not None:
        outcome += f", refuses the {one.refuses}"
    narrowed = f"`{one.where}`: {one.value}" if one.where else ""
    judged = f"judged by {signs} and time" if one.outcome in _JUDGED and vendor != "twilio" else ""
    return f"| {one.event} | {narrowed} | {outcome} | {judged} |"
