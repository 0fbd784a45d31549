"""Training runs as the scheduler's child carries them out, within this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import orjson

from optimizer.service.pacing import KNOWN_AT
from optimizer.service.runs import Ended, finish, start_now
from optimizer.service.wiring import Services
from storage.policies import Pointer, Policy
from storage.port import Store, Writer

T = TypeVar("T")

_HOLDER = "simulation"
#: What a look keeps of how far it has come in the log.
_LOOKS = ("watch", "drift")


def carried_out(
    services: Services,
    workspace_id: str,
    campaign_id: str,
    kind: Literal["retrain", "refresh"],
    ahead: timedelta = timedelta(0),
) -> list[dict[str, Any]]:
    """Looks at canaries and at what shares the traffic, then retrains or refreshes; what was told of the campaign.

    ``ahead``: how far the service's clock goes before the log's, for outcomes to be known. Policies are dated by the
    log's: none is younger than what it drew.

    Raises:
        RuntimeError: the run failed.
    """
    # Imported here: torch takes seconds, and the command line's help must not wait for it.
    from optimizer.service.training import carry_out

    run = start_now(services, workspace_id, campaign_id, _HOLDER, trigger="cli", kind=kind)
    dated = replace(services, store=cast("Store", _Dated(services.store, ahead))) if ahead else services
    ended = carry_out(dated, run)
    told: list[dict[str, Any]] = orjson.loads(orjson.dumps(list(ended.verdicts)))
    for look in (one[name] for one in told for name in _LOOKS if one.get(name)):
        look["since"] = max(0.0, look["since"] - ahead.total_seconds())
    finish(services, run, _HOLDER, Ended(ended.status, told, ended.error))
    if ended.status == "failed":
        raise RuntimeError(f"the {kind} failed: {ended.error}")
    return told


class _Dated:
    """A store that dates policies and pointers back; everything else is the store's."""

    def __init__(self, store: Store, ahead: timedelta) -> None:
        self._store, self._ahead = store, ahead

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, work: Callable[[Writer], T], *, recipients: Sequence[tuple[str, str]] = ()) -> T:
        """See ``Store``."""
        return self._store.write(lambda w: work(cast("Writer", _DatedWriter(w, self._ahead))), recipients=recipients)


class _DatedWriter:
    def __init__(self, writer: Writer, ahead: timedelta) -> None:
        self._writer, self._ahead = writer, ahead

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def add_policy(self, policy: Policy) -> None:
        """See ``Writer``."""
        known = policy.verdict.get(KNOWN_AT)
        dated = {} if known is None else {KNOWN_AT: known - self._ahead.total_seconds()}
        verdict = {**policy.verdict, **dated}
        self._writer.add_policy(replace(policy, created_at=policy.created_at - self._ahead, verdict=verdict))

    def move_pointer(self, pointer: Pointer) -> None:
        """See ``Writer``."""
        self._writer.move_pointer(replace(pointer, moved_at=pointer.moved_at - self._ahead))
