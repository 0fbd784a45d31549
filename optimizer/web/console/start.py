"""The guided start: from nothing to a first campaign, a first decision and a first webhook; it sees what is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, get_args
from urllib.parse import urlsplit

from flask import Response, request

from optimizer.bandit.consent import CONSENT_CHANNELS
from optimizer.errors import Invalid
from optimizer.first_start import EXAMPLE
from optimizer.service import setup, starters
from optimizer.service.beginnings import Progress, new_secret, new_source, progress
from optimizer.web.console.pages import Visit, console, holder, note, see
from optimizer.web.schemas.body import Body
from optimizer.web.schemas.campaigns import CampaignIn, campaign_of
from optimizer.web.schemas.fields import Id
from optimizer.web.schemas.webhooks import SourceIn
from optimizer.web.validation import load
from storage.webhooks import Vendor, WebhookSource

_REFRESH_SECONDS = 3
#: Channels to tick; others are typed.
CHANNELS: Final = ("email", "push", "sms")
HOLDOUTS: Final = (0.0, 0.05, 0.1, 0.2)
#: Rows for messages in the form.
ROWS: Final = 4
VENDORS: Final[tuple[Vendor, ...]] = get_args(Vendor)
#: Vendors that sign with a secret of their own, which is typed in.
THEIRS: Final = ("sendgrid", "mailgun", "twilio")
#: How the commands name the key, which a person's shell asks them for, without showing it. No name begins as settings'
#: names do: exported, one that is no setting keeps every command from starting.
_AUTH: Final = '-H "Authorization: Bearer $KEY"'
_ASK_KEY: Final = "printf 'Key: '; read -rs KEY; echo"
_ASK_SECRET: Final = "printf 'Secret: '; read -rs SECRET; echo"  # noqa: S105  it asks for one
_LONGEST: Final = 4096


class _NameIn(Body):
    """The name of a new campaign."""

    campaign_id = Id(addressed=True, required=True)


_NAME, _CAMPAIGN, _SOURCE = _NameIn(), CampaignIn(), SourceIn()


@dataclass(frozen=True)
class Typed:
    """The campaign's form as it was typed."""

    campaign_id: str = "first"
    rows: tuple[tuple[str, str], ...] = starters.VARIANTS
    channels: tuple[str, ...] = ("email",)
    others: str = ""
    aim: str = "clicks"
    holdout: str = str(starters.HOLDOUT)

    @classmethod
    def of(cls, form: Mapping[str, str], channels: Sequence[str]) -> Typed:
        """What a form says."""
        rows = tuple((form.get(f"id{n}", "").strip(), form.get(f"text{n}", "").strip()) for n in range(ROWS))
        named = (form.get(name, "").strip()[:_LONGEST] for name in ("campaign_id", "others", "aim", "holdout"))
        campaign_id, others, aim, holdout = named
        return cls(campaign_id, rows, tuple(channels), others, aim, holdout)

    @property
    def places(self) -> list[int]:
        """Which rows of the form are messages."""
        return [n for n, (name, text) in enumerate(self.rows) if name or text]

    def body(self) -> dict[str, Any]:
        """The campaign as the API takes it.

        Raises:
            Invalid: an aim or a share that the form doesn't offer.
        """
        if self.aim not in starters.AIMS:
            raise Invalid.field("aim", f"{self.aim[:80]!r} is not one of {', '.join(starters.AIMS)}")
        if self.holdout not in map(str, HOLDOUTS):
            raise Invalid.field("holdout", f"{self.holdout[:80]!r} is not one of {', '.join(map(str, HOLDOUTS))}")
        others = [one.strip() for one in self.others.split(",") if one.strip()]
        variants = [self.rows[n] for n in self.places]
        channels = [*(one for one in CHANNELS if one in self.channels), *others]
        return starters.campaign_body(variants, channels, self.aim, float(self.holdout))

    def beside(self, errors: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """The API's errors under the fields of the form: its paths count messages, the form has rows."""
        found: dict[str, list[str]] = {}
        for path, messages in errors.items():
            parts = path.split(".")
            field = parts[0]
            if field == "variants" and len(parts) > 1 and parts[1].isdecimal() and int(parts[1]) < len(self.places):
                field = f"{'text' if parts[-1] == 'text' else 'id'}{self.places[int(parts[1])]}"
            elif field == "groups":
                field = "holdout"
            found.setdefault(field, []).extend(messages)
        return found


@console.page("/start")
def start(visit: Visit) -> Response:
    """The steps, with what is done of them."""
    return _shown(visit, Typed())


@console.action("/start/campaign")
def make_campaign(visit: Visit) -> Response:
    """Makes the campaign of the form; one that is there stays as it is."""
    typed = Typed.of(request.form, request.form.getlist("channels"))
    errors: dict[str, Sequence[str]] = {}
    loaded: dict[str, Any] = {}
    # All that is wrong is said at once.
    try:
        _require_free(visit, typed.campaign_id)
    except Invalid as fault:
        errors |= fault.errors
    try:
        loaded = load(_CAMPAIGN, typed.body())
    except Invalid as fault:
        errors |= fault.errors
    if errors:
        return _shown(visit, typed, 422, errors=typed.beside(errors))
    made = campaign_of(loaded, workspace_id=visit.workspace_id, campaign_id=typed.campaign_id, now=visit.now)
    setup.put_campaign(visit.services, made, 0)
    note(campaign_id=made.campaign_id)
    return see("start", campaign=made.campaign_id, done="campaign")


def _require_free(visit: Visit, campaign_id: str) -> None:
    """Raises ``Invalid`` unless a campaign can be made under this name."""
    load(_NAME, {"campaign_id": campaign_id})
    with visit.services.store.read() as reader:
        known = reader.campaign(visit.workspace_id, campaign_id)
    if known is not None:
        raise Invalid.field("campaign_id", f"there is a campaign {campaign_id!r} already; choose another name")


@console.action("/start/webhook")
def make_source(visit: Visit) -> Response:
    """Makes a webhook source and shows its address, and the secret where it is one of ours, on the answer alone."""
    vendor = request.form.get("vendor", "")
    given = request.form.get("secret", "").strip()[:_LONGEST]
    own = new_secret(vendor)
    secrets = [own] if own is not None else [given] if given and vendor != "ses" else []
    topics = [given] if given and vendor == "ses" else []
    try:
        loaded = load(_SOURCE, {"vendor": vendor, "secrets": secrets, "topic_arns": topics})
        made = new_source(visit.services, visit.workspace_id, loaded["vendor"], loaded["secrets"], loaded["topic_arns"])
    except Invalid as fault:
        wrong = [one for path, messages in fault.errors.items() if path != "vendor" for one in messages]
        faults = {"vendor": list(fault.errors.get("vendor", ())), "secret": wrong}
        return _shown(visit, Typed(), 422, vendor=vendor, vendor_errors=faults)
    note(source_id=made.source_id)
    with visit.services.store.read() as reader:
        found = progress(visit.services, reader, visit.workspace_id, None, visit.now)
    return visit.show(
        "source_made.html",
        source=made,
        url=starters.webhook_url(_base(), made),
        local=_is_local(),
        secret=own,
        pair=own.partition(":")[::2] if own is not None and vendor == "postmark" else None,
        commands=_signed(found, made) if vendor == "standard" else {},
    )


def _shown(
    visit: Visit,
    typed: Typed,
    status: int = 200,
    *,
    errors: Mapping[str, Sequence[str]] | None = None,
    vendor: str = "standard",
    vendor_errors: Mapping[str, Sequence[str]] | None = None,
) -> Response:
    with visit.services.store.read() as reader:
        found = progress(visit.services, reader, visit.workspace_id, request.args.get("campaign"), visit.now)
    done = _done(found)
    if done["campaign"] and typed == Typed():
        typed = Typed(campaign_id="")
    return visit.show(
        "start.html",
        status,
        # The answer to a form has no address of its own that could be loaded anew.
        refresh_seconds=_REFRESH_SECONDS if status == HTTPStatus.OK else None,
        found=found,
        done=done,
        finished=sum(done.values()),
        next_step=next((name for name, is_done in done.items() if not is_done), None),
        commands=_commands(found),
        typed=typed,
        rows=[*typed.rows, *((("", ""),) * (ROWS - len(typed.rows)))],
        errors=errors or {},
        vendor=vendor,
        vendor_errors=vendor_errors or {},
        known_channels=CHANNELS,
        holdouts=HOLDOUTS,
        aims=tuple(starters.AIMS),
        vendors=VENDORS,
        theirs=THEIRS,
        base=_base(),
        local=_is_local(),
        url_of=lambda source: starters.webhook_url(_base(), source),
        outcome=None if found.campaign is None else starters.main_outcome(found.campaign),
        made=request.args.get("done") == "campaign",
        example=_is_example(found),
        retrain_minutes=visit.services.settings.retrain_minutes,
    )


def _done(found: Progress) -> dict[str, bool]:
    """The steps, in order."""
    return {
        "campaign": found.own,
        "decision": found.decided,
        "event": found.answered or found.event is not None,
        "source": bool(found.heard),
        "heard": any(one.events for one in found.heard),
    }


def _is_example(found: Progress) -> bool:
    """Whether the campaign is the one that the first start makes."""
    return found.campaign is not None and found.campaign.campaign_id == EXAMPLE


def _commands(found: Progress) -> dict[str, str]:
    """What is to be pasted into a shell, by what it is for."""
    base, told = _base(), {"key": _ASK_KEY}
    if found.campaign is None:
        return told
    consents = [channel.id for channel in found.campaign.channels if channel.id in CONSENT_CHANNELS]
    told["ask"] = starters.ask_command(base, _AUTH, found.campaign.campaign_id, found.person, consents)
    if found.decision is not None:
        told["confirm"] = starters.confirm_command(base, _AUTH, found.decision.decision_id)
        told["event"] = starters.event_command(base, _AUTH, found.campaign, found.decision.decision_id)
        told |= _signed(found, next((one.sources[0] for one in found.heard if one.vendor == "standard"), None))
    return told


def _signed(found: Progress, source: WebhookSource | None) -> dict[str, str]:
    """A webhook as its sender would call it; nothing while there is no decision that it could name, or no source."""
    if source is None or found.campaign is None or found.decision is None:
        return {}
    url, outcome = starters.webhook_url(_base(), source), starters.main_outcome(found.campaign)
    signed = starters.signed_command(url, 'printf %s "$SECRET"', outcome, found.decision.decision_id)
    return {"secret": _ASK_SECRET, "signed": signed}


def _base() -> str:
    """The address of the service: what it was told that others see, else what this browser sees."""
    return holder().settings.public_url or request.host_url.rstrip("/")


def _is_local() -> bool:
    """Whether no vendor could reach that address."""
    return urlsplit(_base()).hostname in ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104  nothing is bound
