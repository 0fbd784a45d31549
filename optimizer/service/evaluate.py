"""Off-policy report of a policy, stored or given as a file: what it would have earned on the logged decisions.

Beside it stand the policy that serves now and the campaign's cold start. Rows decided after both policies were made are
preferred: neither can have learned from them. Where they are too few, others are used, and the report names who may
have. Values are conditional on the logged eligible sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.clusters import clusters as labelled
from optimizer.bandit.ope import importance_weight
from optimizer.errors import Invalid, NotFound
from optimizer.model.policy import LivePolicy
from optimizer.service.choose import Plan, Situation
from optimizer.service.estimates import Judged, as_logged, by_group, difference, estimates, support
from optimizer.service.evidence import Target, Weighed, clusters, vector_of, weigh
from optimizer.service.feedback import Log, Logged, judgeable, load, people
from optimizer.service.fitting import Job, cross_fitted
from optimizer.service.heldout import MOST_JUDGED
from optimizer.service.ids import COLD_POLICY, no_policy
from optimizer.service.judging import rewarded, segments, untold, values_of
from optimizer.service.policyfile import Given, Told, read_policy
from optimizer.service.replay import Replayer
from optimizer.service.runs import LEAST_RECIPIENTS, LEAST_ROWS
from optimizer.service.serving import load_policy
from optimizer.service.wiring import Services
from storage.policies import Policy
from storage.port import Reader

#: Groups of recipients with fewer rows are not shown.
LEAST_GROUP = 100


@dataclass(frozen=True)
class LeftOut:
    """Closed rows that are not evaluated on.

    Attributes:
        seen: so many are left out since a stored policy may have learned from them.
        seen_by: the stored policies on whose account: their ids by name.
        older: so many more since ``MOST_JUDGED`` newer ones are enough.
    """

    seen: int
    seen_by: Mapping[str, str]
    older: int


def evaluate(services: Services, workspace_id: str, policy_id: str, by: str | None = None) -> dict[str, Any]:
    """Evaluates a stored policy.

    Args:
        services: the wired service.
        workspace_id: whose.
        policy_id: which policy.
        by: an attribute whose values are groups of recipients; None = the one that divides the rows most evenly.

    Returns:
        ``policy_id, campaign_id, rows, recipients, left_out, unseen, seen_by, logged, policy, serving, cold_start,
        support, difference, groups, grouped``: ``left_out`` counts the closed rows that are not used (see ``LeftOut``);
        ``unseen`` says that the policy can't have learned from the rows; ``seen_by`` has the id of each of ``policy``
        and ``serving`` that may have, which flatters its estimates; ``logged`` is the mean reward
        as it was; ``policy``, ``serving`` (absent if it is the same) and ``cold_start`` are estimates by name (see
        ``estimates``); ``difference`` is paired, to what was logged and to the other two; ``groups`` the best estimates
        in each group; ``grouped`` by which attribute, how many ``values`` it has, and of how many groups are ``shown``.

    Raises:
        NotFound: no such policy.
        Invalid: it was rejected (its model is not kept), too few rows are closed, or nobody can be grouped
            by the attribute: no row has it, or it is sensitive or not for the model.
    """
    with services.store.read() as reader:
        policy = reader.policy(workspace_id, policy_id)
        if policy is None:
            raise no_policy(policy_id)
        if not policy.mixture:
            raise Invalid.field("policy_id", f"{policy_id} was rejected: only its verdict is kept, not its model")
        log = load(reader, workspace_id, services.clock())
        stored = _stored(reader, workspace_id, policy.campaign_id, policy)
        rows, left_out = _least_seen(_closed(log, policy.campaign_id), stored)
        _enough(rows, "policy_id")
        _known(rows, by, untold(reader, workspace_id))
        scene = _Scene(services, reader, log, policy.campaign_id, rows, stored, left_out)
        weighed = scene.weigh(scene.targets())
        told = {name: scene.judged(weighed, name) for name in weighed.probability}
        return {"policy_id": policy_id, **scene.report(told, by), "unseen": "policy" not in scene.seen_by}


def evaluate_file(
    services: Services, workspace_id: str, campaign_id: str, path: Path, by: str | None = None
) -> dict[str, Any]:
    """Evaluates a policy given as a file of probabilities (see ``policyfile``) on the decisions that it speaks of.

    The file may speak of a part of the log: then that part must not have been chosen by the actions that were drawn.

    Returns:
        As ``evaluate``, with ``file`` in place of ``policy_id``, ``unseen`` None (the file doesn't say what its maker
        has seen), ``covered``, the share of the closed rows that the file speaks of, and ``given``: how many rows it
        has, how many of them have a probability of ``null``, an ``unknown`` decision id, one of ``other`` campaigns or
        of this one (``known``), how many of these are the ``holdout``'s, for whom no policy chose, and how many can be
        evaluated on (``closed``). Where it gives only the logged actions' probabilities, the direct method and its kin
        use its own predictions, and are left out where a row has none.

    Raises:
        NotFound: no such campaign.
        Invalid: an unreadable row, a distribution of any decision of the campaign that is none, too few rows (with what
            became of the file's), or an attribute that nobody can be grouped by.
    """
    told = read_policy(path)
    given = told.given
    with services.store.read() as reader:
        if reader.campaign(workspace_id, campaign_id) is None:
            raise NotFound(f"no campaign {campaign_id!r} in this workspace")
        log = load(reader, workspace_id, services.clock())
        _checked(given, log.of(campaign_id))
        mine = _closed(log, campaign_id)
        stored = _stored(reader, workspace_id, campaign_id, None)
        covered = [r for r in mine if r.decision.decision_id in given]
        rows, left_out = _least_seen(covered, stored)
        found = _counted(told, log, campaign_id, len(covered))
        _enough(rows, "file", _of_file(found, campaign_id))
        _known(rows, by, untold(reader, workspace_id))
        scene = _Scene(services, reader, log, campaign_id, rows, stored, left_out)
        judged = _from_file(scene, [given[r.decision.decision_id] for r in rows])
        share = len(covered) / len(mine)
        return {"file": str(path), **scene.report(judged, by), "unseen": None, "covered": share, "given": found}


def _checked(given: Mapping[str, Given], mine: Sequence[Logged]) -> None:
    """Refuses a file that says of any of a campaign's decisions what can't be, whether it is evaluated on or not: what
    is wrong there is seldom wrong there alone. The first such line of the file is told."""
    about = [(given[r.decision.decision_id], r.decision) for r in mine if r.decision.decision_id in given]
    kinds = set()
    for one, decision in sorted(about, key=lambda pair: pair[0].line):
        single = one.vector(decision) is None
        if single:
            one.chance()
        kinds.add(single)
        if len(kinds) > 1:
            what = "some rows give distributions and some single numbers; give one kind"
            raise Invalid.field("probability", f"line {one.line}: {what}")


def _counted(told: Told, log: Log, campaign_id: str, closed: int) -> dict[str, int]:
    """What became of a file's rows, of which so many can be evaluated on."""
    known = other = holdout = 0
    for row in log.rows:
        if row.decision.decision_id in told.given:
            mine = row.decision.campaign_id == campaign_id
            known += mine
            other += not mine
            holdout += mine and row.decision.group == "holdout"
    unknown = len(told.given) - known - other
    rows = len(told.given) + told.nulls
    found = {"rows": rows, "null": told.nulls, "unknown": unknown, "other": other}
    return {**found, "known": known, "holdout": holdout, "closed": closed}


def _of_file(found: Mapping[str, int], campaign_id: str) -> str:
    """What became of a file's rows, in words."""
    words = {
        "null": "with a probability of null",
        "unknown": "with a decision_id that is not in the log",
        "other": "of other campaigns",
        "known": f"of decisions of {campaign_id!r}",
        "holdout": "of these the holdout's, for whom no policy chose",
        "closed": "of these closed and with a known propensity",
    }
    told = ", ".join(f"{found[name]} {what}" for name, what in words.items() if found[name] or name == "known")
    hint = (
        '; "sendtide export feedback" writes null where a distribution is not known, as of imported decisions: '
        "give the probability of the logged action, as a number"
    )
    return f"of {found['rows']} rows of the file {told}" + (hint if found["null"] else "")


def _closed(log: Log, campaign_id: str) -> list[Logged]:
    """The closed rows of a campaign that its policies can be judged on as it is now."""
    return [r for r in judgeable(log.of(campaign_id), log.campaigns[campaign_id]) if r.evaluable]


def _stored(reader: Reader, workspace_id: str, campaign_id: str, asked: Policy | None) -> dict[str, Policy]:
    """The stored policies that are compared: the one asked about, and the one that serves, unless it is the same."""
    named = {} if asked is None else {"policy": asked}
    pointer = reader.pointer(workspace_id, campaign_id)
    serving = None if pointer is None else reader.policy(workspace_id, pointer.policy_id)
    if serving is not None and (asked is None or serving.policy_id != asked.policy_id):
        named["serving"] = serving
    return named


def _least_seen(rows: Sequence[Logged], stored: Mapping[str, Policy]) -> tuple[Sequence[Logged], LeftOut]:
    """The newest rows that no policy can have learned from; if they are too few, those that the one asked about can't;
    if these are, too, all. With what is left out."""
    asked = {name: policy for name, policy in stored.items() if name == "policy"}
    for without in (stored, asked):
        since = max((policy.created_at for policy in without.values()), default=None)
        newer = [row for row in rows if since is None or row.decision.decided_at >= since]
        if _lacking(newer) is None:
            first = rows[0].decision.decided_at
            by = {name: policy.policy_id for name, policy in without.items() if policy.created_at > first}
            return newer[-MOST_JUDGED:], LeftOut(len(rows) - len(newer), by, max(0, len(newer) - MOST_JUDGED))
    return rows[-MOST_JUDGED:], LeftOut(0, {}, max(0, len(rows) - MOST_JUDGED))


def _lacking(rows: Sequence[Logged]) -> str | None:
    """What rows lack to be evaluated on."""
    if len(rows) < LEAST_ROWS:
        return f"{len(rows)} closed rows to evaluate on; {LEAST_ROWS} are needed"
    if people(rows) < LEAST_RECIPIENTS:
        return f"closed rows of too few recipients: {people(rows)}, and {LEAST_RECIPIENTS} are needed"
    return None


def _enough(rows: Sequence[Logged], field: str, why: str | None = None) -> None:
    lacking = _lacking(rows)
    if lacking is not None:
        raise Invalid.field(field, lacking if why is None else f"{lacking}: {why}")


def _known(rows: Sequence[Logged], by: str | None, without: Set[str]) -> None:
    if by in without:
        raise Invalid.field("by", f"{by!r} is sensitive or not for the model, and nobody is grouped by it")
    told = {name for row in rows for name in row.decision.snapshot.context if not name.startswith("@")}
    names = sorted(told - without)
    if by is not None and by not in names:
        raise Invalid.field("by", f"no row has an attribute {by!r}; there are: {', '.join(names) or 'none'}")


def _from_file(scene: _Scene, given: Sequence[Given]) -> dict[str, Judged]:
    """The file's policy beside the others; with its own predictions where it names only the logged actions. What is
    given is checked (see ``_checked``)."""
    vectors = [one.vector(row.decision) for one, row in zip(given, scene.rows, strict=True)]
    whole = [vector for vector in vectors if vector is not None]
    others = scene.targets()
    if len(whole) == len(vectors):
        place = {id(row): vector for row, vector in zip(scene.rows, whole, strict=True)}
        weighed = scene.weigh({"policy": lambda row, s, made: place[id(row)], **others})  # noqa: ARG005
        return {name: scene.judged(weighed, name) for name in weighed.probability}
    weighed = scene.weigh(others)
    chance = np.array([one.chance() for one in given])
    known = all(one.predicted is not None and one.value is not None for one in given)
    predicted, value = (
        np.array([getattr(one, name) for one in given], dtype=np.float64) if known else None
        for name in ("predicted", "value")
    )
    weight = importance_weight(chance, weighed.propensity)
    own = Judged(weighed.reward, weight, scene.clusters, predicted, value, scene.rewarded)
    return {"policy": own, **{name: scene.judged(weighed, name) for name in others}}


def _of(live: LivePolicy) -> Target:
    def target(row: Logged, s: Situation, made: Plan) -> NDArray[np.float64]:  # noqa: ARG001  what a target is given
        return vector_of(live, s, made)

    return target


@dataclass(frozen=True)
class _Scene:
    """The rows that are judged, what is needed to replay them, and the stored policies by name."""

    services: Services
    reader: Reader
    log: Log
    campaign_id: str
    rows: Sequence[Logged]
    stored: Mapping[str, Policy]
    left_out: LeftOut

    @property
    def clusters(self) -> Any:
        """The recipients of the rows."""
        return labelled(clusters(self.rows), len(self.rows))

    @cached_property
    def rewarded(self) -> NDArray[np.bool_]:
        """(n,) rows in which something of worth happened."""
        return rewarded(self.log.campaigns[self.campaign_id], self.rows)

    @property
    def seen_by(self) -> dict[str, str]:
        """The stored policies that may have learned from some of the rows: their ids by name."""
        first = min(row.decision.decided_at for row in self.rows)
        return {name: policy.policy_id for name, policy in self.stored.items() if policy.created_at > first}

    def targets(self) -> dict[str, Target]:
        """The stored policies, and the cold start."""
        workspace_id = self.log.campaigns[self.campaign_id].workspace_id
        named = {**{name: policy.policy_id for name, policy in self.stored.items()}, "cold_start": COLD_POLICY}
        return {name: _of(load_policy(self.reader, workspace_id, one, {})) for name, one in named.items()}

    def weigh(self, targets: dict[str, Target]) -> Weighed:
        """The rows under every target, with cross-fitted predictions."""
        campaign = self.log.campaigns[self.campaign_id]
        job = Job.of(self.services, self.reader, campaign.workspace_id, self.log)
        replayer = Replayer(self.reader, self.services.salt)
        return weigh(replayer, self.rows, campaign, targets, cross_fitted(job, (), self.rows))

    def judged(self, weighed: Weighed, name: str) -> Judged:
        """One of the weighed policies."""
        weight = importance_weight(weighed.probability[name], weighed.propensity)
        value = weighed.value[name]
        return Judged(weighed.reward, weight, self.clusters, weighed.q_logged, value, self.rewarded)

    def report(self, policies: dict[str, Judged], by: str | None) -> dict[str, Any]:
        """The figures, the first policy being the one that is asked about."""
        own = policies["policy"]
        without = untold(self.reader, self.log.campaigns[self.campaign_id].workspace_id)
        found = segments(self.rows, without) if by is None else (by, values_of(self.rows, by))
        kinds = [row.decision.group for row in self.rows]
        groups = by_group(policies, "group", kinds, LEAST_GROUP) if len(set(kinds)) > 1 else []
        grouped = None
        if found is not None:
            shown = by_group(policies, found[0], found[1], LEAST_GROUP)
            grouped = {"by": found[0], "values": len(set(found[1])), "shown": len(shown)}
            groups += shown
        return {
            "campaign_id": self.campaign_id,
            "rows": len(self.rows),
            "recipients": own.cluster.count,
            "left_out": asdict(self.left_out),
            "seen_by": self.seen_by,
            "logged": as_logged(own),
            **{name: estimates(judged) for name, judged in policies.items()},
            "support": {name: support(judged) for name, judged in policies.items()},
            "difference": {
                "logged": difference(own, None),
                **{name: difference(own, other) for name, other in policies.items() if other is not own},
            },
            "groups": groups,
            "grouped": grouped,
        }
