"""What goes wrong in one job of the scheduler process spoils no other."""

from __future__ import annotations

import logging
from collections.abc import Callable

from optimizer.errors import SendtideError
from storage.errors import StoreError

log = logging.getLogger("sendtide.scheduler")


def guarded(name: str, work: Callable[[], object], workspace_id: str | None = None) -> bool:
    """Runs ``work`` and raises nothing; False when something unforeseen happened.

    What can't be reached or loaded now may be there at the next turn. An error of ours is logged with its trace, and
    holds up neither the next workspace nor this process, which all workspaces need.
    """
    where = {} if workspace_id is None else {"workspace": workspace_id}
    try:
        work()
    except (StoreError, SendtideError) as fault:
        log.warning("%s failed; it is tried again", name, extra={**where, "fault": str(fault)})
    except Exception:
        log.exception("%s failed unforeseen; it is tried again", name, extra=where)
        return False
    return True
