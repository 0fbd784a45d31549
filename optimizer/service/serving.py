"""Which policy each campaign serves, kept current in this process without a restart.

Every ``reload_seconds`` the pointers are read; where one has moved, the policy is loaded, verified and made ready for
its campaign before it replaces the old one in a single assignment: no decision waits for that. On any fault the old
policy stays and the fault is told in ``status``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from optimizer.errors import BadArtifact, SendtideError
from optimizer.model.inference import RewardModel
from optimizer.model.policy import LivePolicy
from optimizer.service.framing import factors
from optimizer.service.freed import give_back
from optimizer.service.ids import COLD_POLICY
from storage.errors import StoreError
from storage.policies import Pointer
from storage.port import Reader, Store

log = logging.getLogger("sendtide.serving")

Key = tuple[str, str]


@dataclass(frozen=True)
class Served:
    """What a campaign serves: the pointer it came from and the loaded policy."""

    pointer: Pointer
    live: LivePolicy


@dataclass(frozen=True)
class ServingStatus:
    """For ``/readyz`` and ``/metrics``: what is served, and why a newer one isn't."""

    workspace_id: str
    campaign_id: str
    policy_id: str
    generation: int
    fault: str | None


def load_policy(reader: Reader, workspace_id: str, policy_id: str, models: dict[str, RewardModel]) -> LivePolicy:
    """Loads a stored policy; ``models`` caches artifacts by id and gains those loaded now.

    Raises:
        BadArtifact: the policy or one of its artifacts is missing, it has no model, or an artifact fails its checks.
    """
    if policy_id == COLD_POLICY:
        return LivePolicy.cold(COLD_POLICY)
    policy = reader.policy(workspace_id, policy_id)
    if policy is None:
        raise BadArtifact(f"policy {policy_id} is not stored")
    if not policy.mixture:  # a rejected candidate; it could not answer a single decision
        raise BadArtifact(f"policy {policy_id} ({policy.status}) has no components: only its verdict is stored")
    for component in policy.mixture:
        artifact_id = component.artifact_id
        if artifact_id is None or artifact_id in models:
            continue
        artifact = reader.artifact(workspace_id, artifact_id)
        if artifact is None:
            raise BadArtifact(f"artifact {artifact_id} of policy {policy_id} is not stored")
        model = RewardModel.load(artifact.blob)
        if model.feature_hash != artifact.feature_hash:
            raise BadArtifact(
                f"artifact {artifact_id}: feature spec {model.feature_hash} is not {artifact.feature_hash}"
            )
        model.warm_up()
        models[artifact_id] = model
    return LivePolicy.of(policy, models)


class PolicyServer:
    """Serves the current policy of every campaign to the threads of this process."""

    def __init__(self, store: Store, reload_seconds: float) -> None:
        self._store = store
        self._reload_seconds = reload_seconds
        self._served: Mapping[Key, Served] = {}
        self._faults: Mapping[Key, str] = {}
        self._models: dict[tuple[str, str], RewardModel] = {}
        self._refreshing = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def current(self, workspace_id: str, campaign_id: str) -> LivePolicy:
        """The policy that this campaign serves now; its cold start where it has none."""
        served = self._served.get((workspace_id, campaign_id))
        return served.live if served is not None else LivePolicy.cold(COLD_POLICY)

    def refresh_now(self) -> None:
        """Loads every policy whose pointer has moved; faults are kept for ``status``, never raised."""
        with self._refreshing, self._store.read() as reader:
            pointers = {(one.workspace_id, one.campaign_id): one for one in reader.pointers()}
            # A pointer is gone after a restore to before there was one.
            served = {key: one for key, one in self._served.items() if key in pointers}
            faults = {key: one for key, one in self._faults.items() if key in pointers}
            changed = len(served) < len(self._served)
            for key, pointer in pointers.items():
                known = served.get(key)
                if known is not None and known.pointer == pointer:
                    faults.pop(key, None)
                    continue
                try:
                    served[key] = Served(pointer, self._load(reader, pointer))
                    faults.pop(key, None)
                    changed = True
                except SendtideError as fault:
                    faults[key] = f"{pointer.policy_id}: {fault.detail}"
                    log.error("policy not loaded; the old one stays", extra={"campaign": key, "fault": faults[key]})
            self._served, self._faults = served, faults
            self._forget_unused()
        if changed:
            give_back()

    def hold(self, workspace_id: str, campaign_id: str, policy_id: str) -> None:
        """Serves this policy for a campaign, wherever its pointer is, until ``refresh_now`` is called.

        Raises:
            BadArtifact: it is not stored, or can't be loaded.
        """
        pointer = Pointer(workspace_id, campaign_id, policy_id, generation=0, moved_at=datetime.min.replace(tzinfo=UTC))
        with self._refreshing, self._store.read() as reader:
            served = Served(pointer, self._load(reader, pointer))
            self._served = {**self._served, (workspace_id, campaign_id): served}

    def _load(self, reader: Reader, pointer: Pointer) -> LivePolicy:
        mine = {a: m for (ws, a), m in self._models.items() if ws == pointer.workspace_id}
        live = load_policy(reader, pointer.workspace_id, pointer.policy_id, mine)
        self._models.update({(pointer.workspace_id, a): m for a, m in mine.items()})
        campaign = reader.campaign(pointer.workspace_id, pointer.campaign_id)
        if campaign is not None and campaign.active_variants:
            live.prepare(campaign, *factors(campaign, None, None))
        return live

    def _forget_unused(self) -> None:
        used = {
            (key[0], component.artifact_id)
            for key, served in self._served.items()
            for component in served.live.mixture
            if component.artifact_id is not None
        }
        for key in [k for k in self._models if k not in used]:
            del self._models[key]

    def status(self) -> list[ServingStatus]:
        """Every campaign with a policy, by workspace and campaign."""
        keys = sorted({*self._served, *self._faults})
        return [self._status(key) for key in keys]

    def _status(self, key: Key) -> ServingStatus:
        served = self._served.get(key)
        return ServingStatus(
            workspace_id=key[0],
            campaign_id=key[1],
            policy_id=served.live.policy_id if served else COLD_POLICY,
            generation=served.pointer.generation if served else 0,
            fault=self._faults.get(key),
        )

    def start(self) -> None:
        """Loads what is there and starts to watch the pointers in a daemon thread."""
        self.refresh_now()
        self._thread = threading.Thread(target=self._watch, name="policy-reload", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopping.wait(self._reload_seconds):
            try:
                self.refresh_now()
            except StoreError as fault:
                log.warning("pointers not read; serving goes on with what is loaded", extra={"fault": str(fault)})
            except Exception:
                # The thread's top: whatever one look fails of, later policies must still be picked up.
                log.exception("pointers not followed; serving goes on with what is loaded")

    def stop(self) -> None:
        """Ends the watching thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
