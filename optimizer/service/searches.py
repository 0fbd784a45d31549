"""The search that ``tuning`` keeps in its journal: which one is under way, and what it is made on.

Trials are compared with each other, so all of a search are judged on the same rows: those of the log as it stood when
it began. It is gone on with while these are there as they were and the log hasn't outgrown them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.errors import ConfigError, Invalid
from optimizer.model.training.options import DEFAULTS, RANGES, TrainOptions
from optimizer.service.feedback import Log, Logged, load
from optimizer.service.fitting import Job
from optimizer.service.ids import derived
from optimizer.service.wiring import Services
from storage.open import name_of
from storage.port import Reader

if TYPE_CHECKING:
    import optuna

#: Fewer matured rows than this tell no candidate from another.
LEAST = 1_000
#: The newest rows that a search uses at most: a fit must be short against the budget.
MOST = 60_000
#: Where the second and the third part begin.
CUTS = (0.6, 0.8)
#: A search whose log has grown by more than this share of its rows is not gone on with.
GROWN = 0.5
#: Nor one whose own rows have changed by more: a few late events and erased people leave trials comparable.
CHANGED = 0.01
_SEED = 20_260
#: What a study keeps: where its log ends, what it is made on, its trials when last compared, whether it is done.
_UNTIL, _MADE_ON, _TOLD, _DONE = "until", "made_on", "told", "done"

Parts = tuple[list[Logged], list[Logged], list[Logged]]


def search_id_of(services: Services, workspace_id: str) -> str:
    """Whose searches these are: databases of one folder share a journal, and their workspaces may have the same ids."""
    return derived("search", services.salt, name_of(services.settings.database), workspace_id)


def under_way(
    services: Services, reader: Reader, workspace_id: str, journal: Path, trials: int | None
) -> tuple[optuna.Study, Job, Parts]:
    """The search that is under way, else a new one, with the job and the rows that it is made on, in three parts.

    Args:
        services: the wired service.
        reader: of the log.
        workspace_id: whose.
        journal: the file that searches are kept in.
        trials: how many are asked for in all (None = time alone ends a call).

    Raises:
        ConfigError: Optuna is not installed.
        Invalid: too few matured rows; or the journal is none.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise ConfigError("tuning needs Optuna: pip install 'sendtide[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def kept() -> optuna.storages.JournalStorage:
        return optuna.storages.JournalStorage(JournalFileBackend(str(journal)))

    search_id = search_id_of(services, workspace_id)
    last = 0
    now, study = services.clock(), None
    if journal.exists():  # Optuna would make it
        with _readable(journal):
            names = [name for name in optuna.get_all_study_names(kept()) if name.rpartition("/")[0] == search_id]
        last = max((int(name.rpartition("/")[2]) for name in names), default=0)
    if last:
        study = optuna.load_study(study_name=f"{search_id}/{last}", storage=kept())
    if study is not None and not over(study, trials):
        until = datetime.fromisoformat(study.user_attrs[_UNTIL])
        log, rows = _matured(reader, workspace_id, until)
        newer = _matured(reader, workspace_id, now, since=until)[1]
        if _same(study.user_attrs[_MADE_ON], _made_on(rows)) and len(newer) <= GROWN * len(rows):
            return _ready(study, services, reader, workspace_id, log, rows)
    log, rows = _matured(reader, workspace_id, now)
    if len(rows) < LEAST:
        raise Invalid.field("rows", f"{len(rows)} matured rows; tuning needs at least {LEAST}", code="too_few_rows")
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.touch(0o600)
    try:
        with _readable(journal):  # a first line that is none is only found once another follows
            study = optuna.create_study(study_name=f"{search_id}/{last + 1}", storage=kept(), direction="maximize")
    except optuna.exceptions.DuplicatedStudyError:  # another call began it while this one read the log
        return under_way(services, reader, workspace_id, journal, trials)
    study.set_user_attr(_UNTIL, now.isoformat())
    study.set_user_attr(_MADE_ON, _made_on(rows))
    return _ready(study, services, reader, workspace_id, log, rows)


@contextmanager
def _readable(journal: Path) -> Iterator[None]:
    """Tells a file that is no journal by its name."""
    try:
        yield
    except ValueError as fault:  # broken JSON or UTF-8
        told = f"{journal} is no journal of searches ({fault}); move it away, and searches begin anew"
        raise Invalid.field("journal", told, code="unreadable_journal") from None


def _ready(
    study: optuna.Study, services: Services, reader: Reader, workspace_id: str, log: Log, rows: list[Logged]
) -> tuple[optuna.Study, Job, Parts]:
    """A search with its sampler, and its rows in three parts."""
    from optuna.samplers import TPESampler

    study.sampler = TPESampler(seed=_SEED + len(study.trials))
    first, second = (int(cut * len(rows)) for cut in CUTS)
    job = replace(Job.of(services, reader, workspace_id, log), options=DEFAULTS)
    return study, job, (rows[:first], rows[first:second], rows[second:])


def over(study: optuna.Study, trials: int | None) -> bool:
    """Whether a search is not to be gone on with: it never began, its winner was adopted, or so many trials as are
    asked for were made and compared."""
    told = study.user_attrs
    if _DONE in told or not {_UNTIL, _MADE_ON} <= told.keys():
        return True
    return trials is not None and told.get(_TOLD, 0) >= trials


def compared(study: optuna.Study, trials: int, *, adopted: bool) -> None:
    """Notes that the best of so many trials was compared; one that was adopted ends the search."""
    if adopted:
        study.set_user_attr(_DONE, True)
    study.set_user_attr(_TOLD, trials)


def _matured(
    reader: Reader, workspace_id: str, until: datetime, since: datetime | None = None
) -> tuple[Log, list[Logged]]:
    """The log (since then) as it stood at ``until``, and its newest matured rows, as many as a search uses."""
    log = load(reader, workspace_id, until, since)
    return log, [r for r in log.rows if r.trainable and r.matured and r.decision.decided_at <= until][-MOST:]


def _made_on(rows: Sequence[Logged]) -> dict[str, Any]:
    """What trials must share to be compared: the space, and the rows with what is known of each outcome."""
    known: dict[str, list[int]] = {}
    for row in rows:
        for name, outcome in row.outcomes.items():
            counts = known.setdefault(name, [0, 0])
            counts[0] += outcome.matured
            counts[1] += outcome.matured and outcome.happened
    space = {name: list(ends) for name, ends in RANGES.items()}
    return {"space": space, "outcomes": known, "rows": [len(rows)]}


def _same(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether trials made on one may be compared with trials made on the other."""
    counts = [{"rows": one["rows"], **one["outcomes"]} for one in (before, now)]
    return (
        before["space"] == now["space"]
        and counts[0].keys() == counts[1].keys()
        and all(
            abs(then - since) <= CHANGED * before["rows"][0]
            for name in counts[0]
            for then, since in zip(counts[0][name], counts[1][name], strict=True)
        )
    )


def await_judgement(study: optuna.Study, wanted: Sequence[TrainOptions]) -> None:
    """Numbers that were never judged come first: a trial that was interrupted has judged none."""
    from optuna.trial import TrialState

    for known in wanted:
        numbers = known.to_json()
        judged = [trial.params for trial in study.get_trials(states=(TrialState.COMPLETE,))]
        waiting = [trial.system_attrs.get("fixed_params") for trial in study.get_trials(states=(TrialState.WAITING,))]
        if numbers not in judged and numbers not in waiting:
            study.enqueue_trial(numbers)
