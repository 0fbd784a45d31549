"""From nothing to a first campaign, decision and webhook: what ``sendtide init`` makes, and how it goes on."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from optimizer.config import Settings
from optimizer.errors import Conflict
from optimizer.first_start import ensure_key, key_path, secret_path, write_secret
from optimizer.service.starters import (
    ask_command,
    campaign_body,
    confirm_command,
    event_command,
    main_outcome,
    report_command,
    signed_command,
    webhook_url,
)

if TYPE_CHECKING:
    from optimizer.service.wiring import Services
    from storage.log import Decision
    from storage.port import Reader
    from storage.records import Campaign
    from storage.webhooks import WebhookSource

#: Made-up people, the first of whom gets a message: a holdout would make a dull first decision.
_PEOPLE: Final = ("ada", "ben", "cleo", "dora", "emil", "fay", "gil", "hana")
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
    """What there is now. ``is_new``, ``source_is_new``: it was made, and wasn't there before. ``secret_file``: where a
    secret of the source lies; None = no file of ours has one."""

    campaign: Campaign
    is_new: bool
    decision: Decision
    source: WebhookSource | None
    source_is_new: bool
    secret_file: Path | None


def begin(services: Services, wishes: Wishes) -> Begun:
    """Makes what is missing: workspace, key, campaign, a first decision, a webhook source. Again, it changes nothing.

    Raises:
        Invalid: a wish that the API would refuse, too, in its words.
        Conflict: a webhook source is there that knows another secret than the one that is wished for.
    """
    from optimizer.service import setup

    setup.ensure_workspace(services, wishes.workspace)
    with services.store.read() as reader:
        known = reader.campaign(wishes.workspace, wishes.campaign)
        there = _known_source(reader, wishes)
    campaign = known or setup.put_campaign(services, _campaign(services, wishes))[0]
    ensure_key(services, wishes.workspace)
    decision = _first_decision(services, campaign)
    source = there or _new_source(services, wishes)
    secret_file = None if source is None else _secret_file(services.settings, source)
    return Begun(campaign, known is None, decision, source, there is None, secret_file)


def body_of(wishes: Wishes) -> dict[str, Any]:
    """The campaign as ``PUT /v1/campaigns/{campaign_id}`` takes it."""
    return campaign_body(wishes.variants, wishes.channels, wishes.aim, wishes.holdout)


def _campaign(services: Services, wishes: Wishes) -> Campaign:
    from optimizer.web.schemas.body import Body
    from optimizer.web.schemas.campaigns import CampaignIn, campaign_of
    from optimizer.web.schemas.fields import Id
    from optimizer.web.validation import load

    load(Body.from_dict({"campaign": Id(addressed=True)})(), {"campaign": wishes.campaign})
    loaded = load(CampaignIn(), body_of(wishes))
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


def _known_source(reader: Reader, wishes: Wishes) -> WebhookSource | None:
    """Where the vendor reports to already: it stays as it is, so a secret that is wished for must be one of its own."""
    known = [one for one in reader.webhook_sources(wishes.workspace) if one.vendor == wishes.vendor]
    if not known or wishes.secret is None:
        return known[0] if known else None
    found = next((one for one in known if wishes.secret in (*one.secrets, *one.topic_arns)), None)
    if found is not None:
        return found
    what = "topic" if wishes.vendor == "ses" else "secret"
    address = f"/v1/webhook-sources/{known[0].source_id}"
    raise Conflict(
        f"secret: the webhook source {known[0].source_id!r} for {wishes.vendor} was made with another {what} and stays "
        f"as it is; leave --secret out to go on with it, or PUT {address} with the new {what}",
        code="other_secret",
    )


def _new_source(services: Services, wishes: Wishes) -> WebhookSource | None:
    """Where the vendor is to report to; None where it needs a secret that nobody has told yet."""
    from optimizer.service.beginnings import new_secret, new_source

    if wishes.vendor is None:
        return None
    own = new_secret("standard") if wishes.vendor == "standard" and wishes.secret is None else None
    secret = own or wishes.secret
    if secret is None:
        return None
    kind: Any = wishes.vendor
    # Whoever has a topic can have Amazon sign for it: what SES is known by is its topic.
    secrets, topics = ((), (secret,)) if kind == "ses" else ((secret,), ())
    made = new_source(services, wishes.workspace, kind, secrets, topics)
    if own is not None:
        write_secret(webhook_path(services.settings, wishes.workspace), own)
    return made


def _secret_file(settings: Settings, source: WebhookSource) -> Path | None:
    """The file with a secret of a Standard Webhooks source, if there is one: whoever made the source by the API, or
    gave a secret of their own, has it elsewhere."""
    path = webhook_path(settings, source.workspace_id)
    if source.vendor != "standard" or not path.exists():
        return None
    return path if path.read_text(encoding="utf-8").strip() in source.secrets else None


def webhook_path(settings: Settings, workspace_id: str) -> Path:
    """Where the secret of a workspace's first Standard Webhooks source lies: beside the first key."""
    return secret_path(settings, WEBHOOK_FILE, workspace_id)


@dataclass(frozen=True)
class Step:
    """One thing to do next: what for, and the shell command."""

    what: str
    command: str


def steps(settings: Settings, wishes: Wishes, begun: Begun) -> list[Step]:
    """How to go on, in order; each runs as it stands in the folder that ``init`` ran in."""
    key, campaign = shlex.quote(str(key_path(settings, wishes.workspace))), begun.campaign.campaign_id
    auth = f'-H "Authorization: Bearer $(cat {key})"'
    base, decision, source = wishes.base, begun.decision.decision_id, begun.source
    found = [
        Step(
            "Start the service in another terminal, unless it runs already",
            f"{program()} serve --bind {shlex.quote(settings.bind)} --database {shlex.quote(settings.database)}",
        ),
        Step(
            "Ask what to send to whom, and when (any recipient_id of yours)",
            ask_command(base, auth, campaign, "customer-1"),
        ),
        Step(
            "Tell that the first message went out (your sender does this after each send)",
            confirm_command(base, auth, decision),
        ),
        Step("Tell what came of it", event_command(base, auth, begun.campaign, decision)),
    ]
    if source is not None and begun.secret_file is not None:
        secret = f"cat {shlex.quote(str(begun.secret_file))}"
        signed = signed_command(webhook_url(base, source), secret, main_outcome(begun.campaign), decision)
        found.append(Step("Or let whoever sends tell by a signed webhook", signed))
    return [
        *found,
        Step(
            "Read what the campaign has brought (the first lift needs some 50 outcomes in each group)",
            report_command(base, auth, campaign),
        ),
    ]


def program() -> str:
    """How this program was called, where that is ``sendtide`` or a path to it."""
    called = Path(sys.argv[0])
    return shlex.quote(str(called)) if called.name == "sendtide" else "sendtide"
