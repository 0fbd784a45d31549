"""What a first campaign is made of, and the shell commands of the first steps, with the real ids in them.

Shared by ``sendtide init`` and the console's guided start; it imports nothing that takes time.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import orjson

if TYPE_CHECKING:
    from storage.records import Campaign, OutcomeWeight
    from storage.webhooks import WebhookSource

#: What a campaign is for -> what outcomes are worth. One unsubscribe costs as much as twenty clicks bring.
AIMS: Final[dict[str, dict[str, Any]]] = {
    "clicks": {"opened": 0.1, "clicked": 1.0, "unsubscribed": -20.0},
    "orders": {"clicked": 0.1, "converted": {"per_value": 1.0, "max_value": 500.0}, "unsubscribed": -20.0},
    "opens": {"opened": 1.0, "unsubscribed": -20.0},
}
#: The messages that a first campaign starts from.
VARIANTS: Final = (("hello", "Good to have you here."), ("tips", "Three tips to start with."))
HOLDOUT: Final = 0.1
#: Where the shell is to put the time.
_NOW: Final = "@now@"
#: What an order is worth in an example.
_ORDER: Final = 39.5


def campaign_body(
    variants: Sequence[tuple[str, str]], channels: Sequence[str], aim: str, holdout: float
) -> dict[str, Any]:
    """A campaign as ``PUT /v1/campaigns/{campaign_id}`` takes it. ``variants`` are (id, text)."""
    return {
        "variants": [{"id": name, **({"text": text} if text else {})} for name, text in variants],
        "channels": list(channels),
        "objective": AIMS[aim],
        "groups": {"holdout": holdout, "random": 0.05},
    }


def webhook_url(base: str, source: WebhookSource) -> str:
    """The address that the vendor calls."""
    return f"{base}/v1/webhooks/{source.vendor}/{quote(source.source_id, safe='')}"


# --- Commands. ``auth`` is the part of a curl that holds the key.


def ask_command(base: str, auth: str, campaign_id: str, recipient_id: str, consents: Sequence[str] = ()) -> str:
    """Asks what to send. ``consents`` are the channels that need a recorded yes, which is told along."""
    told = {"recipient": {"channels": {name: {"state": True} for name in consents}}} if consents else {}
    body = {"campaign_id": campaign_id, "recipient_id": recipient_id, **told}
    return post_command(base, "/v1/decisions", auth, body)


def confirm_command(base: str, auth: str, decision_id: str) -> str:
    """Tells that the message went out."""
    return post_command(base, f"/v1/decisions/{quote(decision_id, safe='')}/confirm", auth, {})


def event_command(base: str, auth: str, campaign: Campaign, decision_id: str) -> str:
    """Tells what came of it: what the campaign is mostly about."""
    event = {"decision_id": decision_id, "type": main_outcome(campaign), "occurred_at": _NOW, **_value(campaign)}
    return post_command(base, "/v1/events", auth, {"events": [event]})


def report_command(base: str, auth: str, campaign_id: str) -> str:
    """Reads the report."""
    path = f"/v1/campaigns/{quote(campaign_id, safe='')}/report"
    return f"curl -s {shlex.quote(base + path)} {auth}"


def signed_command(url: str, secret: str, outcome: str, decision_id: str) -> str:
    """A Standard Webhooks delivery, signed in the shell: HMAC-SHA256 of ``id.time.body`` by the secret's bytes.

    ``secret`` is a piece of shell that prints the secret.
    """
    body = orjson.dumps({"type": f"message.{outcome}", "data": {"sendtide_decision_id": decision_id}}).decode()
    return "\n".join(
        (
            f"body={shlex.quote(body)}",
            f"now=$(date +%s); key=$({secret} | cut -c7- | base64 -d | od -An -v -tx1 | tr -d ' \\n')",
            'made=$(printf %s "msg_1.$now.$body" |',
            "  openssl dgst -sha256 -mac HMAC -macopt hexkey:$key -binary | base64)",
            f"curl -s {shlex.quote(url)} \\",
            '  -H "webhook-id: msg_1" -H "webhook-timestamp: $now" -H "webhook-signature: v1,$made" \\',
            "  -H 'Content-Type: application/json' -d \"$body\"",
        )
    )


def post_command(base: str, path: str, auth: str, body: Mapping[str, Any]) -> str:
    """A curl that posts a body, for a shell to run."""
    told = shlex.quote(orjson.dumps(body).decode()).replace(_NOW, "'$(date -u +%FT%TZ)'")
    return f"curl -s {shlex.quote(base + path)} {auth} \\\n  -H 'Content-Type: application/json' -d {told}"


def main_outcome(campaign: Campaign) -> str:
    """The outcome that a campaign is mostly about: the one that is worth most."""
    return max(campaign.objective, key=lambda name: _worth(campaign.objective[name]))


def _worth(weight: OutcomeWeight) -> float:
    return weight.fixed + weight.per_value * _ORDER


def _value(campaign: Campaign) -> dict[str, float]:
    return {"value": _ORDER} if campaign.objective[main_outcome(campaign)].per_value else {}
