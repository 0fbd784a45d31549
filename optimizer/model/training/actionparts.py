"""What of an action a column of the context may act through: its kind, time, channel or variant, as a row's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from optimizer.model.examples import Examples
from optimizer.model.timefeatures import SHORT, harmonics

Through = Literal["level", "variant", "channel", "time"]
#: The blocks of weights (``layout``) by which a feature acts through a part: on all actions alike, by variant, …
THROUGH: Mapping[Through, tuple[str, ...]] = {
    "level": ("one*plain",),
    "variant": ("variant*plain", "feature*plain"),
    "channel": ("channel*plain",),
    "time": ("one*plain_time",),
}
#: Channels, or variants, that are told apart: those with the most rows.
MOST = 32


def action_parts(examples: Examples) -> dict[str, NDArray[np.float64]]:
    """By part (n, u) what n rows' actions are: ``level`` (1), ``no_send``, ``time`` (short harmonics), ``channel`` and
    ``variant`` (which of the most frequent). Where nothing was sent, only the first two are not 0."""
    sent = examples.sent
    names = np.array(
        [
            campaign.channels[channel].id if channel >= 0 else ""
            for campaign, channel in zip(
                (examples.campaigns[i] for i in examples.campaign.tolist()), examples.channel.tolist(), strict=True
            )
        ]
    )
    return {
        "level": np.ones((len(sent), 1)),
        "no_send": (~sent[:, None]).astype(np.float64),
        "time": harmonics(examples.local)[:, :SHORT] * sent[:, None],
        "channel": _one_hot(names, sent),
        "variant": _one_hot(examples.campaign * 4096 + examples.variant, sent),
    }


def _one_hot(keys: NDArray[np.generic], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One-hot of the most frequent keys among the rows ``where``; rows elsewhere are zero."""
    distinct, counts = np.unique(keys[where], return_counts=True)
    kept = distinct[np.argsort(-counts, kind="stable")[:MOST]]
    hit: NDArray[np.bool_] = (keys[:, None] == kept[None, :]) & where[:, None]
    return hit.astype(np.float64)
