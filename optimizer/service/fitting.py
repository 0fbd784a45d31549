"""What one retrain works on, and the models that it fits: of everything, of a part, by fold of recipients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

import numpy as np

from optimizer.config import Settings
from optimizer.model.artifact import unpack
from optimizer.model.examples import Examples
from optimizer.model.history import Wanted, wanted
from optimizer.model.inference import RewardModel
from optimizer.model.training.attributetypes import retyped
from optimizer.model.training.evaluate import clustered_z, log_likelihood
from optimizer.model.training.options import DEFAULTS, TrainOptions
from optimizer.model.training.quality import Quality, examine, looked_at
from optimizer.model.training.train import Trained, train
from optimizer.model.training.train import refresh as refitted
from optimizer.service.drifting import changes
from optimizer.service.driftstate import Drift
from optimizer.service.feedback import Log, Logged, examples, usable
from optimizer.service.footing import Footing, footing_of, known_of
from optimizer.service.judging import fold_of
from optimizer.service.lateness import with_late
from optimizer.service.served import learned
from optimizer.service.wiring import Services
from storage.port import Reader, Writer
from storage.records import Attribute, Campaign, JsonObject

AnyFitting = TypeVar("AnyFitting", bound="Fitting")

#: Folds of the reward model that doubly robust estimates lean on.
FOLDS = 2
#: The newest share of a campaign's rows since a change, on which it is judged whether older rows still help.
RECALL_SHARE = 0.2
#: Fewer rows to judge that by decide nothing.
RECALL_ROWS = 200


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """What models are fitted to.

    Attributes:
        log: the feedback. attributes: the registry, in which what can't be trusted is not used by the model.
        drift: what the drift detectors know, by campaign.
        options: the numbers of training, as they were tuned for the workspace.
        encoder: which encoder of the recipient's history a model tries.
    """

    log: Log
    attributes: tuple[Attribute, ...]
    drift: Mapping[str, Drift] = field(default_factory=dict)
    options: TrainOptions = DEFAULTS
    encoder: Wanted = field(default_factory=Wanted)

    @property
    def changed(self) -> dict[str, float]:
        """When outcomes last changed, by campaign: older rows fade."""
        return changes(self.drift)

    def fit(self, rows: Sequence[Logged], *, network: bool = True, calibrated: bool = True) -> Trained:
        """A model of these rows, as far as their clocks have started and they are remembered.

        One without a network only serves to judge another: nobody asks it for scores, so it isn't calibrated.
        """
        return model_of(
            self.data(rows),
            self.attributes,
            self.encoder,
            self.options,
            network=network,
            calibrated=calibrated,
            changed=self.changed,
        )

    def data(self, rows: Sequence[Logged], footing: Footing | None = None) -> Examples:
        """The training rows among these; ``footing``: of a model that is refitted."""
        kept = (footing or Footing()).rows(rows, self.changed)
        return examples(kept, self.log.campaigns, self.log.hazards)


def model_of(
    data: Examples,
    attributes: tuple[Attribute, ...],
    encoder: Wanted,
    options: TrainOptions,
    *,
    network: bool = True,
    calibrated: bool = True,
    changed: Mapping[str, float] | None = None,
) -> Trained:
    """The model of some rows: the same rows and options give the same one. ``changed``: see ``train``."""
    return train(
        data,
        attributes=attributes,
        seed=len(data),
        network=network,
        encoder=encoder,
        calibrated=calibrated and network,
        options=options,
        changed=changed,
    )


@dataclass(frozen=True, kw_only=True)
class Job(Fitting):
    """What one retrain works on; ``quality``: what was found wrong with the features (None = not examined); ``seen``:
    what the run has seen of canaries, by campaign."""

    services: Services
    workspace_id: str
    now: datetime
    run_id: str | None
    quality: Quality | None = None
    seen: Mapping[str, JsonObject] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        services: Services,
        reader: Reader,
        workspace_id: str,
        log: Log,
        run_id: str | None = None,
        drift: Mapping[str, Drift] | None = None,
    ) -> Job:
        """A job whose features have been examined: what can't be trusted is out of every model that it fits."""
        taken = usable(log.rows, log.campaigns)
        looked = examples([taken[place] for place in looked_at(len(taken))], log.campaigns)
        attributes = retyped(reader.attributes(workspace_id), looked.contexts)
        found = examine(looked, attributes)
        return cls(
            services=services,
            workspace_id=workspace_id,
            log=log,
            attributes=found.registry(attributes, workspace_id),
            now=services.clock(),
            run_id=run_id,
            quality=with_late(found, log),
            drift=drift or {},
            options=tuned(reader, workspace_id),
            encoder=wanted_encoder(reader, workspace_id, services.settings, services.clock()),
        )


def retype(job: Job) -> None:
    """Lists the types that a job found the newest values to show, where nobody has declared one meanwhile."""
    types = {attribute.name: attribute.type for attribute in job.attributes}

    def changed(reader: Reader) -> list[Attribute]:
        known = reader.attributes(job.workspace_id)
        found = [(one, types.get(one.name, one.type)) for one in known if not one.declared]
        return [replace(one, type=kind) for one, kind in found if kind != one.type]

    def write(writer: Writer) -> None:
        for attribute in changed(writer):
            writer.put_attribute(attribute)

    with job.services.store.read() as reader:
        some = changed(reader)
    if some:
        job.services.store.write(write)


def wanted_encoder(reader: Reader, workspace_id: str, settings: Settings, now: datetime) -> Wanted:
    """Which encoder is tried: the setting's; under ``auto`` the one that the served models of the workspace were given
    within the week, if any, by what their artifacts say."""
    if settings.encoder != "auto":
        return Wanted(settings.encoder, now.timestamp())
    served = learned(reader, workspace_id)
    policies = [policy for p in served if (policy := reader.policy(workspace_id, p.policy_id)) is not None]
    names = {part.artifact_id for policy in policies for part in policy.mixture if part.artifact_id is not None}
    stored = [artifact for name in sorted(names) if (artifact := reader.artifact(workspace_id, name)) is not None]
    return wanted("auto", now.timestamp(), *(unpack(artifact.blob)[2].get("encoder", {}) for artifact in stored))


def tuned(reader: Reader, workspace_id: str) -> TrainOptions:
    """The numbers of training that were tuned for a workspace; the defaults where none were."""
    workspace = reader.workspace(workspace_id)
    return DEFAULTS if workspace is None else TrainOptions.from_json(workspace.training)


def cross_fitted(job: Job, earlier: Sequence[Logged], held: Sequence[Logged]) -> Callable[[Logged], RewardModel]:
    """Reward models by fold of recipients: each row gets the one that was not fitted on its recipient."""
    of = fold_of(held, FOLDS)
    fitted = []
    for k in range(FOLDS):
        rows = [r for r in (*earlier, *held) if of.get(r.decision.recipient_id) != k]
        fitted.append(RewardModel.load(job.fit(rows, network=False).blob))
    return lambda row: fitted[of[row.decision.recipient_id]]


def as_known(
    job: Job, reader: Reader, campaign: Campaign, policy_id: str, earlier: Sequence[Logged]
) -> dict[str, RewardModel]:
    """The models of what serves that have seen more than the earlier rows, refitted on these alone, by artifact.

    Refreshes teach them the very rows that a candidate is judged on. A candidate of fewer rows would have to make up
    for that: new columns that are worth something would not come in.
    """
    policy = reader.policy(job.workspace_id, policy_id)
    models = {}
    for name in {part.artifact_id for part in policy.mixture} if policy is not None else ():
        stored = None if name is None else reader.artifact(job.workspace_id, name)
        if name is None or stored is None:
            continue
        known = known_of(stored.blob)
        footing = footing_of(known, campaign.campaign_id, job.changed)
        data = job.data(earlier, footing)
        if len(data) and known.rows > len(data) and not footing.anchors:
            models[name] = RewardModel.load(refitted(stored.blob, data).blob)
    return models


def settled(job: AnyFitting) -> AnyFitting:
    """The same, in which rows are forgotten only where that helps.

    Once a campaign's alarms of calibration have ended, models with and without its older rows are compared on its
    newest rows, which neither has seen. Where the older rows help, they come back: the change was none, or has been
    undone.
    """
    recalled = {
        name: replace(drift, changed=None)
        for name, drift in job.drift.items()
        if drift.changed is not None and not drift.miscalibrated and _helps(job, name, drift.changed)
    }
    return replace(job, drift={**job.drift, **recalled})


def _helps(job: Fitting, campaign_id: str, changed: float) -> bool:
    """Whether the rows from before a change make a better model of the newest ones."""
    since = [r for r in job.log.of(campaign_id) if r.trainable and r.decision.decided_at.timestamp() >= changed]
    newest = since[len(since) - int(RECALL_SHARE * len(since)) :]
    if len(newest) < RECALL_ROWS:
        return False
    start = newest[0].decision.decided_at
    earlier = [r for r in job.log.rows if r.decision.decided_at < start]
    held = examples(newest, job.log.campaigns)
    all_of_it = replace(job, drift={name: d for name, d in job.drift.items() if name != campaign_id})
    gain = np.zeros(len(held))
    for sign, one in ((1.0, all_of_it), (-1.0, job)):
        model = RewardModel.load(one.fit(earlier, network=False).blob)
        for found in log_likelihood(model, held).values():
            gain += sign * np.nan_to_num(found)
    return clustered_z(gain, held.cluster)[1] > 0.0
