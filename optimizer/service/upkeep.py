"""What time does to reservations and to old rows; called by the scheduler."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial

from optimizer.bandit.eligibility import longest_reach
from optimizer.errors import Conflict
from optimizer.service import archiving, cleaning
from optimizer.service.endpoints import told_until
from optimizer.service.outdated import forget_outdated
from optimizer.service.personalizer import logs
from optimizer.service.rereading import reading
from optimizer.service.settle import GRACE, is_overdue, settle_overdue
from optimizer.service.wiring import Services
from storage.port import Reader, Writer

log = logging.getLogger("sendtide.upkeep")

#: How many decisions, with all that is theirs, go in one transaction: others wait for it.
STEP = 1000
#: How long the records of refreshes are kept: one a minute is half a million a year, of 2 kB for each campaign.
REFRESHES_KEPT = timedelta(days=30)
#: How long a revision is kept that took no part in any decision, after it served: each has a model of a MB.
REVISIONS_KEPT = timedelta(days=1)
#: How many messages of other systems, how many events, and how many changes, do.
LOOSE = 1000
#: Retention comes daily: a clock that is so much farther than the last time is doubted.
LEAP = timedelta(days=30)
#: And believed when it still says so after this time: sooner than the next day's run, later than one after a restart.
AGREED = timedelta(hours=12)
#: How many revisions do.
REVISIONS = 50


def expire(services: Services, workspace_id: str, limit: int = 1000) -> int:
    """Settles reservations whose time has passed unconfirmed, as their campaign says; returns how many."""
    now = services.clock()
    with services.store.read() as reader:
        due = reader.due(workspace_id, now - GRACE, limit=limit)
    if not due:
        return 0
    pairs = [(workspace_id, d.recipient_id) for d in due]

    def work(writer: Writer) -> int:
        found = [writer.decision(workspace_id, d.decision_id) for d in due]
        # Confirmed or claimed since it was read, it is no longer due.
        overdue = [decision for decision in found if decision is not None and is_overdue(decision, now)]
        for decision in overdue:
            settle_overdue(writer, decision, now)
        return len(overdue)

    return services.store.write(work, recipients=pairs)


def retain(services: Services, workspace_id: str) -> int:
    """Deletes what is older than the retention allows and than any cap looks back, attribute values included, and
    archives what is older than the other age; returns how many decisions were deleted. The change feed loses what
    endpoints were told of. What an erasure left in files that somebody was reading goes as well, and what a
    Personalizer loop keeps no longer.

    Where the clock is far ahead of the last time, nothing is done yet: it may be wrong, and what is deleted is gone.
    A run that comes ``AGREED`` later goes on if the clock still says so."""
    if _leaps(services, workspace_id):
        return 0
    try:
        return _forget_old(services, workspace_id)
    finally:  # what fails in one spoils not the other
        logs.retain(services, workspace_id)


def _forget_old(services: Services, workspace_id: str) -> int:
    with services.store.read() as reader:  # asked before: files that retention drops are removed, the last one too
        archived = bool(reader.archive_files(workspace_id)) or services.settings.archive_days > 0
        counting = _counting_from(services, reader, workspace_id)
    before = min(services.clock() - timedelta(days=services.settings.retention_days), counting)
    pruned = 0
    while gone := services.store.write(lambda w: w.prune(workspace_id, before, counting_from=counting, limit=STEP)):
        pruned += gone
    while services.store.write(lambda writer: writer.prune_loose(workspace_id, before, limit=LOOSE)):
        pass
    while services.store.write(lambda writer: _prune_changes(writer, workspace_id, before)):
        pass
    recent, last = services.clock() - REFRESHES_KEPT, 2 * timedelta(minutes=services.settings.retrain_minutes)
    known = min(before, services.clock() - last)  # the last retrain stays, else the next one would come early
    while services.store.write(lambda w: w.prune_runs(workspace_id, known, refreshes_before=recent, limit=STEP)):
        pass
    idle = services.clock() - REVISIONS_KEPT
    while services.store.write(lambda w: w.prune_revisions(workspace_id, idle, limit=REVISIONS)):
        pass
    forget_outdated(services, workspace_id)
    if archived:
        _archive(services, workspace_id)
    services.store.scrub()  # at the end: it may find no room
    return pruned


def _leaps(services: Services, workspace_id: str) -> bool:
    now = services.clock()

    def work(writer: Writer) -> datetime | None:
        """The last time, where the clock is too far ahead of it to be believed."""
        last, doubted = writer.last_retention(workspace_id)
        if last is None or now - last <= LEAP or (doubted is not None and AGREED <= now - doubted <= LEAP):
            writer.note_retention(workspace_id, now)
            return None
        if doubted is None or not doubted <= now < doubted + AGREED:
            writer.note_retention(workspace_id, now, doubted=True)
        return last

    last = services.store.write(work)
    if last is None:
        return False
    told = {"workspace": workspace_id, "now": now.isoformat(), "last": last.isoformat()}
    log.warning(
        "the clock is far ahead of the last retention: nothing is deleted until it says so for 12 hours", extra=told
    )
    return True


def _prune_changes(writer: Writer, workspace_id: str, before: datetime) -> int:
    told = told_until(writer, workspace_id)
    return writer.prune_changes(workspace_id, before, told=told, limit=LOOSE)


def _counting_from(services: Services, reader: Reader, workspace_id: str) -> datetime:
    """From when on messages may still count for a cap: without them it would let through more than it says."""
    now, days = services.clock(), services.settings.retention_days
    reach = longest_reach(reader.rules(workspace_id))
    if reach > timedelta(days=days):
        told = {"workspace": workspace_id, "retention_days": days, "cap_days": reach / timedelta(days=1)}
        log.warning("a cap looks back farther than the retention: what it counts is kept as long", extra=told)
    return now - min(reach, now - datetime.min.replace(tzinfo=UTC))  # a cap may look at all of time


def _archive(services: Services, workspace_id: str) -> None:
    try:
        done = archiving.archive(services, workspace_id, archiving.latest(services))
        if done.decisions:
            log.info("archived", extra={"workspace": workspace_id, **asdict(done)})
    except Conflict as error:
        if error.code != cleaning.BUSY:  # else another scheduler is at it
            raise


def keep_columns(services: Services, workspace_id: str) -> None:
    """Brings up to date what is kept for reports (``keptcolumns``): then they come quickly whoever asks first."""
    cursor: str | None = None
    while True:
        with services.store.read() as reader:
            page = reader.campaigns(workspace_id, limit=1, cursor=cursor)
        for campaign in page.items:
            with reading(services.store, partial(services.columns.keep, campaign=campaign)):
                pass
        cursor = page.cursor
        if cursor is None:
            return
