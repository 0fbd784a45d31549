"""What was left after the kills: what is lost, what is broken, in figures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from optimizer.errors import BadArtifact
from optimizer.service.ids import COLD_POLICY
from optimizer.service.serving import load_policy
from simulations.audit import Report, audit
from simulations.drills import scene
from simulations.drills.load import Acknowledged
from simulations.drills.victims import Kill
from storage.log import Decision, items_of
from storage.open import open_store
from storage.policies import Policy
from storage.port import Reader

#: The service must answer again within so many seconds.
ANSWERS_WITHIN = 5.0


@dataclass(frozen=True)
class Result:
    """What was left after the kills.

    ``left_running``: processes that outlived the server. ``trained_after``: seconds from the last kill until a training
    run had published, None if none did. ``wanted``: how many kills were asked for.
    """

    kills: tuple[Kill, ...]
    publishers_killed: int
    seconds: float
    heard: Acknowledged
    stored_decisions: int
    lost_decisions: tuple[str, ...]
    lost_closings: tuple[str, ...]
    lost_events: tuple[str, ...]
    policies: int
    broken_policies: tuple[str, ...]
    runs: dict[str, int]
    trained_after: float | None
    report: Report
    left_running: int
    wanted: int

    @property
    def slowest_answer(self) -> float:
        """Seconds from a kill to the first answer, at most."""
        return max((kill.answered_seconds for kill in self.kills), default=0.0)

    @property
    def nothing_lost(self) -> bool:
        """Whether all that was acknowledged is there, and the same request got the same decision."""
        return not (self.lost_decisions or self.lost_closings or self.lost_events or self.heard.contradictions)

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        whole = not self.broken_policies and self.report.clean and not self.heard.errors and self.left_running == 0
        enough = len(self.kills) == self.wanted and self.heard.answers > 0 and self.trained_after is not None
        return whole and enough and self.nothing_lost and self.slowest_answer <= ANSWERS_WITHIN


@dataclass(frozen=True)
class Attack:
    """What happened while the service was under attack."""

    kills: tuple[Kill, ...]
    publishers_killed: int
    seconds: float
    heard: Acknowledged
    trained_after: float | None
    wanted: int


def judged(reader: Reader, attack: Attack, left_running: int) -> Result:
    """Compares what was acknowledged with what is stored."""
    stored: dict[str, Decision] = {}
    events: set[tuple[str, str | None]] = set()
    for row in reader.feedback(scene.WORKSPACE):
        stored[row.decision.decision_id] = row.decision
        events |= {(event.event_id, event.decision_id) for event in row.events}
    heard = attack.heard
    policies = list(items_of(lambda at: reader.policies(scene.WORKSPACE, limit=500, cursor=at)))
    return Result(
        kills=attack.kills,
        publishers_killed=attack.publishers_killed,
        seconds=attack.seconds,
        heard=heard,
        stored_decisions=len(stored),
        lost_decisions=tuple(n for n, a in heard.decisions.items() if not _kept(a, stored.get(a["decision_id"]))),
        lost_closings=tuple(ref for ref, how in heard.closed.items() if ref not in stored or stored[ref].status != how),
        lost_events=tuple(ref for ref, decision in heard.events.items() if (ref, decision) not in events),
        policies=len(policies),
        broken_policies=tuple(_broken(reader, policies, {d.policy_id for d in stored.values()})),
        runs=_runs(reader),
        trained_after=attack.trained_after,
        report=audit(reader, scene.WORKSPACE),
        left_running=left_running,
        wanted=attack.wanted,
    )


def trained_after(database: str, since: datetime, within: float) -> float | None:
    """Waits ``within`` seconds for a training run that publishes after ``since``; the seconds until its end, None if
    there is none."""
    until = time.monotonic() + within
    store = open_store(database)
    try:
        while time.monotonic() < until:
            with store.read() as reader:
                runs = reader.training_runs(scene.WORKSPACE, limit=50, status="published").items
            ends = [run.finished_at for run in runs if run.finished_at is not None and run.finished_at > since]
            if ends:
                return (min(ends) - since).total_seconds()
            time.sleep(0.25)
    finally:
        store.close()
    return None


def _runs(reader: Reader) -> dict[str, int]:
    return dict(Counter(run.status for run in reader.training_runs(scene.WORKSPACE, limit=1000).items))


def _broken(reader: Reader, policies: Sequence[Policy], used: set[str]) -> Iterator[str]:
    """Policies that are there in part: named by a pointer or a decision and not stored, or without their artifacts.

    Those that a pointer names are loaded as a worker would load them, with all checks.
    """
    stored = {policy.policy_id for policy in policies}
    served = {p.policy_id for p in reader.pointers() if p.workspace_id == scene.WORKSPACE}
    yield from sorted((used | served) - stored - {COLD_POLICY})
    yield from (policy_id for policy_id in sorted(served & stored) if not _loads(reader, policy_id))
    for policy in policies:
        names = [c.artifact_id for c in policy.mixture if c.artifact_id is not None]
        if any(reader.artifact(scene.WORKSPACE, name) is None for name in names):
            yield policy.policy_id


def _kept(answer: dict[str, Any], stored: Decision | None) -> bool:
    """Whether the store holds the decision that was answered."""
    if stored is None or stored.propensity != answer["propensity"] or stored.policy_id != answer["policy_id"]:
        return False
    action = answer["action"] or {}
    return (stored.variant_id, stored.channel) == (action.get("variant_id"), action.get("channel"))


def _loads(reader: Reader, policy_id: str) -> bool:
    """Whether a policy is there with every artifact, each passing its checks."""
    try:
        load_policy(reader, scene.WORKSPACE, policy_id, {})
    except BadArtifact:
        return False
    return True


def document(result: Result) -> dict[str, Any]:
    """The result for programs."""
    return {
        "passed": result.passed,
        "seconds": round(result.seconds, 1),
        "kills": [asdict(kill) for kill in result.kills],
        "slowest_answer_seconds": result.slowest_answer,
        "answers": result.heard.answers,
        "acknowledged": {
            "decisions": len(result.heard.decisions),
            "events": len(result.heard.events),
            "closings": len(result.heard.closed),
        },
        "broken_connections": result.heard.broken,
        "busy": result.heard.busy,
        "retried_decisions": len(result.heard.retried),
        "refused": result.heard.refused,
        "slowest_request_seconds": result.heard.slowest_seconds,
        "lost_decisions": result.lost_decisions,
        "lost_closings": result.lost_closings,
        "lost_events": result.lost_events,
        "contradictions": result.heard.contradictions,
        "errors": result.heard.errors,
        "stored_decisions": result.stored_decisions,
        "publishers_killed": result.publishers_killed,
        "policies": result.policies,
        "trained_after_seconds": result.trained_after,
        "training_runs": result.runs,
        "broken_policies": result.broken_policies,
        "violations": len(result.report.breaches),
        "not_judged": result.report.unknown,
        "left_running": result.left_running,
    }


def lines(result: Result) -> Iterator[str]:
    """The result for people: a table of figures."""
    by_role = {role: [k for k in result.kills if k.role == role] for role in ("worker", "scheduler")}
    heard = result.heard
    rows: list[tuple[str, object]] = [
        ("kills (workers, scheduler)", f"{len(by_role['worker'])}, {len(by_role['scheduler'])} of {result.wanted}"),
        ("seconds under load", f"{result.seconds:.0f}"),
        ("answers to clients", f"{heard.answers} ({heard.answers / result.seconds:.0f}/s)"),
        ("broken connections, refusals of a busy store", f"{heard.broken}, {heard.busy}"),
        ("decisions acknowledged, lost", f"{len(heard.decisions)}, {len(result.lost_decisions)}"),
        ("events acknowledged, lost", f"{len(heard.events)}, {len(result.lost_events)}"),
        ("confirms and releases acknowledged, lost", f"{len(heard.closed)}, {len(result.lost_closings)}"),
        ("requests repeated after a broken connection", len(heard.retried)),
        ("  answered differently", len(heard.contradictions)),
        ("requests refused (4xx), failed (5xx)", f"{heard.refused}, {len(heard.errors)}"),
        ("slowest answer after a kill", f"{result.slowest_answer:.2f} s (at most {ANSWERS_WITHIN:g})"),
        ("slowest request, all tries together", f"{heard.slowest_seconds:.2f} s"),
        *((f"{role} replaced within", _slowest(kills)) for role, kills in by_role.items()),
        ("training runs", ", ".join(f"{n} {status}" for status, n in result.runs.items()) or "none"),
        ("  first one to publish after the last kill", _after(result.trained_after)),
        ("policies published, publishers killed", f"{result.policies}, {result.publishers_killed}"),
        ("  half published or not to be loaded", len(result.broken_policies)),
        ("audit: violations, not judged", f"{len(result.report.breaches)}, {result.report.unknown}"),
        ("processes left running", result.left_running),
    ]
    yield from (f"{name:<48}{figure}" for name, figure in rows)
    yield from (f"  error: {error}" for error in heard.errors[:5])
    yield "passed" if result.passed else "failed"


def _slowest(kills: Sequence[Kill]) -> str:
    return f"{max(k.replaced_seconds for k in kills):.2f} s" if kills else "not killed"


def _after(seconds: float | None) -> str:
    return "none" if seconds is None else f"after {seconds:.0f} s"
