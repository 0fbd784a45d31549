"""Keeps a loop's model current: takes in what was settled since, fits, publishes the next generation.

Answers are taken in by position, up to the first that is still open. So each is taken once, and which are taken doesn't
hang on what they earned: taking rewarded ones early would teach from successes alone. A caller that always sends its
reward is learned from within seconds; one that only reports successes, when the wait is over.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from optimizer.errors import BadArtifact
from optimizer.model.adf import AdfModel
from optimizer.model.tokens import Tokens, tokens
from optimizer.model.training.adf import KEPT_ENTRIES, AdfOptions, AdfRow
from optimizer.model.training.plain import MOST_ROWS, LoopTrainer
from optimizer.service.ids import fresh
from optimizer.service.personalizer import apprentice
from optimizer.service.personalizer import loop as loops
from optimizer.service.personalizer.apprentice import Tally
from optimizer.service.personalizer.loop import Loop
from optimizer.service.personalizer.outcomes import settled
from optimizer.service.personalizer.ranking import slot_context
from optimizer.service.wiring import Services
from optimizer.service.wrongclock import ahead
from storage.errors import VersionConflict
from storage.port import Reader, Writer
from storage.ranks import Rank, RankModel

log = logging.getLogger("sendtide.personalizer")

#: Loops that one process keeps ready for the next refresh.
_KEPT = 8
#: A model is made anew once it can grow by this part, or when it is this old and can grow at all.
GROWTH = 0.02
PATIENCE = timedelta(hours=1)
#: What an apprentice's other choice counts: it is known not to be what the application does, not what it earns.
_IMITATION = 0.25
#: How long the process that learns a loop keeps it: of many schedulers one holds the rows in memory.
_LEASE = timedelta(minutes=1)
#: Settled answers that one refresh takes in at most, and entries of the matrix that they make: these fill the memory.
_MOST = 50_000
_MOST_ENTRIES = KEPT_ENTRIES


@dataclass
class _Ready:
    """A trainer with what it knows of the store: the generation it made last, the position it has taken in, where it
    began, the ``floor`` below which nothing is learned any more, since a reset or an import passed over it, and up to
    where an apprentice's answers are ``counted``; ``tally`` is of those that no stored generation counts yet."""

    trainer: LoopTrainer
    generation: int
    upto: int
    teaching: tuple[object, ...]
    born_at: datetime
    since: int
    floor: int
    counted: int
    fitted_rows: int = 0
    tally: Tally | None = None

    def worth_a_model(self, is_old: bool) -> bool:
        """Whether enough was taken in since the last model to make another one; after an old one a row is enough."""
        grown = self.trainer.rows - self.fitted_rows
        return grown > 0 and (is_old or grown >= GROWTH * self.fitted_rows)


def _made_lately(model: RankModel, now: datetime, within: timedelta) -> bool:
    """Whether a generation was made so short a time ago."""
    return now < model.made_at + within and not ahead(f"the model of loop {model.workspace_id!r}", model.made_at, now)


class LoopLearner:
    """Refreshes loops of one process. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._ready: dict[str, _Ready] = {}
        self._holder = fresh("learner")

    def refresh(self, services: Services, workspace_id: str, *, due_only: bool = False) -> bool:
        """Takes in what was settled; True when a generation was published.

        Args:
            services: the wired service.
            workspace_id: whose loop.
            due_only: do nothing before ``modelExportFrequency`` has passed since the last generation.
        """
        now = services.clock()
        with services.store.read() as reader:
            loop = loops.load(reader, workspace_id)
            stored = reader.rank_model(workspace_id)
            newest = reader.rank_position(workspace_id)
        if loop.mode == "LoggingOnly" or newest <= (stored.upto if stored else 0):
            return False
        if due_only and stored is not None and _made_lately(stored, now, loop.export_every):
            return False
        lease = f"personalizer/{workspace_id}"
        if not services.store.write(lambda writer: writer.take_lease(lease, self._holder, now, now + _LEASE)):
            return False
        return self._refresh(services, workspace_id, loop, stored, now)

    def _refresh(
        self, services: Services, workspace_id: str, loop: Loop, stored: RankModel | None, now: datetime
    ) -> bool:
        with services.store.read() as reader:
            ready = self._prepared(reader, workspace_id, loop, stored, now)
            taken = _take(reader, workspace_id, loop, ready.upto, now, counted=ready.counted)
        is_old = stored is not None and not _made_lately(stored, now, PATIENCE)
        try:
            ready.trainer.add(taken.rows)
            ready.upto = taken.upto
            ready.tally = apprentice.together(ready.tally, taken.tally)
            if not ready.worth_a_model(is_old):
                return False
            _publish(services, workspace_id, loop, ready, now)
        except VersionConflict:  # reset or imported meanwhile: what was learned is not wanted any more
            del self._ready[workspace_id]
            return False
        except Exception:  # stopped half-way, it would take rows in twice, or hold back what it has fitted
            del self._ready[workspace_id]
            raise
        return True

    def _prepared(
        self, reader: Reader, workspace_id: str, loop: Loop, stored: RankModel | None, now: datetime
    ) -> _Ready:
        """The trainer that goes on from the stored generation, as the loop learns now."""
        generation = 0 if stored is None else stored.generation
        ready = self._ready.pop(workspace_id, None)
        if ready is None or ready.generation != generation or ready.teaching != loop.teaching:
            ready = _begin(reader, workspace_id, loop, stored, now)
        while len(self._ready) >= _KEPT:
            del self._ready[next(iter(self._ready))]
        self._ready[workspace_id] = ready
        return ready


def _publish(services: Services, workspace_id: str, loop: Loop, ready: _Ready, now: datetime) -> None:
    """Fits, and stores the next generation; ``VersionConflict`` where another was stored meanwhile."""
    model = ready.trainer.fit()
    counted = max(ready.counted, ready.upto)
    model.facts = {
        "teaching": told(loop),
        "since": ready.since,
        "floor": ready.floor,
        "counted": counted,
        "whole": ready.trainer.whole,
    }
    made = RankModel(workspace_id, ready.generation + 1, ready.born_at, now, ready.upto, model.to_blob())
    tally = ready.tally

    def work(writer: Writer) -> None:
        writer.put_rank_model(made)
        if tally is not None:
            apprentice.add(writer, workspace_id, tally)

    services.store.write(work)
    ready.fitted_rows = ready.trainer.rows
    ready.generation += 1
    ready.counted, ready.tally = counted, None


@dataclass(frozen=True, slots=True)
class _Taken:
    """Rows to learn from, the position up to which they go, and the tally of an apprentice's new answers among them."""

    rows: list[AdfRow]
    upto: int
    tally: Tally | None


def _begin(reader: Reader, workspace_id: str, loop: Loop, stored: RankModel | None, now: datetime) -> _Ready:
    """A trainer for a process that has none.

    Where the log still holds every row that the stored model learned from, it is read again, which keeps what the rows
    say together; otherwise the model itself is the prior. A model that was taught by other rules is replaced by one
    made from the last ``modelRetrainDays`` of the log (0: it goes on as it is).
    """
    options = AdfOptions(products=loop.settings.products)
    model = _model(stored)
    generation = 0 if stored is None else stored.generation
    born = now if stored is None else stored.born_at
    upto = 0 if stored is None else stored.upto
    # What a reset (without a model) or an import (its model never began in this log) leaves tells where it was.
    floor = upto if model is None else int(model.facts.get("floor", 0 if "since" in model.facts else upto))
    counted = upto if model is None else max(upto, int(model.facts.get("counted", 0)))
    network = loop.settings.network and not loop.explain
    plain = None if model is None else model.plain
    trainer = LoopTrainer(options, network=network, plain=plain)
    ready = _Ready(trainer, generation, upto, loop.teaching, born, upto, floor, counted)
    if model is None:
        return ready
    if model.facts.get("teaching") != told(loop) and (loop.retrain_days or model.products != options.products):
        days = timedelta(days=min(loop.retrain_days, loops.LONGEST_DAYS))
        ready.upto = ready.since = max(_position_before(reader, workspace_id, now - days, upto), floor)
        ready.trainer = LoopTrainer(options, network=network)  # the network, too, was taught by other rules
        return ready
    ready.fitted_rows = model.rows
    if model.facts.get("whole") is True:
        since = int(model.facts.get("since", 0))
        again = _take(reader, workspace_id, loop, since, now, counted=counted, upto=upto)
        if len(again.rows) == model.rows:
            ready.trainer.add(again.rows)
            ready.since = since
            return ready
    ready.trainer = LoopTrainer(options, model, network=network, plain=plain)
    if network and plain is not None:
        newest = _take(reader, workspace_id, loop, max(floor, upto - MOST_ROWS // 2), now, counted=counted, upto=upto)
        ready.trainer.remember(newest.rows)
    return ready


def _model(stored: RankModel | None) -> AdfModel | None:
    if stored is None or not stored.blob:
        return None
    try:
        return AdfModel.from_blob(stored.blob)
    except BadArtifact as fault:
        log.error("stored model unreadable; learning begins anew", extra={"fault": fault.detail})
        return None


def _position_before(reader: Reader, workspace_id: str, since: datetime, otherwise: int) -> int:
    """The position in front of the first answer given since; ``otherwise`` where there is none."""
    first = next(iter(reader.ranks(workspace_id, since=since)), None)
    return otherwise if first is None else first.rank.position - 1


def told(loop: Loop) -> list[str]:
    """The rules of teaching as a model's facts keep them."""
    return [str(part) for part in loop.teaching]


def _take(
    reader: Reader, workspace_id: str, loop: Loop, after: int, now: datetime, *, counted: int, upto: int | None = None
) -> _Taken:
    """Rows of the settled answers after a position, up to the first open one; the tally is of those not ``counted``."""
    rows: list[AdfRow] = []
    tally: Tally | None = None
    position, entries = after, 0
    for number, row in enumerate(reader.ranks(workspace_id, after=after)):
        if upto is None and (number >= _MOST or entries >= _MOST_ENTRIES):
            break
        if upto is not None and row.rank.position > upto:
            break
        rewards = settled(row, loop, now)
        if rewards is None:
            break
        position = row.rank.position
        if row.rank.mode != "LoggingOnly" and rewards:
            if position > counted:
                tally = apprentice.together(tally, apprentice.of(row.rank, rewards))
            taught = list(lessons(row.rank, rewards, loop.default_reward))
            entries += sum(one.entries(products=loop.settings.products) for one in taught)
            rows.extend(taught)
    return _Taken(rows, position, tally)


def lessons(rank: Rank, rewards: Sequence[float], default_reward: float) -> Iterator[AdfRow]:
    """What an answer teaches: the reward of each slot's choice.

    In Apprentice mode the model's own choice, where it was another, is taught the default reward, which is how Azure's
    apprentice came to do as the application does.
    """
    if not rewards:
        return
    for slot, reward in zip(rank.slots, rewards, strict=True):
        context = tokens(slot_context(rank.context, slot.slot_id, slot.features), "c")
        yield AdfRow(context, action_tokens(rank, slot.chosen), reward)
        if slot.shadow is not None and slot.shadow != slot.chosen:
            yield AdfRow(context, action_tokens(rank, slot.shadow), default_reward, _IMITATION)


def action_tokens(rank: Rank, place: int) -> Tokens:
    """The tokens of one of an answer's actions."""
    action = rank.actions[place]
    return tokens(action.features, "a", action.id)


def reset(services: Services, workspace_id: str) -> None:
    """Forgets what was learned; learning begins with what is ranked from now on."""
    publish(services, workspace_id, b"", new=True)


def publish(services: Services, workspace_id: str, blob: bytes, *, new: bool) -> None:
    """Puts a model in the place of the present one; the log until now is passed over."""
    now = services.clock()

    def work(writer: Writer) -> None:
        stored = writer.rank_model(workspace_id)
        upto = writer.rank_position(workspace_id)
        first = RankModel(workspace_id, 1, now, now, upto, blob)
        born = now if new or stored is None else stored.born_at
        generation = 1 if stored is None else stored.generation + 1
        writer.put_rank_model(replace(first, generation=generation, born_at=born))

    services.store.write(work)
