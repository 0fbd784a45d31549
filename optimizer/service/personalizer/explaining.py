"""Why actions were ranked as they were: Azure's ``inferenceExplanation``, by the model in service."""

from __future__ import annotations

from optimizer.model import explaining
from optimizer.model.adf import Action
from optimizer.service.personalizer import loop as loops
from optimizer.service.wiring import Services
from storage.ranks import Rank

#: Features and products of an action that are told.
MOST = 10


def explanation(services: Services, answer: Rank) -> list[list[tuple[str, float]]] | None:
    """For each action of an answer the features that move its score most; None where the loop doesn't explain."""
    with services.store.read() as reader:
        if not loops.load(reader, answer.workspace_id).explain:
            return None
        model = services.loops.current(reader, answer.workspace_id).model
    if model is None:
        return [[] for _ in answer.actions]
    actions = [Action(action.id, action.features) for action in answer.actions]
    return explaining.explain(model, answer.context, actions, MOST)
