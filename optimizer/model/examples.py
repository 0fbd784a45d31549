"""Training rows as columns: what was decided for whom, and what came of it so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import Invalid
from storage.records import Campaign, JsonObject

#: ``variant`` and ``channel`` of a row whose action was not to send.
NO_SEND = -1


@dataclass(frozen=True)
class Examples:
    """n decisions of one workspace.

    Attributes:
        contexts: n contexts as they were used when deciding, with its moment (``model.moment``).
        campaigns: the campaigns that ``campaign`` points into.
        campaign: (n,) index into ``campaigns``.
        variant: (n,) index into that campaign's ``variants`` (archived ones included), −1 for no_send.
        channel: (n,) index into that campaign's ``channels``, −1 for no_send.
        local: (n,) local wall-clock seconds of the send; of the decision for no_send.
        outcome: per outcome (n,) 1 = has happened, 0 = not, or not yet; NaN = nothing is known, or not applicable.
        value: per outcome (n,) the value that came with it; NaN = none.
        cluster: (n,) the recipient, for held-out splits and clustered errors.
        effects: n recipient effects as they were used when deciding; empty = none of any.
        seen: per outcome (n,) the share in (0, 1] of its happenings that would be known by now (``bandit.hazards``),
            1 where the outcome is final. An outcome that is not named is final in every row.
    """

    contexts: Sequence[JsonObject]
    campaigns: tuple[Campaign, ...]
    campaign: NDArray[np.int64]
    variant: NDArray[np.int64]
    channel: NDArray[np.int64]
    local: NDArray[np.int64]
    outcome: Mapping[str, NDArray[np.float64]]
    value: Mapping[str, NDArray[np.float64]]
    cluster: NDArray[np.int64]
    effects: Sequence[JsonObject] = ()
    seen: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.contexts)
        columns: dict[str, NDArray[np.int64] | NDArray[np.float64]] = {
            "campaign": self.campaign,
            "variant": self.variant,
            "channel": self.channel,
            "local": self.local,
            "cluster": self.cluster,
            **{f"outcome.{name}": column for name, column in self.outcome.items()},
            **{f"value.{name}": column for name, column in self.value.items()},
            **{f"seen.{name}": column for name, column in self.seen.items()},
        }
        for name, column in columns.items():
            if column.shape != (n,):
                raise Invalid.field(name, f"has shape {column.shape}, must be ({n},) like contexts")
        if len(self.effects) not in (0, n):
            raise Invalid.field("effects", f"has {len(self.effects)} rows, must have {n} like contexts, or none")
        for name, share in self.seen.items():
            if not ((share > 0.0) & (share <= 1.0)).all():
                raise Invalid.field(f"seen.{name}", "must lie in (0, 1]")
        self._check_indices()

    def _check_indices(self) -> None:
        if len(self.contexts) == 0:
            return
        if self.campaign.min() < 0 or self.campaign.max() >= len(self.campaigns):
            raise Invalid.field("campaign", f"must index the {len(self.campaigns)} campaigns")
        variants = np.array([len(campaign.variants) for campaign in self.campaigns])[self.campaign]
        channels = np.array([len(campaign.channels) for campaign in self.campaigns])[self.campaign]
        for name, column, count in (("variant", self.variant, variants), ("channel", self.channel, channels)):
            if (column < NO_SEND).any() or (column >= count).any():
                raise Invalid.field(name, "must index the row's campaign, or be −1 for no_send")
        if ((self.variant == NO_SEND) != (self.channel == NO_SEND)).any():
            raise Invalid.field("channel", "must be −1 in exactly the rows whose variant is −1")

    def __len__(self) -> int:
        return len(self.contexts)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Names of the outcomes, sorted."""
        return tuple(sorted(self.outcome))

    @property
    def sent(self) -> NDArray[np.bool_]:
        """(n,) whether the row's action was a message."""
        return np.not_equal(self.variant, NO_SEND)

    def share(self, name: str) -> NDArray[np.float64]:
        """(n,) the seen share of an outcome: ones where nothing else is said."""
        return self.seen.get(name, np.ones(len(self)))

    @property
    def told(self) -> float:
        """How many final rows these are worth: the seen shares of known outcomes, of the outcome with the most."""
        return max(
            (float(self.share(name)[np.isfinite(column)].sum()) for name, column in self.outcome.items()), default=0.0
        )

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Examples:
        """The rows at ``index`` (positions or a mask), in that order."""
        where = np.flatnonzero(index) if index.dtype == np.bool_ else index.astype(np.int64)
        return Examples(
            contexts=[self.contexts[i] for i in where.tolist()],
            campaigns=self.campaigns,
            campaign=self.campaign[where],
            variant=self.variant[where],
            channel=self.channel[where],
            local=self.local[where],
            outcome={name: column[where] for name, column in self.outcome.items()},
            value={name: column[where] for name, column in self.value.items()},
            cluster=self.cluster[where],
            effects=[self.effects[i] for i in where.tolist()] if self.effects else (),
            seen={name: column[where] for name, column in self.seen.items()},
        )
