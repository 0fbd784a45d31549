"""The card of a policy: what it was made from, what it looks at, how well its predictions hold, who put it there.

Importance and calibration are measured on the campaign's newest closed decisions: those made after the policy where
there are enough of them, since it can't have been trained on these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.clusters import clusters, correlation, mates
from optimizer.bandit.intervals import quantile
from optimizer.bandit.spoken import max_window
from optimizer.model.funnel import TITLES, slopes, steps, visible
from optimizer.model.inference import RewardModel
from optimizer.model.learnedparts import learned_parts
from optimizer.model.moment import seen_at
from optimizer.model.prepared import worth_of
from optimizer.model.terms import Seen, message_terms
from optimizer.service.feedback import Logged, closes, logged
from optimizer.service.ids import no_policy
from optimizer.service.offered import Offered
from optimizer.service.replay import Replayer, local_seconds, on_known_clock, space_logged
from optimizer.service.serving import load_policy
from optimizer.service.wiring import Services
from storage.codec import to_micros
from storage.cursors import decisions_before
from storage.log import Change, FeedbackRow
from storage.policies import Policy
from storage.port import Reader
from storage.records import Campaign

Floats = NDArray[np.float64]

#: Decisions that predictions are held against, and how many of them features are weighed on.
_MOST_ROWS, _MOST_WEIGHED = 1_000, 100
#: Decisions after the policy that make the others dispensable.
_ENOUGH: Final = 200
#: Looked through for closed ones, newest first.
_PAGES, _PAGE = 40, 500
_BINS: Final = 10


def card(services: Services, workspace_id: str, policy_id: str) -> dict[str, Any]:
    """The card of a stored policy.

    Raises:
        NotFound: no such policy.
    """
    with services.store.read() as reader:
        policy = reader.policy(workspace_id, policy_id)
        if policy is None:
            raise no_policy(policy_id)
        model = load_policy(reader, workspace_id, policy_id, {}).heaviest_model if policy.mixture else None
        campaign = reader.campaign(workspace_id, policy.campaign_id)
        rows = [] if model is None or campaign is None else _rows(reader, campaign, policy, services)
        replayer = Replayer(reader, services.salt)
        spaces = [space_logged(row.decision, replayer.campaign(row.decision)) for row in rows]
        run = None if policy.run_id is None else reader.training_run(workspace_id, policy.run_id)
        changes = reader.policy_changes(workspace_id, limit=100, policy_id=policy_id)
    facts = {
        "policy_id": policy.policy_id,
        "campaign_id": policy.campaign_id,
        "status": policy.status,
        "created_at": policy.created_at,
        "parent_id": policy.parent_id,
        "revision": policy.revision,
        "mixture": [{"weight": c.weight, "artifact_id": c.artifact_id} for c in policy.mixture],
        "verdict": dict(policy.verdict),
        "run": run and {"run_id": run.run_id, "kind": run.kind, "trigger": run.trigger, "finished_at": run.finished_at},
        "moves": [_told(change) for change in reversed(changes)],
    }
    if model is None or campaign is None:
        return {**facts, "model": None, "evaluated_on": None, "calibration": []}
    return {
        **facts,
        "model": _model(model, campaign, rows),
        "evaluated_on": _evaluated(rows, policy),
        "calibration": _calibration(model, campaign, rows, spaces),
    }


def _told(change: Change) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "at": change.at,
        "by": change.detail or "the gate",
        "policy_id": change.policy_id,
        "replaced_id": change.replaced_id,
    }


def _model(model: RewardModel, campaign: Campaign, rows: Sequence[Logged]) -> dict[str, Any]:
    meta = model.artifact_meta
    return {
        "rows": int(meta["rows"]),
        "outcomes": list(model.outcomes),
        "follows": [
            {"outcome": name, "earlier": TITLES.get(earlier, earlier), "share": share}
            for name, shares in model.message.links.items()
            for earlier, share in shares.items()
        ],
        "network": dict(meta.get("network", {})),
        "encoder": dict(meta.get("encoder", {})),
        "features": model.spec.describe(),
        "importance": _importance(model, campaign, [row for row in rows if row.decision.variant_id is not None]),
    }


def _rows(reader: Reader, campaign: Campaign, policy: Policy, services: Services) -> list[Logged]:
    """Closed decisions that were carried out, newest first: nearly the newest. What is still open is passed over in
    steps that grow, however many decisions a day brings."""
    now, offered = services.clock(), Offered.of(campaign)
    found: list[Logged] = []
    step = timedelta(hours=1.0)
    cursor: str | None = decisions_before(to_micros(now - timedelta(hours=max_window(campaign))))
    for _ in range(_PAGES):
        page = reader.decisions(campaign.workspace_id, limit=_PAGE, cursor=cursor, campaign_id=campaign.campaign_id)
        if page.cursor is not None and not any(closes(campaign, decision) <= now for decision in page.items):
            cursor, step = decisions_before(to_micros(page.items[-1].decided_at - step)), 2.0 * step
            continue
        for decision in page.items:
            if decision.imported or decision.action is None or decision.mode != "live" or not on_known_clock(decision):
                continue
            row = logged(campaign, FeedbackRow(decision, reader.events(campaign.workspace_id, decision)), now)
            if row is not None and row.closed and row.trainable and offered.whole(decision):
                found.append(row)
        cursor = page.cursor
        if cursor is None or len(found) >= _MOST_ROWS:
            break
    newer = [row for row in found if row.decision.decided_at >= policy.created_at]
    return (newer if len(newer) >= _ENOUGH else found)[:_MOST_ROWS]


def _evaluated(rows: Sequence[Logged], policy: Policy) -> dict[str, Any] | None:
    if not rows:
        return None
    times = [row.decision.decided_at for row in rows]
    return {
        "decisions": len(rows),
        "first": min(times),
        "last": max(times),
        "unseen": min(times) >= policy.created_at,
    }


def _importance(model: RewardModel, campaign: Campaign, rows: Sequence[Logged]) -> list[dict[str, Any]]:
    """How much each feature moves the expected reward from message to message: the standard deviation of its terms in
    units of reward, and its share of all of them; the largest first."""
    worth = worth_of(model.message, campaign, model.artifact_meta["values"], [v.id for v in campaign.variants])
    of_variant = dict(zip((v.id for v in campaign.variants), worth.T, strict=True))
    variants = {variant.id: variant for variant in campaign.variants}
    moved: list[dict[tuple[str, str], float]] = []
    for row in rows[:_MOST_WEIGHED]:
        decision = row.decision
        context = seen_at(decision.snapshot.context, decision.decided_at)
        x = model.embed([context])[0]
        parts = learned_parts(model.embedder, context, x)
        seen = Seen(x.astype(np.float64), parts, decision.snapshot.effects)
        variant, channel = variants[decision.variant_id or ""], decision.channel or ""
        terms = message_terms(model, seen, campaign.campaign_id, variant, channel, local_seconds(decision))
        slope = slopes(sum(terms.values(), np.zeros(len(worth))), of_variant[variant.id], steps(model.message.outcomes))
        sums: dict[tuple[str, str], float] = {}
        for name, term in terms.items():
            key = (name.kind, name.feature)
            sums[key] = sums.get(key, 0.0) + float(slope @ term)
        moved.append(sums)
    names = dict.fromkeys(key for one in moved for key in one if key[0] not in ("level", "residual"))
    sizes = {key: float(np.std([one.get(key, 0.0) for one in moved])) for key in names}
    total = sum(sizes.values()) or 1.0
    ordered = sorted(sizes.items(), key=lambda one: (-one[1], one[0]))
    return [
        {"kind": kind, "feature": feature, "size": size, "share": size / total} for (kind, feature), size in ordered
    ]


def _calibration(
    model: RewardModel, campaign: Campaign, rows: Sequence[Logged], spaces: Sequence[ActionSpace]
) -> list[dict[str, Any]]:
    """Of each outcome what was predicted for the chosen action and what came of it, in bins of like predictions.

    ``spaces`` are the rows' own: of the campaign's version that they were decided under, since an action is a number in
    its slots.
    """
    predicted: dict[str, list[_Held]] = {}
    for row, space in zip(rows, spaces, strict=True):
        decision = row.decision
        if decision.action is None or decision.group in ("baseline", "holdout"):
            continue
        x = model.embed([seen_at(decision.snapshot.context, decision.decided_at)])[0]
        chances = model.score(x, space, campaign, decision.snapshot.effects).outcome
        heads = model.message if decision.variant_id is not None else model.no_send
        for name in visible(heads.outcomes):
            if name in row.outcomes:
                chance, happened = float(chances[name][decision.action]), row.outcomes[name].happened
                predicted.setdefault(name, []).append(_Held(chance, happened, decision.recipient_id))
    return [{"outcome": name, "rows": len(held), "bins": _bins(held)} for name, held in sorted(predicted.items())]


@dataclass(frozen=True, slots=True)
class _Held:
    """A chance that was predicted for a decision of a recipient, and what came of it."""

    chance: float
    happened: bool
    recipient_id: str


def _bins(held: Sequence[_Held]) -> list[dict[str, Any]]:
    """Bins of about equal size, with 95 % score intervals of the observed rate (Wilson 1927).

    What was predicted alike is in one bin: cut through, it would be told apart by something that wasn't predicted. A
    recipient's decisions tell less than as many recipients' where one order counts for several: by how alike they are
    over all bins, which knows more than one bin, rows count as fewer (Kish 1965).
    """
    ordered = sorted(held, key=lambda one: one.chance)
    every = np.array([one.chance for one in ordered])
    outcome = np.array([float(one.happened) for one in ordered])
    codes: dict[str, int] = {}
    who = np.array([codes.setdefault(one.recipient_id, len(codes)) for one in ordered])
    alike = correlation(outcome - every, clusters(who, who.size))
    starts = np.linspace(0, len(every), min(_BINS, len(every)), endpoint=False).astype(np.int64)
    starts = np.unique(np.searchsorted(every, every[starts]))
    found = []
    for start, stop in pairwise([*starts.tolist(), len(every)]):
        rows, rate, z = stop - start, float(outcome[start:stop].mean()), quantile(0.95)
        n = rows / (1.0 + alike * (mates(clusters(who[start:stop], rows)) - 1.0))
        centre, half = rate + z**2 / (2 * n), z * ((rate * (1 - rate) + z**2 / (4 * n)) / n) ** 0.5
        low, high = ((centre + sign * half) / (1 + z**2 / n) for sign in (-1.0, 1.0))
        found.append(
            {
                "rows": rows,
                "predicted": float(every[start:stop].mean()),
                "observed": rate,
                "low": max(0.0, low),
                "high": min(1.0, high),
            }
        )
    return found
