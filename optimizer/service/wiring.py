"""Puts the service together for one process: store, policies, decider. Call it after a fork, never before."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from optimizer.config import Settings
from optimizer.errors import ConfigError
from optimizer.service.catalog import Catalog
from optimizer.service.decide import Decider
from optimizer.service.freshreports import FreshReports
from optimizer.service.intake import Tally
from optimizer.service.keptcolumns import KeptColumns
from optimizer.service.keptreports import KeptReports
from optimizer.service.keyring import KeyRing
from optimizer.service.personalizer.serving import LoopModels
from optimizer.service.serving import PolicyServer
from storage.open import open_store
from storage.port import Store
from storage.transfer import UNFINISHED, unfinished

Clock = Callable[[], datetime]

#: The name under which the installation's salt is stored.
SALT = "salt"


def utc_now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Services:
    """Everything that a caller of the service needs. ``salt`` keys ids, groups and draws of this installation.

    ``opened_at`` is when this process began to look at the store.
    """

    settings: Settings
    store: Store
    clock: Clock
    salt: bytes
    catalog: Catalog
    policies: PolicyServer
    decider: Decider
    columns: KeptColumns
    intake: Tally
    keys: KeyRing
    opened_at: datetime
    loops: LoopModels = field(default_factory=LoopModels)
    reports: KeptReports = field(default_factory=KeptReports)
    fresh: FreshReports = field(default_factory=FreshReports)

    def close(self) -> None:
        """Stops the threads and closes the store."""
        self.policies.stop()
        self.fresh.stop()
        self.intake.stop()
        self.store.close()


def open_services(
    settings: Settings,
    clock: Clock = utc_now,
    seed: int | str | None = None,
    *,
    watch: bool = True,
    real: Clock | None = None,
) -> Services:
    """Opens the store and wires the service.

    Args:
        settings: the configuration.
        clock: what time it is; aware UTC.
        seed: makes ids, groups and draws of a *new* installation repeatable (tests, simulations). An existing one keeps
            the salt it was made with, since its groups and idempotency hang on it.
        watch: whether to watch for new policies in a thread; without it ``policies.refresh_now`` is the caller's.
        real: what time it is where ``clock`` stands still: decisions are made as of ``clock``, and plan nothing for a
            time that is past (None = ``clock``).
    """
    try:
        store = open_store(settings.database, settings.archive_path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    salt = _salt(store, settings.seed if seed is None else seed)
    catalog = Catalog()
    policies = PolicyServer(store, settings.reload_seconds)
    decider = Decider(store, policies, catalog, salt, clock, real)
    columns = KeptColumns(settings.report_path, salt)
    tally, keys = Tally(store, clock), KeyRing(store)
    services = Services(settings, store, clock, salt, catalog, policies, decider, columns, tally, keys, clock())
    if watch:
        policies.start()
    else:
        policies.refresh_now()
    return services


def _salt(store: Store, seed: int | str | None) -> bytes:
    with store.read() as reader:
        if unfinished(reader):
            raise ConfigError(UNFINISHED)
        stored = reader.meta(SALT)
    if stored is None:
        fresh = (
            secrets.token_bytes(32) if seed is None else hashlib.blake2b(str(seed).encode(), digest_size=32).digest()
        )
        stored = store.write(lambda writer: writer.put_meta(SALT, fresh.hex()))
    return bytes.fromhex(stored)
