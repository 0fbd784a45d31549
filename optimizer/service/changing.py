"""Set-up that is changed in place: what is stored is read, changed and replaced in one transaction, so nobody comes
between."""

from __future__ import annotations

from collections.abc import Callable

from optimizer.errors import Conflict, NotFound
from optimizer.service import setup
from optimizer.service.wiring import Services
from storage.port import Writer
from storage.records import Campaign, Recipient
from storage.rules import Rule


def change_campaign(
    services: Services, workspace_id: str, campaign_id: str, change: Callable[[Campaign], Campaign]
) -> Campaign:
    """Stores what ``change`` makes of the campaign, as by ``setup.put_campaign``.

    ``change`` runs while nobody else can write, and again where the store begins the transaction anew.

    Raises:
        NotFound: there is none.
    """
    now = services.clock()

    def work(writer: Writer) -> Campaign:
        stored = writer.campaign(workspace_id, campaign_id)
        if stored is None:
            raise NotFound(f"no campaign {campaign_id!r} in this workspace")
        return setup.replace_campaign(writer, stored, change(stored), now)

    return services.store.write(work)


def change_rule(services: Services, workspace_id: str, rule_id: str, change: Callable[[Rule], Rule]) -> Rule:
    """As ``change_campaign``, for a rule.

    Raises:
        NotFound: there is none.
        Conflict: it is archived.
    """
    now = services.clock()

    def work(writer: Writer) -> Rule:
        stored = setup.rule_of(writer, workspace_id, rule_id)
        if stored is None:
            raise NotFound(f"no rule {rule_id!r} in this workspace")
        if stored.archived:
            raise Conflict(f"rule {rule_id!r} is archived; a PUT brings it back", code="archived_rule")
        return setup.replace_rule(writer, stored, change(stored), now)

    return services.store.write(work)


def change_recipient(
    services: Services, workspace_id: str, recipient_id: str, change: Callable[[Recipient], Recipient]
) -> Recipient:
    """As ``change_campaign``, for a recipient, as by ``setup.put_recipient``.

    Raises:
        NotFound: nothing is stored of them.
    """

    def work(writer: Writer) -> Recipient:
        stored = writer.recipient(workspace_id, recipient_id)
        if stored is None:
            raise NotFound(f"no recipient {recipient_id!r} in this workspace")
        return setup.replace_recipient(services, writer, stored, change(stored))

    return services.store.write(work, recipients=[(workspace_id, recipient_id)])
