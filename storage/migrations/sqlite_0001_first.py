"""The first SQLite schema.

Every key begins with ``workspace_id``. Tables that are written with every decision are laid out for size and locality:
wide rows of a log are appended under a running number (a random key would touch a random page each time), narrow rows
that are read by key range lie in their key (WITHOUT ROWID), and an index that only open rows need is partial.
Status codes are those of ``storage.codec``: 0 reserved, 1 claimed.
"""

from __future__ import annotations

from typing import Any

from sqlite_utils import Database

#: Marks the file as one of ours ("sent" in ASCII); SQLite keeps it in the file's header.
APPLICATION_ID = 0x73656E74

_ORDINARY: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "meta": ({"name": str, "value": str}, ("name",)),
    "workspaces": ({"workspace_id": str, "document": bytes}, ("workspace_id",)),
    "counters": ({"workspace_id": str, "name": str, "value": int}, ("workspace_id", "name")),
    "campaigns": ({"workspace_id": str, "campaign_id": str, "version": int}, ("workspace_id", "campaign_id")),
    "campaign_versions": (
        {"workspace_id": str, "campaign_id": str, "version": int, "document": bytes},
        ("workspace_id", "campaign_id", "version"),
    ),
    "rules": (
        {"workspace_id": str, "rule_id": str, "version": int, "document": bytes},
        ("workspace_id", "rule_id"),
    ),
    "attributes": ({"workspace_id": str, "name": str, "document": bytes}, ("workspace_id", "name")),
    "policy_uses": ({"workspace_id": str, "policy_id": str, "decisions": int}, ("workspace_id", "policy_id")),
    "import_positions": ({"workspace_id": str, "import_id": str, "rows": int}, ("workspace_id", "import_id")),
    "leases": ({"name": str, "holder": str, "until": int}, ("name",)),
    "pointers": (
        {"workspace_id": str, "campaign_id": str, "policy_id": str, "generation": int, "moved_at": int},
        ("workspace_id", "campaign_id"),
    ),
}

_LOG = """
CREATE TABLE api_keys (
  seq INTEGER PRIMARY KEY,
  workspace_id TEXT NOT NULL, key_id TEXT NOT NULL, secret_hash BLOB NOT NULL, created_at INTEGER NOT NULL,
  document BLOB NOT NULL,
  UNIQUE (workspace_id, key_id)
) STRICT;
CREATE UNIQUE INDEX api_keys_secret ON api_keys (secret_hash);

CREATE TABLE recipients (
  workspace_id TEXT NOT NULL, recipient_id TEXT NOT NULL, version INTEGER NOT NULL, document BLOB NOT NULL,
  PRIMARY KEY (workspace_id, recipient_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE decisions (
  seq INTEGER PRIMARY KEY,
  workspace_id TEXT NOT NULL, decision_id TEXT NOT NULL, request_id TEXT NOT NULL, request_hash BLOB NOT NULL,
  campaign_id TEXT NOT NULL, campaign_version INTEGER NOT NULL, recipient_id TEXT NOT NULL,
  status INTEGER NOT NULL, control_group INTEGER NOT NULL, mode INTEGER NOT NULL,
  decided_at INTEGER NOT NULL, propensity REAL, policy_id TEXT NOT NULL,
  action INTEGER, actions INTEGER NOT NULL, eligible_actions INTEGER NOT NULL, eligible BLOB NOT NULL,
  variant_id TEXT, channel TEXT, category TEXT NOT NULL, send_at INTEGER,
  claimed_at INTEGER, sent_at INTEGER, provider TEXT, message_id TEXT, closed_at INTEGER, close_reason TEXT,
  imported INTEGER NOT NULL, shadow_policy_id TEXT, detail BLOB NOT NULL,
  message_at INTEGER
) STRICT;
CREATE UNIQUE INDEX decisions_id ON decisions (workspace_id, decision_id);
CREATE INDEX decisions_time ON decisions (workspace_id, decided_at);
CREATE INDEX decisions_campaign ON decisions (workspace_id, campaign_id, decided_at);
CREATE INDEX decisions_recipient ON decisions (workspace_id, recipient_id, decided_at);
CREATE INDEX decisions_status ON decisions (workspace_id, status, decided_at);
CREATE INDEX decisions_open ON decisions (workspace_id, recipient_id, decided_at) WHERE status IN (0, 1);
CREATE INDEX decisions_due ON decisions (workspace_id, send_at) WHERE status IN (0, 1);
CREATE INDEX decisions_message ON decisions (workspace_id, provider, message_id) WHERE message_id IS NOT NULL;

-- decision_id: NULL = another system's message; the number 0 = message_ref is the decision's id (not stored twice, and
-- found through decisions.message_at, so that the index for lookups by reference holds foreign messages only)
CREATE TABLE messages (
  workspace_id TEXT NOT NULL, recipient_id TEXT NOT NULL, at INTEGER NOT NULL, message_ref TEXT NOT NULL,
  channel TEXT NOT NULL, category TEXT NOT NULL, campaign_id TEXT, variant_id TEXT, decision_id ANY,
  PRIMARY KEY (workspace_id, recipient_id, at, message_ref)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX messages_foreign ON messages (workspace_id, recipient_id, message_ref) WHERE decision_id IS NOT 0;

CREATE TABLE events (
  seq INTEGER PRIMARY KEY,
  workspace_id TEXT NOT NULL, event_id TEXT NOT NULL, type TEXT NOT NULL,
  occurred_at INTEGER NOT NULL, received_at INTEGER NOT NULL, matched INTEGER NOT NULL,
  decision_id TEXT, recipient_id TEXT, campaign_id TEXT, provider TEXT, message_id TEXT,
  value REAL, automated INTEGER NOT NULL, properties BLOB
) STRICT;
CREATE UNIQUE INDEX events_id ON events (workspace_id, event_id);
CREATE INDEX events_decision ON events (workspace_id, decision_id) WHERE decision_id IS NOT NULL;
CREATE INDEX events_recipient ON events (workspace_id, recipient_id, occurred_at)
  WHERE decision_id IS NULL AND recipient_id IS NOT NULL;
CREATE INDEX events_unmatched ON events (workspace_id, provider, message_id) WHERE matched = 0;

CREATE TABLE artifacts (
  seq INTEGER PRIMARY KEY,
  workspace_id TEXT NOT NULL, artifact_id TEXT NOT NULL, created_at INTEGER NOT NULL,
  checksum BLOB NOT NULL, feature_hash TEXT NOT NULL, blob BLOB NOT NULL,
  UNIQUE (workspace_id, artifact_id)
) STRICT;

CREATE TABLE policies (
  seq INTEGER PRIMARY KEY,
  workspace_id TEXT NOT NULL, policy_id TEXT NOT NULL, campaign_id TEXT NOT NULL, created_at INTEGER NOT NULL,
  document BLOB NOT NULL,
  UNIQUE (workspace_id, policy_id)
) STRICT;
CREATE INDEX policies_time ON policies (workspace_id, created_at);
CREATE INDEX policies_campaign ON policies (workspace_id, campaign_id, created_at);

CREATE TABLE training_runs (
  seq INTEGER PRIMARY KEY,
  workspace_id TEXT NOT NULL, run_id TEXT NOT NULL, created_at INTEGER NOT NULL, status TEXT NOT NULL,
  document BLOB NOT NULL,
  UNIQUE (workspace_id, run_id)
) STRICT;
CREATE INDEX training_runs_time ON training_runs (workspace_id, created_at);
CREATE INDEX training_runs_status ON training_runs (workspace_id, status, created_at);

CREATE TABLE changes (
  workspace_id TEXT NOT NULL, position INTEGER NOT NULL, kind TEXT NOT NULL, at INTEGER NOT NULL,
  decision_id TEXT, campaign_id TEXT, policy_id TEXT, detail TEXT NOT NULL,
  PRIMARY KEY (workspace_id, position)
) STRICT, WITHOUT ROWID;
"""


def first(db: Database) -> None:
    """Creates every table. Runs inside the caller's transaction."""
    for name, (columns, key) in _ORDINARY.items():
        db.table(name).create(columns, pk=key, not_null=set(columns), strict=True)
    statements = "\n".join(line for line in _LOG.splitlines() if not line.startswith("--"))
    for statement in statements.split(";"):
        if statement.strip():
            db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
