"""A process that publishes one policy after the other, so that a kill finds it in the middle: ``python -m`` runs it.

The scheduler publishes once in a training of seconds, so a kill would hardly ever meet it there. This does what a
training run does at its end, with a stored model whose bytes differ each time.
"""

from __future__ import annotations

import random
import sys
import time

from optimizer.config import Settings
from optimizer.model.artifact import pack, unpack
from optimizer.service.publish import artifact_of, new_policy, publish
from optimizer.service.wiring import Services, open_services
from simulations.drills.scene import LEARNED, UNIFORM, WORKSPACE
from storage.errors import StoreUnavailable, VersionConflict
from storage.policies import Artifact, Component

PAUSE_SECONDS = 0.05


def publish_one(services: Services, artifact: Artifact, mark: int) -> bool:
    """Publishes a copy of ``artifact``, told apart by ``mark``, for the campaign that had no policy.

    Returns:
        False when another publish came first, or the store was too busy: nothing was stored.
    """
    graph, arrays, meta = unpack(artifact.blob)
    now = services.clock()
    copy = artifact_of(WORKSPACE, pack(graph, arrays, {**meta, "drill": mark}), artifact.feature_hash, now)
    with services.store.read() as reader:
        pointer = reader.pointer(WORKSPACE, UNIFORM)
    parts = (Component(0.5, copy.artifact_id), Component(0.5, None))
    policy = new_policy(
        WORKSPACE, UNIFORM, now, parts, parent=pointer, exploration={}, verdict={"reason": "drill"}, run_id=None
    )
    try:
        publish(services, [copy], policy, pointer, now)
    except (VersionConflict, StoreUnavailable):
        return False
    return True


def first_artifact(services: Services) -> Artifact:
    """The model that the scene came with."""
    with services.store.read() as reader:
        pointer = reader.pointer(WORKSPACE, LEARNED)
        policy = reader.policy(WORKSPACE, pointer.policy_id) if pointer is not None else None
        names = [c.artifact_id for c in policy.mixture if c.artifact_id is not None] if policy is not None else []
        artifact = reader.artifact(WORKSPACE, names[0]) if names else None
    if artifact is None:
        raise LookupError(f"campaign {LEARNED!r} has no model yet")
    return artifact


def main(database: str) -> None:
    """Publishes until it is killed; says on standard output, once, that a first policy is out."""
    services = open_services(Settings(database=database), watch=False)
    artifact, chance, told = first_artifact(services), random.SystemRandom(), False
    while True:
        published = publish_one(services, artifact, chance.getrandbits(53))
        if published and not told:
            print("publishing", flush=True)
            told = True
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])
