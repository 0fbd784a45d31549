"""Which words and features of a campaign's variants go with a higher response, and how sure that is.

For each word or feature that some variants have and others lack, and each number that some have more of: what share of
their messages brought each outcome (``observed``), and how much likelier the served model takes it to be. Variants
differ in more than one thing, so this is what goes together and not what causes it; what the same variants share is
told as one.

The model's figures are of its own beliefs: chances averaged over the newest messages' recipients and over channels,
and where 95 % of its posterior draws lie. They begin at "no difference" and move as far as the log moves them, which
is little for what is rare: of 3,000 messages whose unsubscribe rates were 3, 1 and 1 %, such an interval held the true
ratio 6 times in 20. So they rank what to try next, and the observed rates with their bounds are what to state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist, median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.clusters import clusters, mates
from optimizer.bandit.rates import ANY_RATE, RARE, rate_bounds
from optimizer.bandit.rewards import HARMFUL
from optimizer.errors import Conflict, NotFound
from optimizer.model.copywords import Token, token_vectors
from optimizer.model.funnel import chances, steps
from optimizer.model.inference import RewardModel
from optimizer.model.layout import Action
from optimizer.model.moment import seen_at
from optimizer.model.variantfeatures import number_of
from optimizer.service.compared import LEVEL, Compared
from optimizer.service.ledger import STATUSES
from optimizer.service.replay import local_seconds, on_known_clock
from optimizer.service.report import read_compared
from optimizer.service.wiring import Services
from storage.log import COUNTED, Decision
from storage.records import Campaign, Variant

Floats = NDArray[np.float64]
_NORMAL: Final = NormalDist()
#: Decisions that are looked through for messages, newest first, and how many of these chances are averaged over.
_LOOKED_THROUGH, _AVERAGED = 500, 200
_SENT: Final = [code for code, status in enumerate(STATUSES) if status in COUNTED]


@dataclass(frozen=True)
class _Split:
    """Active variants that have something, by their places, and those that they are held against."""

    having: tuple[int, ...]
    others: tuple[int, ...]


def insights(services: Services, workspace_id: str, campaign_id: str) -> dict[str, Any]:
    """What the log and the served model say of the campaign's active variants, the surest findings first.

    Raises:
        NotFound: no such campaign.
        Conflict: code ``no_model``, the campaign has learned nothing yet.
    """
    with services.store.read() as reader:
        campaign = reader.campaign(workspace_id, campaign_id)
    if campaign is None:
        raise NotFound(f"no campaign {campaign_id!r} in this workspace")
    live = services.policies.current(workspace_id, campaign_id)
    model = live.heaviest_model
    if model is None:
        raise Conflict(
            f"campaign {campaign_id!r} serves no learned policy yet; train one first "
            "(`sendtide retrain`, or POST /v1/training-runs)",
            code="no_model",
        )
    told = {"campaign_id": campaign_id, "policy_id": live.policy_id, "level": LEVEL}
    if not campaign.active_variants:
        return {**told, "averaged_over": 0, "insights": []}
    messages = _messages(services, campaign)
    mean, draws = _chances(model, campaign, messages)
    observed = _Observed(read_compared(services, workspace_id, campaign_id, None, None, services.clock())[1], campaign)
    found = [
        _finding(outcome, tokens, campaign, split, mean[k], draws[k])
        | {"observed_with": observed.of(outcome, split.having), "observed_without": observed.of(outcome, split.others)}
        for k, outcome in enumerate(model.message.outcomes)
        if outcome in model.outcomes
        for split, tokens in _shared(campaign.active_variants).items()
    ]
    found.sort(key=lambda one: -abs(one["probability_higher"] - 0.5))
    return {**told, "averaged_over": len(messages), "insights": found}


def _messages(services: Services, campaign: Campaign) -> list[Decision]:
    """The newest messages: to whom and when chances are taken."""
    with services.store.read() as reader:
        newest = reader.decisions(campaign.workspace_id, limit=_LOOKED_THROUGH, campaign_id=campaign.campaign_id).items
    known = [one for one in newest if one.variant_id is not None and not one.snapshot.erased and on_known_clock(one)]
    return known[:_AVERAGED]


def _chances(model: RewardModel, campaign: Campaign, messages: Sequence[Decision]) -> tuple[Floats, Floats]:
    """Chances of each outcome under each active variant, averaged over recipients and channels: of the means (H, V), of
    draws (H, M, V). Without messages they are of the average recipient."""
    heads = model.message
    every, order = np.arange(len(heads.outcomes), dtype=np.int64), steps(heads.outcomes)
    rows = np.zeros((1, heads.layout.base))
    rows[:, 0] = 1.0
    rhythm = np.zeros((len(heads.outcomes), max(1, len(messages))))
    if messages:
        local = np.array([local_seconds(one) for one in messages], dtype=np.int64)
        seen = model.embed([seen_at(one.snapshot.context, one.decided_at) for one in messages])
        rows = heads.layout.base_rows(seen, local).astype(np.float64)
        for i, one in enumerate(messages):
            own = None if model.rhythm is None else model.rhythm.shift(heads.outcomes, one.snapshot.effects, local[[i]])
            rhythm[:, i] = 0.0 if own is None else own[:, 0]
    means, draws = [], []
    for variant in campaign.active_variants:
        place = model.basis.coordinates(variant)
        actions = [Action(campaign.campaign_id, variant.id, channel.id, place) for channel in campaign.channels]
        etas = [heads.coefficients(action) @ rows.T + rhythm for action in actions]
        means.append(np.mean([chances(eta, order).mean(axis=-1) for eta in etas], axis=0))
        drawn = (e[:, None] + heads.deviations(a, every) @ rows.T for e, a in zip(etas, actions, strict=True))
        draws.append(np.mean([chances(eta, order).mean(axis=-1) for eta in drawn], axis=0))
    return np.stack(means, axis=1), np.stack(draws, axis=2)


def _shared(variants: Sequence[Variant]) -> dict[_Split, list[Token]]:
    """Words and features by which of the variants have them; what all have tells nothing."""
    places = range(len(variants))
    owned = [token_vectors(variant).keys() for variant in variants]
    found: dict[_Split, list[Token]] = {}
    for token in dict.fromkeys(token for one in owned for token in one):
        having = tuple(i for i in places if token in owned[i])
        if len(having) < len(variants):
            split = _Split(having, tuple(i for i in places if i not in having))
            found.setdefault(split, []).append(token)
    for name in dict.fromkeys(name for variant in variants for name in variant.features):
        numbers = {i: number for i in places if (number := number_of(variants[i].features.get(name))) is not None}
        if len(set(numbers.values())) > 1:
            least = _upper_half(numbers.values())
            having = tuple(i for i, number in numbers.items() if number >= least)
            split = _Split(having, tuple(i for i in numbers if i not in having))
            found.setdefault(split, []).append(Token("feature", f"{name} ≥ {least:g}"))
    return found


def _upper_half(numbers: Iterable[float]) -> float:
    """Where the upper half of several distinct numbers begins."""
    each = sorted(numbers)
    middle = median(each)
    return next((number for number in each if number > middle), each[-1])


def _finding(
    outcome: str, tokens: list[Token], campaign: Campaign, split: _Split, mean: Floats, draws: Floats
) -> dict[str, Any]:
    """Variants that have something against those that lack it: (V,) mean chances and (M, V) draws of them."""
    having, others = list(split.having), list(split.others)
    with_, without = float(mean[having].mean()), float(mean[others].mean())
    gap = float(_log_odds(with_) - _log_odds(without))
    spread = float(np.std(_log_odds(draws[:, having].mean(axis=1)) - _log_odds(draws[:, others].mean(axis=1))))
    z = _NORMAL.inv_cdf((1.0 + LEVEL) / 2.0)
    return {
        "outcome": outcome,
        "words": [token.text for token in tokens if token.kind == "word"],
        "features": [token.text for token in tokens if token.kind == "feature"],
        "variants": [campaign.active_variants[i].id for i in having],
        "others": [campaign.active_variants[i].id for i in others],
        "chance_with": with_,
        "chance_without": without,
        "odds_ratio": math.exp(gap),
        "low": math.exp(gap - z * spread),
        "high": math.exp(gap + z * spread),
        "probability_higher": _NORMAL.cdf(gap / spread) if spread > 0.0 else 0.5,
    }


def _log_odds(chance: float | Floats) -> Floats:
    safe = np.clip(chance, 1e-15, 1.0 - 1e-15)
    return np.asarray(np.log(safe) - np.log1p(-safe))


class _Observed:
    """What came of a campaign's messages whose attribution windows have passed, by variants."""

    def __init__(self, compared: Compared, campaign: Campaign) -> None:
        ledger = compared.ledger
        self._ledger = ledger
        self._sent = compared.chosen & np.isin(ledger.status, _SENT)
        codes = {name: code for code, name in enumerate(ledger.variants)}
        self._codes = [codes.get(variant.id) for variant in campaign.active_variants]
        self._rows = cache(self._rows_of)

    def of(self, outcome: str, variants: tuple[int, ...]) -> dict[str, Any]:
        """How often an outcome came of some variants' messages, with bounds that hold whenever one looks.

        A harm happens to a recipient once. Of all else a recipient's messages may say the same over and over, so they
        count as one together.
        """
        rows, alike = self._rows(variants)
        found = self._ledger.outcomes.get(outcome)
        if found is None or not rows.size:
            return {"messages": int(rows.size), "count": 0, "estimate": None, "low": None, "high": None}
        count = int(np.count_nonzero(found.happened[rows]))
        weight, prior = (1.0, RARE) if outcome in HARMFUL else (1.0 / alike, ANY_RATE)
        low, high = rate_bounds(count * weight, rows.size * weight, LEVEL, prior)
        return {"messages": int(rows.size), "count": count, "estimate": count / rows.size, "low": low, "high": high}

    def _rows_of(self, variants: tuple[int, ...]) -> tuple[NDArray[np.int64], float]:
        """Places of their messages, and how many of them a recipient has, as its messages see it."""
        codes = [code for i in variants if (code := self._codes[i]) is not None]
        rows = np.flatnonzero(self._sent & np.isin(self._ledger.variant, codes))
        return rows, mates(clusters(self._ledger.recipient[rows], rows.size)) if rows.size else 1.0
