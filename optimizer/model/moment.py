"""When a decision was made, beside its context: the time that a model measures the age of timestamps from.

A stored decision holds its moment once, in ``decided_at``, so its context doesn't. Whoever hands a context to a model,
to fit, to embed or to compare, takes it through ``seen_at``.
"""

from __future__ import annotations

from datetime import datetime

from optimizer.model.columns import MOMENT
from storage.records import JsonObject


def seen_at(context: JsonObject, decided_at: datetime) -> JsonObject:
    """All that a model may see of a decision: its context, as stored or about to be, and the moment it is made.

    The entry is reserved: what a caller says there is not believed.
    """
    moment = decided_at.timestamp()
    return context if context.get(MOMENT) == moment else {**context, MOMENT: moment}


def mark(context: JsonObject, decided_at: datetime) -> None:
    """Writes the moment into a context that was just read, and that nobody else holds, so that ``seen_at`` needs no
    copy: those of a million rows would be a third of a gigabyte.

    An empty one is left as it is: stores hand out the same one for all rows.

    Raises:
        TypeError: the context can't be written to.
    """
    if not context:
        return
    if not isinstance(context, dict):
        raise TypeError(f"a context that is marked must be a dict, this is a {type(context).__name__}")
    context[MOMENT] = decided_at.timestamp()
