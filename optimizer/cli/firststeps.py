"""From nothing to a first campaign, decision and webhook: what ``sendtide init`` makes, and how it goes on."""

from __future__ import annotations

import base64
import secrets
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import orjson

from optimizer.config import Settings
from optimizer.first_start import ensure_key, key_path, write_secret

if TYPE_CHECKING:
    from optimizer.service.wiring import Services
    from storage.log import Decision
    from storage.records import Campaign
    from storage.webhooks import WebhookSource

#: What a campaign is for -> what outcomes are worth. One unsubscribe costs as much as twenty clicks bring.
AIMS: Final[dict[str, dict[str, Any]]] = {
    "clicks": {"opened": 0.1, "clicked": 1.0, "unsubscribed": -20.0},
    "orders": {"clicked": 0.1, "converted": {"per_value": 1.0, "max_value": 500.0}, "unsubscribed": -20.0},
    "opens": {"opened": 1.0, "unsubscribed": -20.0},
}
#: The event that each aim is about.
_EVENT: Final = {"clicks": "clicked", "orders": "converted", "opens": "opened"}
#: Made-up people, the first of whom gets a message: a holdout would make a dull first decision.
_PEOPLE: Final = ("ada", "ben", "cleo", "dora", "emil", "fay", "gil", "hana")
#: Where the shell is to put the time.
_NOW: Final = "@now@"
WEBHOOK_FILE: Final = "webhook-secret"


@dataclass(frozen=True)
class Wishes:
    """What was asked for.

    ``variants`` are (id, text); ``vendor`` None = no webhook; ``base`` is the address that the service listens on.
    """

    workspace: str
    campaign: str
    variants: tuple[tuple[str, str], ...]
    channels: tuple[str, ...]
    aim: str
    holdout: float
    vendor: str | None
    secret: str | None
    base: str


@dataclass(frozen=True)
class Begun:
    """What there is now. ``is_new``: the campaign was made, and wasn't there before."""

    campaign: Campaign
    is_new: bool
    decision: Decision
    source: WebhookSource | None


def begin(services: Services, wishes: Wishes) -> Begun:
    """Makes what is missing: workspace, key, campaign, a first decision, a webhook source. Again, it changes nothing.

    Raises:
        Invalid: a wish that the API would refuse, too, in its words.
    """
    from optimizer.service import setup

    setup.ensure_workspace(services, wishes.workspace)
    with services.store.read() as reader:
        known = reader.campaign(wishes.workspace, wishes.campaign)
    campaign = known or setup.put_campaign(services, _campaign(services, wishes))[0]
    ensure_key(services, wishes.workspace)
    return Begun(campaign, known is None, _first_decision(services, campaign), _source(services, wishes))


def campaign_body(wishes: Wishes) -> dict[str, Any]:
    """The campaign as ``PUT /v1/campaigns/{campaign_id}`` takes it."""
    return {
        "variants": [{"id": name, **({"text": text} if text else {})} for name, text in wishes.variants],
        "channels": list(wishes.channels),
        "objective": AIMS[wishes.aim],
        "groups": {"holdout": wishes.holdout, "random": 0.05},
    }


def _campaign(services: Services, wishes: Wishes) -> Campaign:
    from optimizer.web.schemas.body import Body
    from optimizer.web.schemas.campaigns import CampaignIn, campaign_of
    from optimizer.web.schemas.fields import Id
    from optimizer.web.validation import load

    load(Body.from_dict({"campaign": Id()})(), {"campaign": wishes.campaign})
    loaded = load(CampaignIn(), campaign_body(wishes))
    now = services.clock()
    return campaign_of(loaded, workspace_id=wishes.workspace, campaign_id=wishes.campaign, now=now)


def _first_decision(services: Services, campaign: Campaign) -> Decision:
    """A decision for the first made-up person who gets a message; the same one whenever this is asked."""
    from optimizer.service.requests import DecisionRequest, RecipientPatch
    from storage.records import Consent

    told = RecipientPatch(channels={channel.id: Consent(True, "example") for channel in campaign.channels})

    def asked(person: str, *, preview: bool) -> Decision:
        name = f"first-{campaign.campaign_id}-{person}"
        request = DecisionRequest(campaign.campaign_id, person, request_id=name, recipient=told, preview=preview)
        return services.decider.decide(campaign.workspace_id, request)[0]

    person = next((one for one in _PEOPLE if asked(one, preview=True).variant_id is not None), _PEOPLE[0])
    return asked(person, preview=False)


def _source(services: Services, wishes: Wishes) -> WebhookSource | None:
    """Where the vendor reports to; one that is there already stays as it is."""
    from optimizer.service.sources import put_source
    from storage.webhooks import WebhookSource

    if wishes.vendor is None:
        return None
    with services.store.read() as reader:
        known = [one for one in reader.webhook_sources(wishes.workspace) if one.vendor == wishes.vendor]
    if known:
        return known[0]
    own = wishes.vendor == "standard" and wishes.secret is None
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode() if own else wishes.secret
    if secret is None:
        return None
    name = f"hooks-{secrets.token_hex(4)}"
    kind: Any = wishes.vendor
    made, _ = put_source(services, WebhookSource(wishes.workspace, name, kind, secrets=(secret,)))
    if own:
        write_secret(webhook_path(services.settings), secret)
    return made


def webhook_path(settings: Settings) -> Path:
    """Where the secret of the first Standard Webhooks source lies: beside the first key."""
    return key_path(settings).with_name(WEBHOOK_FILE)


def webhook_url(base: str, source: WebhookSource) -> str:
    """The address that the vendor calls."""
    return f"{base}/v1/webhooks/{source.vendor}/{quote(source.source_id, safe='')}"


@dataclass(frozen=True)
class Step:
    """One thing to do next: what for, and the shell command."""

    what: str
    command: str


def steps(settings: Settings, wishes: Wishes, begun: Begun) -> list[Step]:
    """How to go on, in order; each runs as it stands in the folder that ``init`` ran in."""
    key, campaign = shlex.quote(str(key_path(settings))), begun.campaign.campaign_id
    auth = f'-H "Authorization: Bearer $(cat {key})"'
    base, named = wishes.base, quote(campaign, safe="")
    decision = begun.decision.decision_id
    found = [
        Step(
            "Start the service in another terminal, unless it runs already",
            f"{program()} serve --bind {shlex.quote(settings.bind)} --database {shlex.quote(settings.database)}",
        ),
        Step(
            "Ask what to send to whom, and when (any recipient_id of yours)",
            _post(base, "/v1/decisions", auth, {"campaign_id": campaign, "recipient_id": "customer-1"}),
        ),
        Step(
            "Tell that the first message went out (your sender does this after each send)",
            _post(base, f"/v1/decisions/{decision}/confirm", auth, {}),
        ),
        Step("Tell what came of it", _post(base, "/v1/events", auth, {"events": [_event(wishes.aim, decision)]})),
    ]
    if begun.source is not None and begun.source.vendor == "standard":
        found.append(Step("Or let whoever sends tell by a signed webhook", _signed(settings, wishes, begun)))
    return [
        *found,
        Step(
            "Read what the campaign has brought (the first lift needs some 50 outcomes in each group)",
            f"curl -s {base}/v1/campaigns/{named}/report {auth}",
        ),
    ]


def program() -> str:
    """How this program was called, where that is ``sendtide`` or a path to it."""
    called = Path(sys.argv[0])
    return shlex.quote(str(called)) if called.name == "sendtide" else "sendtide"


def _post(base: str, path: str, auth: str, body: dict[str, Any]) -> str:
    told = shlex.quote(orjson.dumps(body).decode()).replace(_NOW, "'$(date -u +%FT%TZ)'")
    return f"curl -s {base}{path} {auth} \\\n  -H 'Content-Type: application/json' -d {told}"


def _event(aim: str, decision_id: str) -> dict[str, Any]:
    value = {"value": 39.5} if aim == "orders" else {}
    return {"decision_id": decision_id, "type": _EVENT[aim], "occurred_at": _NOW, **value}


def _signed(settings: Settings, wishes: Wishes, begun: Begun) -> str:
    """A Standard Webhooks delivery, signed in the shell: HMAC-SHA256 of ``id.time.body`` by the secret's bytes."""
    if begun.source is None:
        return ""
    data = {"sendtide_decision_id": begun.decision.decision_id}
    body = orjson.dumps({"type": f"message.{_EVENT[wishes.aim]}", "data": data}).decode()
    file = shlex.quote(str(webhook_path(settings)))
    return "\n".join(
        (
            f"body={shlex.quote(body)}",
            f"now=$(date +%s); key=$(cut -c7- {file} | base64 -d | od -An -v -tx1 | tr -d ' \\n')",
            'made=$(printf %s "msg_1.$now.$body" |',
            "  openssl dgst -sha256 -mac HMAC -macopt hexkey:$key -binary | base64)",
            f"curl -s {webhook_url(wishes.base, begun.source)} \\",
            '  -H "webhook-id: msg_1" -H "webhook-timestamp: $now" -H "webhook-signature: v1,$made" \\',
            "  -H 'Content-Type: application/json' -d \"$body\"",
        )
    )
