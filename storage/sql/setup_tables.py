"""Set-up: installation facts, workspaces, keys, campaigns, rules, attributes, recipients."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from typing import Final

from storage import codec
from storage.cursors import decode_cursor, encode_cursor
from storage.errors import VersionConflict
from storage.log import Page
from storage.records import ApiKey, Attribute, Campaign, Recipient, Workspace
from storage.rules import Rule
from storage.sql.manyrows import Insertion, send_rows
from storage.sql.tables import Row, Tables
from storage.sql.usage_tables import UsageWriter
from storage.usage import counted_by

_CONFIG = "config_version"
_LONGEST_STEP: Final = 2**32
_CAMPAIGN_AT = "SELECT document FROM campaign_versions WHERE workspace_id = ? AND campaign_id = ? AND version = ?"
_RECIPIENTS = """
SELECT recipient_id, version, document, changed_after FROM recipients
WHERE workspace_id = ? AND recipient_id IN ({marks})
"""
_RECIPIENTS_AFTER: Final = """
SELECT recipient_id, version, document, changed_after FROM recipients
WHERE workspace_id = ? AND recipient_id > ? ORDER BY recipient_id LIMIT ?
"""
_VERSIONS = "SELECT recipient_id, version FROM recipients WHERE workspace_id = ? AND recipient_id IN ({marks})"
_INTO_RECIPIENTS: Final = Insertion(
    "recipients",
    ("workspace_id", "recipient_id", "version", "document", "changed_after"),
    "ON CONFLICT (workspace_id, recipient_id) DO UPDATE SET version = excluded.version, document = excluded.document, "
    "changed_after = excluded.changed_after",
)
_CAMPAIGN_NOW = """
SELECT document FROM campaign_versions WHERE workspace_id = ? AND campaign_id = ? ORDER BY version DESC LIMIT 1
"""
_RULES: Final = """
SELECT rule_id, version, document, changed_after FROM rules WHERE workspace_id = ? ORDER BY rule_id
"""
_RULE: Final = "SELECT rule_id, version, document FROM rules WHERE workspace_id = ? AND rule_id = ?"
_RULE_VERSIONS: Final = """
SELECT rule_id, version, document, changed_after FROM rule_versions WHERE workspace_id = ? ORDER BY rule_id, version
"""


class SetupReader(Tables):
    """Queries on set-up."""

    def meta(self, name: str) -> str | None:
        """See ``storage.port``."""
        row = self._row("SELECT value FROM meta WHERE name = ?", (name,))
        return None if row is None else str(row[0])

    def key_by_hash(self, secret_hash: bytes) -> ApiKey | None:
        """See ``storage.port``."""
        row = self._row("SELECT document FROM api_keys WHERE secret_hash = ?", (secret_hash,))
        return None if row is None else codec.API_KEY.unpack(row[0])

    def workspaces(self) -> tuple[Workspace, ...]:
        """See ``storage.port``."""
        rows = self._rows("SELECT document FROM workspaces ORDER BY workspace_id", ())
        return tuple(codec.WORKSPACE.unpack(row[0]) for row in rows)

    def workspace(self, workspace_id: str) -> Workspace | None:
        """See ``storage.port``."""
        row = self._row("SELECT document FROM workspaces WHERE workspace_id = ?", (workspace_id,))
        return None if row is None else codec.WORKSPACE.unpack(row[0])

    def keys(self, workspace_id: str) -> tuple[ApiKey, ...]:
        """See ``storage.port``."""
        rows = self._rows(
            "SELECT document FROM api_keys WHERE workspace_id = ? ORDER BY created_at, seq", (workspace_id,)
        )
        return tuple(codec.API_KEY.unpack(row[0]) for row in rows)

    def config_version(self, workspace_id: str) -> int:
        """See ``storage.port``."""
        return self._counter(workspace_id, _CONFIG)

    def campaign(self, workspace_id: str, campaign_id: str, version: int | None = None) -> Campaign | None:
        """See ``storage.port``."""
        exact = () if version is None else (version,)
        row = self._row(_CAMPAIGN_AT if exact else _CAMPAIGN_NOW, (workspace_id, campaign_id, *exact))
        return None if row is None else codec.CAMPAIGN.unpack(row[0])

    def campaigns(self, workspace_id: str, *, limit: int, cursor: str | None = None) -> Page[Campaign]:
        """See ``storage.port``."""
        after = "" if cursor is None else decode_cursor("campaigns", cursor, (str,))[0]
        rows = self._rows(
            """
            SELECT v.document FROM campaigns c JOIN campaign_versions v USING (workspace_id, campaign_id, version)
            WHERE c.workspace_id = ? AND c.campaign_id > ? ORDER BY c.campaign_id LIMIT ?
            """,
            (workspace_id, after, limit + 1),
        )
        items = tuple(codec.CAMPAIGN.unpack(row[0]) for row in rows[:limit])
        return Page(items, encode_cursor("campaigns", [items[-1].campaign_id]) if len(rows) > limit else None)

    def rules(self, workspace_id: str) -> tuple[Rule, ...]:
        """See ``storage.port``."""
        return tuple(codec.unpack_rule(workspace_id, *row) for row in self._rows(_RULES, (workspace_id,)))

    def rule_history(self, workspace_id: str) -> tuple[Rule, ...]:
        """See ``storage.port``."""
        return tuple(codec.unpack_rule(workspace_id, *row) for row in self._rows(_RULE_VERSIONS, (workspace_id,)))

    def attributes(self, workspace_id: str) -> tuple[Attribute, ...]:
        """See ``storage.port``."""
        rows = self._rows("SELECT document FROM attributes WHERE workspace_id = ? ORDER BY name", (workspace_id,))
        return tuple(codec.ATTRIBUTE.unpack(row[0]) for row in rows)

    def recipient(self, workspace_id: str, recipient_id: str) -> Recipient | None:
        """See ``storage.port``."""
        row = self._row(
            "SELECT version, document, changed_after FROM recipients WHERE workspace_id = ? AND recipient_id = ?",
            (workspace_id, recipient_id),
        )
        return None if row is None else codec.unpack_recipient(workspace_id, recipient_id, *row)

    def recipients(self, workspace_id: str, recipient_ids: Sequence[str]) -> dict[str, Recipient]:
        """See ``storage.port``."""
        rows = self._rows_in(_RECIPIENTS, (workspace_id,), recipient_ids)
        return {row[0]: codec.unpack_recipient(workspace_id, *row) for row in rows}

    def recipients_after(self, workspace_id: str, after: str, *, limit: int) -> tuple[Recipient, ...]:
        """See ``storage.retention``."""
        rows = self._rows(_RECIPIENTS_AFTER, (workspace_id, after, limit))
        return tuple(codec.unpack_recipient(workspace_id, *row) for row in rows)

    def _counter(self, workspace_id: str, name: str) -> int:
        row = self._row("SELECT value FROM counters WHERE workspace_id = ? AND name = ?", (workspace_id, name))
        return 0 if row is None else int(row[0])


class SetupWriter(SetupReader, UsageWriter):
    """Changes of set-up."""

    def put_meta(self, name: str, value: str) -> str:
        """See ``storage.port``."""
        self._query("INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING", (name, value))
        stored = self.meta(name)
        return value if stored is None else stored

    def put_workspace(self, workspace: Workspace) -> None:
        """See ``storage.port``."""
        document = codec.WORKSPACE.pack(workspace)
        self._upsert("workspaces", {"workspace_id": workspace.workspace_id}, {"document": document})
        self._count_set_up(workspace.workspace_id)

    def put_key(self, key: ApiKey) -> None:
        """See ``storage.port``."""
        self._query(
            """
            INSERT INTO api_keys (workspace_id, key_id, secret_hash, created_at, document) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (workspace_id, key_id) DO UPDATE SET secret_hash = excluded.secret_hash,
              created_at = excluded.created_at, document = excluded.document
            """,
            (
                key.workspace_id,
                key.key_id,
                key.secret_hash,
                codec.to_micros(key.created_at),
                codec.API_KEY.pack(key),
            ),
        )

    def put_campaign(self, campaign: Campaign) -> None:
        """See ``storage.port``."""
        row = self._row(
            "SELECT version FROM campaigns WHERE workspace_id = ? AND campaign_id = ?",
            (campaign.workspace_id, campaign.campaign_id),
        )
        _require_next(f"campaign {campaign.campaign_id}", campaign.version, 0 if row is None else row[0])
        key = {"workspace_id": campaign.workspace_id, "campaign_id": campaign.campaign_id}
        version = {"version": campaign.version}
        self._upsert("campaigns", key, version)
        self._upsert("campaign_versions", {**key, **version}, {"document": codec.CAMPAIGN.pack(campaign)})
        self._count_set_up(campaign.workspace_id)

    def put_rule(self, rule: Rule) -> None:
        """See ``storage.port``."""
        row = self._row(_RULE, (rule.workspace_id, rule.rule_id))
        before = None if row is None else codec.unpack_rule(rule.workspace_id, *row)
        _require_next(f"rule {rule.rule_id}", rule.version, 0 if before is None else before.version)
        key = {"workspace_id": rule.workspace_id, "rule_id": rule.rule_id}
        version = {"version": rule.version}
        rest = {"changed_after": self._position(rule.workspace_id), "document": codec.pack_rule(rule)}
        self._upsert("rules", key, {**version, **rest, "summed": int(counted_by(rule) is not None)})
        self._upsert("rule_versions", {**key, **version}, rest)
        self._sum_anew(before, rule)
        self._count_set_up(rule.workspace_id)

    def put_attribute(self, attribute: Attribute) -> None:
        """See ``storage.port``."""
        key = {"workspace_id": attribute.workspace_id, "name": attribute.name}
        self._upsert("attributes", key, {"document": codec.ATTRIBUTE.pack(attribute)})
        self._count_set_up(attribute.workspace_id)

    def put_recipient(self, recipient: Recipient) -> None:
        """See ``storage.port``."""
        self.put_recipients((recipient,))

    def put_recipients(self, recipients: Sequence[Recipient]) -> None:
        """See ``storage.port``."""
        by_workspace: dict[str, list[str]] = {}
        for recipient in recipients:
            by_workspace.setdefault(recipient.workspace_id, []).append(recipient.recipient_id)
        asked = [(one, self.ask(partial(self._versions, one, ids))) for one, ids in by_workspace.items()]
        after = {workspace_id: self._position(workspace_id) for workspace_id in by_workspace}
        versions = {(one, name): version for one, found in asked for name, version in found()}
        for recipient in recipients:
            key = (recipient.workspace_id, recipient.recipient_id)
            _require_next(f"recipient {recipient.recipient_id}", recipient.version, versions.get(key, 0))
            versions[key] = recipient.version
        rows = [
            (
                r.workspace_id,
                r.recipient_id,
                r.version,
                codec.pack_recipient(r),
                after[r.workspace_id] if r.changed_after < 0 else r.changed_after,
            )
            for r in recipients
        ]
        if len(versions) == len(rows):
            send_rows(self._send, _INTO_RECIPIENTS, rows)
        else:  # one statement may change a row only once
            for row in rows:
                send_rows(self._send, _INTO_RECIPIENTS, [row])

    def _versions(self, workspace_id: str, recipient_ids: Sequence[str]) -> list[Row]:
        return list(self._rows_in(_VERSIONS, (workspace_id,), recipient_ids))

    def _count_set_up(self, workspace_id: str) -> None:
        """Another version of the set-up. By steps of chance: whoever saw a version before a restore must not take the
        one that follows the restored one for the same."""
        self._next(workspace_id, _CONFIG, 1 + secrets.randbelow(_LONGEST_STEP))

    def _next(self, workspace_id: str, name: str, step: int = 1) -> int:
        """Adds to a counter of the workspace and returns it; numbers ascend in the order of commits, since its row
        is locked until then."""
        rows = self._rows(
            """
            INSERT INTO counters (workspace_id, name, value) VALUES (?, ?, ?)
            ON CONFLICT (workspace_id, name) DO UPDATE SET value = counters.value + excluded.value RETURNING value
            """,
            (workspace_id, name, step),
        )
        return int(rows[0][0])


def _require_next(what: str, version: int, stored: int) -> None:
    if version != stored + 1:
        raise VersionConflict(f"{what}: version {version} was to be stored, but {stored + 1} comes next")
