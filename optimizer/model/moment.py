"""When a decision was made, beside its context: the time that a model measures the age of timestamps from.

A stored decision holds its moment once, in ``decided_at``, so its context doesn't. Whoever hands a context to a model,
to fit, to embed or to compare, takes it through ``seen_at``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from optimizer.model.columns import MOMENT
from storage.records import JsonObject


def seen_at(context: JsonObject, decided_at: datetime) -> dict[str, Any]:
    """All that a model may see of a decision: its context, as stored or about to be, and the moment it is made.

    The entry is reserved: what a caller says there is not believed.
    """
    return {**context, MOMENT: decided_at.timestamp()}
