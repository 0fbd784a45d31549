"""A click comes after a look: a head of clicks is learned among those who looked, beside a head of looks.

p(clicked) = p(looked) · p(clicked | looked) holds exactly, since whoever opened *or* clicked counts as having looked
(``rewards.LOOKED``). Looks are several times as frequent as clicks, so what channel and hour do to being seen is
learned from more, and what the content does from those alone who saw it. On random logs of two worlds of 504 actions
the greedy choice went .36, .51 (1,500 rows) and .76, .77 (5,000) of the way to the oracle by clicks alone, .48, .67 and
.82, .84 with looks.

A model whose message heads have one of looks has this meaning; the others' click heads are of all messages. So are
those rows' that are *blind*: where no opens are reported, as of text messages or of a campaign without a pixel, a look
is a click, and a head of looks that took it for one would be told of text messages what is true of clicks. There it
learns nothing, whoever is asked is taken to have looked, and the click head learns from all. On random logs of four
worlds in which half of the messages are such (6 variants, 2 channels) the greedy choice went .58 of the way to the
oracle after 2,000 rows and .65 after 6,000 where they were taken for looks, .84 and .93 as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.rewards import LOOKED
from optimizer.model.examples import Examples

Floats = NDArray[np.float64]

#: An outcome, and what comes before it.
AFTER: Mapping[str, str] = {"clicked": LOOKED}
#: How people are told of what no caller named.
TITLES: Mapping[str, str] = {LOOKED: "opened or clicked"}
#: So many looks without a click tell the two apart; and of so many clicks, fewer than a tenth as many looks without one
#: tell that no opens are reported.
LEAST = 30
_SPARE = 0.1
#: The log odds of a look where nobody can tell: all but certain.
SURE = 12.0
#: Channel -> the campaigns that report no opens of it; None = none does.
Blind = Mapping[str, tuple[str, ...] | None]


def steps(outcomes: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(head, head that comes before it), for the heads of a model."""
    return tuple((i, outcomes.index(AFTER[name])) for i, name in enumerate(outcomes) if AFTER.get(name) in outcomes)


def visible(outcomes: Sequence[str]) -> tuple[str, ...]:
    """The outcomes that callers know of."""
    return tuple(name for name in outcomes if name not in AFTER.values())


def told_apart(examples: Examples) -> tuple[Examples, Blind]:
    """The examples with looks where there are enough without a click, else without; and what is blind among them."""
    blind = blind_of(examples)
    examples = hidden(examples, blind)
    if any(before in examples.outcome and _spare(examples, name).sum() < LEAST for name, before in AFTER.items()):
        return without(examples), {}
    return examples, blind


def blind_of(examples: Examples) -> Blind:
    """The channels, or a channel's campaigns, of which clicks are reported and no opens."""
    found: dict[str, tuple[str, ...] | None] = {}
    for name, before in AFTER.items():
        if before not in examples.outcome:
            continue
        clicks, spare = (_counts(examples, rows) for rows in (examples.outcome[name] == 1.0, _spare(examples, name)))
        of_channel: dict[str, list[tuple[str, int, int]]] = {}
        for i, campaign in enumerate(examples.campaigns):
            for j, channel in enumerate(campaign.channels):
                told = campaign.campaign_id, int(clicks[i, j]), int(spare[i, j])
                of_channel.setdefault(channel.id, []).append(told)
        for channel_id, each in of_channel.items():
            if _reports_none(sum(one[1] for one in each), sum(one[2] for one in each)):
                found[channel_id] = None
            elif some := tuple(sorted(name for name, *told in each if _reports_none(*told))):
                found[channel_id] = some
    return found


def is_blind(blind: Blind, campaign_id: str, channel: str | None) -> bool:
    """Whether no opens are reported of a campaign's messages on a channel."""
    if channel is None or channel not in blind:
        return False
    campaigns = blind[channel]
    return campaigns is None or campaign_id in campaigns


def hidden(examples: Examples, blind: Blind) -> Examples:
    """The examples without the looks of blind rows: nobody knows of them (``deemed`` finds them again)."""
    if not blind:
        return examples
    of = np.zeros((len(examples.campaigns), _most_channels(examples)), np.bool_)
    for i, campaign in enumerate(examples.campaigns):
        of[i, : len(campaign.channels)] = [is_blind(blind, campaign.campaign_id, one.id) for one in campaign.channels]
    rows = examples.sent & of[examples.campaign, examples.channel]
    hide = {before for before in AFTER.values() if before in examples.outcome}
    columns = {name: np.where(rows, np.nan, examples.outcome[name]) for name in hide}
    return replace(examples, outcome={**examples.outcome, **columns})


def deemed(examples: Examples, name: str) -> NDArray[np.bool_]:
    """(n,) rows of which it is known what came, and not what came before it: they are taken to have looked."""
    return np.isnan(examples.outcome[AFTER[name]]) & np.isfinite(examples.outcome[name])


def _counts(examples: Examples, rows: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(campaigns, most channels) how many messages of some rows (n,) each has."""
    shape = len(examples.campaigns), _most_channels(examples)
    out = np.zeros(shape, np.int64)
    some = rows & examples.sent
    np.add.at(out, (examples.campaign[some], examples.channel[some]), 1)
    return out


def _most_channels(examples: Examples) -> int:
    return max((len(campaign.channels) for campaign in examples.campaigns), default=0)


def _spare(examples: Examples, name: str) -> NDArray[np.bool_]:
    """(n,) looks without a click."""
    return np.asarray((examples.outcome[AFTER[name]] == 1.0) & (examples.outcome[name] == 0.0))


def _reports_none(clicks: int, spare: int) -> bool:
    return clicks >= LEAST and spare < _SPARE * clicks


def without(examples: Examples) -> Examples:
    """The examples without looks: click heads are of all messages."""

    def kept(columns: Mapping[str, Floats]) -> dict[str, Floats]:
        return {name: column for name, column in columns.items() if name not in AFTER.values()}

    return replace(examples, outcome=kept(examples.outcome), value=kept(examples.value), seen=kept(examples.seen))


def taught(examples: Examples, name: str) -> tuple[Floats, Floats]:
    """What the head of an outcome learns from: outcomes (n,), NaN = nothing, and their seen shares (n,).

    Of a click after a look only rows with a look tell, or those of which no looks are told. Where the click's window is
    open, the share of clicks that would be seen by now is that among the looks that would be: G_clicked / G_looked.
    """
    column, share = examples.outcome[name], examples.share(name)
    before = AFTER.get(name, "")
    if before not in examples.outcome:
        return column, share
    looked, all_ = examples.outcome[before] == 1.0, deemed(examples, name)
    after = np.where(looked, np.minimum(1.0, share / examples.share(before)), np.where(all_, share, 1.0))
    return np.where(looked | all_, column, np.nan), after


def chances(eta: Floats, order: Sequence[tuple[int, int]]) -> Floats:
    """Chances (H, …) of the outcomes themselves, from the heads' log odds; ``order`` as in ``steps``."""
    out = sigmoid(eta)
    for head, before in order:
        out[head] *= out[before]
    return out


def slopes(eta: Floats, worth: Floats, order: Sequence[tuple[int, int]]) -> Floats:
    """d (Σ worth · chance) / dη of every head, (H, …), at log odds (H, …); worth (H,)."""
    gain = (worth * chances(eta, order).T).T
    rest = 1.0 - sigmoid(eta)
    out = gain * rest
    for head, before in order:
        out[before] += gain[head] * rest[before]
    return np.asarray(out)


def sigmoid(eta: NDArray[np.floating]) -> Floats:
    """Logistic function without overflow."""
    out = np.multiply(eta, 0.5, dtype=np.float64)
    out = np.tanh(out)
    out += 1.0
    out *= 0.5
    return np.asarray(out)


def joined(eta: Floats, outcomes: Sequence[str]) -> Floats:
    """Log odds (H, …) of the outcomes themselves, from those of the heads."""
    out = eta
    for head, before in steps(outcomes):
        out = out.copy() if out is eta else out
        chance = -(np.logaddexp(0.0, -eta[head]) + np.logaddexp(0.0, -eta[before]))  # log of the product
        out[head] = chance - np.log(-np.expm1(chance))
    return out
