"""What past questions could have gained: scored anew by the models that serve, over what scarcity alone closed.

A policy that explores chooses by draws from its posterior, and asks for more than the expected gains tell: the best of
many noisy values is high. Prices that are to turn away just as much as is too much need the draws (``drawn``).

A question's eligible set is taken from the log where no rule that is to be priced masked anything, and computed anew
without those rules where one did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.capacity import cost_micros
from optimizer.bandit.eligibility import Question, eligible, span
from optimizer.model.inference import RewardModel
from optimizer.model.moment import seen_at
from optimizer.model.policy import LivePolicy, risk_mask
from optimizer.service import recipients as people
from optimizer.service.engagement import unanswered_then
from optimizer.service.holidays import holidays_of
from optimizer.service.offered import Offered
from optimizer.service.questions import SAMPLE, Watched
from optimizer.service.replay import Replayer, eligible_logged, on_known_clock, situation_of, space_logged
from storage.log import Decision, Message
from storage.port import Reader
from storage.records import Campaign
from storage.rules import MICROS, Rule

#: Scored questions that are kept for the next time: those of a few workspaces.
KEPT = 4 * SAMPLE

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
#: Workspace, decision, artifact, the campaign's version, the rules that are priced, whether drawn.
Key = tuple[str, str, str | None, int, frozenset[str], bool]


@dataclass(frozen=True, eq=False)
class Scored:
    """One question with the m message actions that gain something.

    Attributes:
        decision: the question.
        send_at, local: (m,) int64, seconds since 1970 and on the recipient's wall clock.
        channel: (m,) int64, index into ``channels``.
        cost: (m,) float64, money.
        gain: (m,) float64, expected reward, or that of one posterior draw, over not sending (over the least, where not
            sending is not allowed).
        channels: ids.
    """

    decision: Decision
    send_at: Ints
    local: Ints
    channel: Ints
    cost: Floats
    gain: Floats
    channels: tuple[str, ...]


@dataclass
class Scores:
    """What was scored before, so that the questions of one minute need not be scored again in the next.

    A score depends on the question, on the model and on the campaign's objective, and on which rules are priced; the
    sample changes slowly. Kept by whoever prices again and again; the oldest go first.
    """

    known: dict[Key, Scored] = field(default_factory=dict)

    def of(self, key: Key) -> Scored | None:
        """The scored question, which counts as new again."""
        found = self.known.pop(key, None)
        if found is not None:
            self.known[key] = found
        return found

    def keep(self, key: Key, scored: Scored) -> None:
        """Remembers a scored question."""
        self.known[key] = scored
        while len(self.known) > KEPT:
            self.known.pop(next(iter(self.known)))


@dataclass
class Memory:
    """What pricing remembers from one time to the next: the demand of each workspace, and what was scored."""

    demand: dict[str, Watched] = field(default_factory=dict)
    scores: Scores = field(default_factory=Scores)


def score_all(
    reader: Reader,
    salt: bytes,
    decisions: Sequence[Decision],
    policies: Mapping[str, tuple[Campaign, LivePolicy]],
    rules: Sequence[Rule],
    without: frozenset[str],
    scores: Scores,
    *,
    drawn: bool = False,
) -> list[Scored]:
    """What each question could have gained, by the model that its campaign's policy trusts most.

    Args:
        reader: the snapshot.
        salt: of the installation.
        decisions: the questions; those of campaigns without a learned model are left out, and those in zones that
            this host doesn't know.
        policies: campaign id -> the campaign and its policy now.
        rules: those that act.
        without: ids of the rules that are to be priced; they mask nothing here.
        scores: what was scored before; gains what is scored now.
        drawn: whether each question is scored by one posterior draw, as the policy chooses, and not by the mean.
    """
    models = {name: best for name, (_, live) in policies.items() if (best := live.heaviest) is not None}
    keys: dict[str, Key] = {}
    offered = {name: Offered.of(campaign) for name, (campaign, _) in policies.items()}
    for d in decisions:
        if d.campaign_id in models and offered[d.campaign_id].whole(d) and on_known_clock(d):
            artifact_id, version = models[d.campaign_id][0].artifact_id, policies[d.campaign_id][0].version
            keys[d.decision_id] = (d.workspace_id, d.decision_id, artifact_id, version, without, drawn)
    found = {name: scored for name, key in keys.items() if (scored := scores.of(key)) is not None}
    new = [d for d in decisions if d.decision_id in keys and d.decision_id not in found]
    replayer = Replayer(reader, salt)
    spaces = {d.decision_id: space_logged(d, replayer.campaign(d)) for d in new}
    masks = _unpriced_masks(reader, replayer, new, spaces, rules, without)
    for campaign_id, (_, model) in models.items():
        own = [d for d in new if d.campaign_id == campaign_id]
        embedded = model.embed([seen_at(d.snapshot.context, d.decided_at) for d in own]) if own else ()
        for d, row in zip(own, embedded, strict=True):
            name = d.decision_id
            found[name] = _scored(d, policies[campaign_id][0], model, row, spaces[name], masks[name], drawn=drawn)
            scores.keep(keys[name], found[name])
    return [found[d.decision_id] for d in decisions if d.decision_id in found]


def _scored(
    decision: Decision,
    campaign: Campaign,
    model: RewardModel,
    row: NDArray[np.float32],
    space: ActionSpace,
    mask: Mask,
    *,
    drawn: bool,
) -> Scored:
    s = situation_of(decision, campaign)
    scores = model.score(row, space, campaign, s.effects)
    open_ = mask[: space.messages]
    if mask.any():
        open_ = risk_mask(scores.chances, campaign, mask[None], decision.snapshot.limits)[0, : space.messages]
    stop = space.no_send_index
    stays = stop is not None and mask[stop]
    reward = scores.reward
    if drawn:  # any draw will do, as long as it is the same one whenever this question is scored
        reward = scores.draws[crc32(decision.decision_id.encode()) % len(scores.draws)].astype(np.float64)
    base = reward[-1] if stays else reward[: space.messages].min(where=open_, initial=np.inf)
    gain = np.where(open_, reward[: space.messages] - base, -np.inf)
    cost = cost_micros(campaign, space.variants, space.channels) / MICROS
    if (cost == cost[0]).all():  # variants that cost the same take the same: the best of them is all that counts
        cube = gain.reshape(space.shape)
        gain = np.where(cube == cube.max(axis=0), cube, -np.inf).reshape(-1)
    a = np.flatnonzero(gain > 0)
    variant, slot, channel = np.unravel_index(a, space.shape)
    return Scored(
        decision=decision,
        send_at=space.send_at[slot],
        local=space.local[slot],
        channel=channel.astype(np.int64),
        cost=cost[variant, channel],
        gain=gain[a],
        channels=space.channels,
    )


def _unpriced_masks(
    reader: Reader,
    replayer: Replayer,
    decisions: Sequence[Decision],
    spaces: Mapping[str, ActionSpace],
    rules: Sequence[Rule],
    without: frozenset[str],
) -> dict[str, Mask]:
    """The eligible set of each question as it would have been without the rules that are to be priced."""
    masks = {d.decision_id: eligible_logged(d) for d in decisions}
    touched = [d for d in decisions if any(r.rule_id in without and not r.dry_run for r in d.reasons)]
    if not touched:
        return masks
    kept = tuple(rule for rule in rules if rule.rule_id not in without)
    workspace_id = touched[0].workspace_id
    stored = reader.recipients(workspace_id, list({d.recipient_id for d in touched}))
    known = ledgers(reader, touched, spaces, kept)
    unanswered = unanswered_then(reader, touched, kept)
    for decision in touched:
        space, logged = spaces[decision.decision_id], masks[decision.decision_id]
        s = situation_of(decision, replayer.campaign(decision))
        campaign = replace(s.campaign, variants=tuple(replace(v, requires=()) for v in s.campaign.variants))
        recipient = stored.get(decision.recipient_id) or people.unknown(workspace_id, decision.recipient_id)
        question = Question(
            space,
            campaign,
            recipient,
            known[decision.decision_id],
            s.zone,
            now=int(decision.decided_at.timestamp()),
            unanswered=unanswered[decision.decision_id],
            holidays=holidays_of(kept, recipient, space),
        )
        mask = eligible(question, kept).mask | logged
        _close_required(s.campaign, space, mask, logged)
        masks[decision.decision_id] = mask
    return masks


def _close_required(campaign: Campaign, space: ActionSpace, mask: Mask, logged: Mask) -> None:
    """A variant with conditions counts as open only where the log shows it open: its answers of then are not known."""
    conditional = {v.id for v in campaign.variants if v.requires}
    for v, name in enumerate(space.variants):
        own = slice(v * space.messages // len(space.variants), (v + 1) * space.messages // len(space.variants))
        if name in conditional and not logged[own].any():
            mask[own] = False


def ledgers(
    reader: Reader, decisions: Sequence[Decision], spaces: Mapping[str, ActionSpace], rules: Sequence[Rule]
) -> dict[str, list[Message]]:
    """The messages that each question's caps looked at: those known when it was decided, as they count now."""
    spans = [span(rules, spaces[d.decision_id]) for d in decisions]
    since, until = min(s[0] for s in spans), max(s[1] for s in spans)
    workspace_id = decisions[0].workspace_id
    if since == until:
        return {d.decision_id: [] for d in decisions}
    held = reader.messages(workspace_id, list({d.recipient_id for d in decisions}), since, until)
    refs = [m.decision_id for mine in held.values() for m in mine if m.decision_id is not None]
    positions = {name: d.position for name, d in reader.decisions_by_id(workspace_id, refs).items()}
    return {d.decision_id: [m for m in held.get(d.recipient_id, ()) if _before(m, d, positions)] for d in decisions}


def _before(message: Message, decision: Decision, positions: Mapping[str, int]) -> bool:
    """Whether a message was in the ledger when a decision was made."""
    if message.decision_id is None:
        return message.known_after < decision.position
    return positions.get(message.decision_id, decision.position) < decision.position
