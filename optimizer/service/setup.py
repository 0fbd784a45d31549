"""Set-up: workspaces, keys, campaigns, rules, recipients, attributes. Each call is one transaction."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import get_args

from optimizer.errors import Invalid, NotFound, Unauthenticated
from optimizer.service import recipients as people
from optimizer.service.cells import ID_LENGTH, NAME_ALLOWED, is_name
from optimizer.service.currencies import require_one_currency, require_same_currency
from optimizer.service.erased import graves
from optimizer.service.ids import fresh
from optimizer.service.keyring import hash_secret
from optimizer.service.newrules import require_sound
from optimizer.service.optout import revoke_withdrawn
from optimizer.service.versions import check_version
from optimizer.service.wiring import Services
from storage.port import Reader, Writer
from storage.records import ApiKey, Attribute, Campaign, Mode, Recipient, Scope, Variant, Workspace
from storage.rules import Capacity, QuietHours, Rule, RuleParameters, Selector

#: Variants of one campaign, archived ones included. Each version of a campaign keeps them all, and a decision looks
#: through them: one took 2.9 ms with 500 and 3.6 with 5,000 (SQLite), and a GET answers 761 kB.
VARIANTS_EVER = 5_000
SCOPES: tuple[Scope, ...] = get_args(Scope)
#: The rule that a new workspace starts with: no text messages or pushes at night.
DEFAULT_QUIET_HOURS = "default-quiet-hours"


def ensure_workspace(services: Services, workspace_id: str) -> Workspace:
    """The workspace of that id, made with its default rule when it is new.

    Raises:
        Invalid: it is new and can't be an id.
    """

    def work(writer: Writer) -> Workspace:
        known = writer.workspace(workspace_id)
        if known is not None:
            return known
        made = Workspace(workspace_id=workspace_id, name=workspace_id, mode="live", created_at=services.clock())
        writer.put_workspace(made)
        writer.put_rule(
            Rule(
                workspace_id=workspace_id,
                rule_id=DEFAULT_QUIET_HOURS,
                kind="quiet_hours",
                parameters=QuietHours(start="21:00", end="08:00"),
                applies_to=Selector(channels=("sms", "push")),
                counts=Selector(channels=("sms", "push")),
                updated_at=made.created_at,
            )
        )
        return made

    with services.store.read() as reader:
        known = reader.workspace(workspace_id)
    if known is not None:
        return known
    if not is_name(workspace_id):
        raise Invalid.field("workspace", f"{workspace_id!r:.80} must be {NAME_ALLOWED}")
    return services.store.write(work)


def set_mode(services: Services, workspace_id: str, mode: Mode, if_match: int | None = None) -> Workspace:
    """Sets the switch over all campaigns of the workspace."""
    now = services.clock()

    def work(writer: Writer) -> Workspace:
        known = writer.workspace(workspace_id)
        if known is None:
            raise NotFound(f"no workspace {workspace_id!r}")
        check_version("workspace", workspace_id, known.version, if_match)
        since = known.mode_since if mode == known.mode else now
        changed = replace(known, mode=mode, mode_since=since, version=known.version + 1)
        writer.put_workspace(changed)
        return changed

    return services.store.write(work)


def create_key(services: Services, workspace_id: str, name: str, scopes: Sequence[str]) -> tuple[ApiKey, str]:
    """Makes a key; the secret is returned here and nowhere else, only its hash is stored.

    Raises:
        Invalid: its name, its scopes or the id of a new workspace can't be these.
    """
    if not 1 <= len(name) <= ID_LENGTH or not name.isprintable() or not name.strip():
        allowed = f"a string of 1 to {ID_LENGTH} characters, all of them printable and not only spaces"
        raise Invalid.field("name", f"{name!r:.80} must be {allowed}")
    unknown = [s for s in scopes if s not in SCOPES]
    if unknown or not scopes:
        raise Invalid.field("scopes", f"{', '.join(unknown) or 'none given'}; allowed: {', '.join(SCOPES)}")
    ensure_workspace(services, workspace_id)
    secret = "st_" + secrets.token_urlsafe(32)
    key = ApiKey(
        workspace_id=workspace_id,
        key_id=fresh("key"),
        name=name,
        secret_hash=hash_secret(secret),
        scopes=tuple(s for s in SCOPES if s in scopes),
        created_at=services.clock(),
    )
    services.store.write(lambda writer: writer.put_key(key))
    return key, secret


def revoke_key(services: Services, workspace_id: str, key_id: str) -> ApiKey:
    """Ends a key at once; ending it again changes nothing."""

    def work(writer: Writer) -> ApiKey:
        for key in writer.keys(workspace_id):
            if key.key_id == key_id:
                ended = key if key.revoked_at is not None else replace(key, revoked_at=services.clock())
                writer.put_key(ended)
                return ended
        raise NotFound(f"no key {key_id!r} in this workspace")

    return services.store.write(work)


def authenticate(services: Services, secret: str) -> ApiKey:
    """The key of a secret.

    Raises:
        Unauthenticated: unknown or revoked.
    """
    key = services.keys(secret)
    if key is None or key.revoked_at is not None:
        raise Unauthenticated("the key is unknown or revoked")
    return key


def put_campaign(services: Services, campaign: Campaign, if_match: int | None = None) -> tuple[Campaign, bool]:
    """Stores a campaign; True when it is new. A variant left out is archived and keeps what was learned; a channel
    left out is gone, and policies are no longer judged on decisions that could choose it (``offered``). What is
    reserved of either is revoked when it is claimed (``stopped``).

    Args:
        services: the wired service.
        campaign: as validated; its version and times are set here.
        if_match: the version that the caller expects to replace (0 = none yet, None = whichever).

    Raises:
        Invalid: with those left out it would have more variants than ``VARIANTS_EVER``; a budget would count its costs
            beside others in another currency.
    """
    now = services.clock()

    def work(writer: Writer) -> tuple[Campaign, bool]:
        stored = writer.campaign(campaign.workspace_id, campaign.campaign_id)
        version = stored.version if stored is not None else 0
        check_version("campaign", campaign.campaign_id, version, if_match)
        return replace_campaign(writer, stored, campaign, now), stored is None

    return services.store.write(work)


def replace_campaign(writer: Writer, stored: Campaign | None, new: Campaign, now: datetime) -> Campaign:
    """Stores ``new`` as the next version of ``stored`` (see ``put_campaign``), and returns it."""
    newer = replace(
        new,
        version=stored.version + 1 if stored is not None else 1,
        created_at=stored.created_at if stored is not None else now,
        updated_at=now,
        variants=_with_archived(new.variants, stored),
    )
    require_same_currency(writer, newer, stored)
    writer.put_campaign(newer)
    return newer


def _with_archived(variants: tuple[Variant, ...], stored: Campaign | None) -> tuple[Variant, ...]:
    known = stored.variants if stored else ()
    kept = {v.id for v in variants}
    left_out = [replace(v, status="archived") for v in known if v.id not in kept]
    size = len(variants) + len(left_out)
    if size > max(VARIANTS_EVER, len(known)):
        raise Invalid.field(
            "variants",
            f"with the archived ones the campaign would have {size} variants; at most {VARIANTS_EVER} are allowed: use "
            "the id of an archived variant again, or begin another campaign",
        )
    return (*variants, *left_out)


def archive_campaign(services: Services, workspace_id: str, campaign_id: str, if_match: int | None = None) -> Campaign:
    """Archives a campaign: it answers no more requests, its log and what it learned stay."""
    now = services.clock()

    def work(writer: Writer) -> Campaign:
        stored = writer.campaign(workspace_id, campaign_id)
        if stored is None:
            raise NotFound(f"no campaign {campaign_id!r} in this workspace")
        if stored.status == "archived":
            return stored
        check_version("campaign", campaign_id, stored.version, if_match)
        archived = replace(stored, status="archived", version=stored.version + 1, updated_at=now)
        writer.put_campaign(archived)
        return archived

    return services.store.write(work)


def put_rule(services: Services, rule: Rule, if_match: int | None = None) -> tuple[Rule, bool]:
    """Stores a rule; True when it is new. It binds what is reserved from now on.

    A capacity with a warm-up that doesn't say when it starts keeps the date it has, or starts today (UTC).

    Raises:
        Invalid: it is a budget that would count costs in several currencies, or ``newrules`` refuses it.
    """
    now = services.clock()

    def work(writer: Writer) -> tuple[Rule, bool]:
        stored = rule_of(writer, rule.workspace_id, rule.rule_id)
        version = stored.version if stored is not None else 0
        check_version("rule", rule.rule_id, version, if_match)
        return replace_rule(writer, stored, rule, now), stored is None

    return services.store.write(work)


def replace_rule(writer: Writer, stored: Rule | None, new: Rule, now: datetime) -> Rule:
    """Stores ``new`` as the next version of ``stored`` (see ``put_rule``), and returns it."""
    require_sound(stored, new)
    parameters = started(new.parameters, None if stored is None or stored.archived else stored.parameters, now)
    version = stored.version + 1 if stored is not None else 1
    newer = replace(new, parameters=parameters, version=version, updated_at=now)
    require_one_currency(writer, newer)
    writer.put_rule(newer)
    return newer


def started(parameters: RuleParameters, before: RuleParameters | None, now: datetime) -> RuleParameters:
    """The parameters with the first day of their warm-up, if they have one: what is stored in place of ``before``."""
    if not isinstance(parameters, Capacity) or not parameters.warm_up or parameters.starts_on is not None:
        return parameters
    known = before.starts_on if isinstance(before, Capacity) else None
    return replace(parameters, starts_on=known or now.date().isoformat())


def archive_rule(services: Services, workspace_id: str, rule_id: str, if_match: int | None = None) -> Rule:
    """Archives a rule: it binds nothing any more. Doing it again changes nothing."""
    now = services.clock()

    def work(writer: Writer) -> Rule:
        stored = rule_of(writer, workspace_id, rule_id)
        if stored is None:
            raise NotFound(f"no rule {rule_id!r} in this workspace")
        if stored.archived:
            return stored
        check_version("rule", rule_id, stored.version, if_match)
        archived = replace(stored, archived=True, version=stored.version + 1, updated_at=now)
        writer.put_rule(archived)
        return archived

    return services.store.write(work)


def rule_of(reader: Reader, workspace_id: str, rule_id: str) -> Rule | None:
    """The rule of that id, archived or not; None when there is none."""
    return next((r for r in reader.rules(workspace_id) if r.rule_id == rule_id), None)


def put_recipient(services: Services, recipient: Recipient, if_match: int | None = None) -> tuple[Recipient, bool]:
    """Replaces a recipient; True when it is new. Refusals that events recorded stay; what is reserved where the
    new record closes a channel is called off."""

    def work(writer: Writer) -> tuple[Recipient, bool]:
        known = writer.recipient(recipient.workspace_id, recipient.recipient_id)
        check_version("recipient", recipient.recipient_id, known.version if known is not None else 0, if_match)
        (new,) = _put_back(services, writer, [recipient], [] if known is None else [known.recipient_id])
        return replace_recipient(services, writer, known, new), known is None

    pair = (recipient.workspace_id, recipient.recipient_id)
    return services.store.write(work, recipients=[pair])


def put_recipients(
    services: Services, workspace_id: str, rows: Sequence[Recipient], also: Callable[[Writer], None] | None = None
) -> tuple[Recipient, ...]:
    """``put_recipient`` for many, in one transaction with ``also``; of a recipient named twice the last row holds."""

    now = services.clock()

    def work(writer: Writer) -> tuple[Recipient, ...]:
        before = writer.recipients(workspace_id, sorted({r.recipient_id for r in rows}))
        stored, changed = dict(before), []
        for row in _put_back(services, writer, rows, stored):
            known = stored.get(row.recipient_id)
            newer = stored[row.recipient_id] = people.replaced(known, row, now)
            if newer is not known:
                changed.append(newer)
        writer.put_recipients(changed)
        _revoke_withdrawn(writer, before, {one.recipient_id: one for one in changed}, now)
        listed = services.catalog.view(writer, workspace_id, keep=False).attributes
        people.sight(writer, workspace_id, listed, (row.attributes for row in rows))
        if also is not None:
            also(writer)
        return tuple(stored[r.recipient_id] for r in rows)

    return services.store.write(work, recipients=[(workspace_id, r.recipient_id) for r in rows])


def _revoke_withdrawn(
    writer: Writer, before: Mapping[str, Recipient], after: Mapping[str, Recipient], now: datetime
) -> None:
    """``revoke_withdrawn`` for many: few have anything that is reserved."""
    pairs = [(before.get(name) or people.unknown(one.workspace_id, name), one) for name, one in after.items()]
    less = {one.recipient_id: (known, one) for known, one in pairs if people.narrows(known, one)}
    if not less:
        return
    workspace_id = next(iter(after.values())).workspace_id
    for name in sorted(writer.with_open_decisions(workspace_id, list(less))):
        revoke_withdrawn(writer, *less[name], now)


def _put_back(
    services: Services, writer: Writer, rows: Sequence[Recipient], stored: Collection[str]
) -> list[Recipient]:
    """The rows, those of people who were erased with what they had refused by then."""
    if not rows:
        return []
    fresh_ids = [row.recipient_id for row in rows if row.recipient_id not in stored]
    buried = graves(writer, services.salt, rows[0].workspace_id, fresh_ids)
    return [people.kept_refusals(buried[r.recipient_id], r) if r.recipient_id in buried else r for r in rows]


def replace_recipient(services: Services, writer: Writer, stored: Recipient | None, new: Recipient) -> Recipient:
    """Stores ``new`` as the next version of ``stored`` (see ``put_recipient``), and returns what is stored then."""
    now = services.clock()
    changed = people.replaced(stored, new, now)
    if changed is not stored:
        writer.put_recipient(changed)
        revoke_withdrawn(writer, stored or people.unknown(new.workspace_id, new.recipient_id), changed, now)
    known = services.catalog.view(writer, new.workspace_id, keep=False).attributes
    people.sight(writer, new.workspace_id, known, [new.attributes])
    return changed


def put_attribute(services: Services, attribute: Attribute) -> Attribute:
    """Declares an attribute: its type, whether the model may use it, how long it is kept."""
    declared = replace(attribute, declared=True)
    services.store.write(lambda writer: writer.put_attribute(declared))
    return declared
