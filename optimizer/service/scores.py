"""The predicted chance of an outcome, recipient by recipient, for retargeting lists. Reads only: nothing is reserved.

A score answers three questions of the campaign's model: how likely the outcome is if nothing is sent, how likely with
the message that makes it likeliest within the campaign's default window from now, and the difference, which is what
sending is worth. Consent and suppression close channels; caps, quiet hours and other rules are left to the decision.

The largest of many uncertain chances is too large: whichever was overestimated most is taken for the best. So the
chance with a message is what each posterior draw's best message has by the mean of all draws, averaged over the draws:
the best one's own where it is known which that is, and nearly the mean of all messages where nothing is known of their
differences. Of five logs of 3,000 rows in which six messages change nothing of a chance of .1, the best of 144 actions
stood .015 to .027 above the mean of them; so it stands .006 to .014 above it, and the uplift's interval holds 0.

Nor are hours told of at which hardly a message was sent: what the curve over the day makes of them is no knowledge, and
the map that calibrates chances has seen none of them. Of messages at 9 and at 11 o'clock the best one was at 4, at 1.8
times its true chance.

What happens without a message is known from decisions without one. A log that has none of them (an imported history of
sends) says nothing of it: the model takes the rate among the recipients of messages for it, which is no evidence, so
neither that chance nor the uplift is told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.bandit.actions import ActionSpace, build_space
from optimizer.bandit.consent import not_agreed, suppressed
from optimizer.bandit.intervals import quantile
from optimizer.bandit.localtime import Zone
from optimizer.errors import Conflict, Invalid, NotFound, SendtideError
from optimizer.model.history import LENGTH
from optimizer.model.inference import RewardModel
from optimizer.model.moment import seen_at
from optimizer.model.triedhours import tried
from optimizer.service import recipients as people
from optimizer.service.catalog import View
from optimizer.service.choose import named
from optimizer.service.erased import gone, refusal
from optimizer.service.framing import factors, resolve_zone, seen_context
from optimizer.service.past import with_past
from optimizer.service.requests import ScoreRequest
from optimizer.service.rhythms import effects_of
from optimizer.service.wiring import Services
from storage.log import Happening
from storage.records import Campaign, JsonObject, Recipient

#: Rows that are read and embedded together.
CHUNK = 1_000
#: Chances without a message are told from so many decisions without one on: fewer can't be calibrated.
LEAST_UNSENT = 100
#: The recipient of a row that names none; no stored one can have this id.
_NOBODY = ""
#: Of the uplift's interval.
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Score:
    """Chances in [0, 1]. ``with_message``, ``uplift`` and the message are None where no channel is open.

    ``without_message`` and ``uplift`` are None where too few decisions without a message are known (see
    ``Scorer.lacking``). ``uplift`` is ``with_message`` − ``without_message``, ``uplift_low`` and ``uplift_high`` its 95
    % interval; ``send_at`` is aware UTC, ``timezone`` the zone that it was chosen in.
    """

    recipient_id: str | None
    timezone: str
    without_message: float | None
    with_message: float | None = None
    uplift: float | None = None
    uplift_low: float | None = None
    uplift_high: float | None = None
    variant_id: str | None = None
    channel: str | None = None
    send_at: datetime | None = None


@dataclass(frozen=True)
class Scorer:
    """One outcome under the model that a campaign serves now.

    Attributes:
        policy_id: the policy whose model it is: the heaviest part of its mixture.
    """

    services: Services
    campaign: Campaign
    outcome: str
    policy_id: str
    model: RewardModel
    view: View
    now: datetime

    @classmethod
    def of(cls, services: Services, workspace_id: str, campaign_id: str, outcome: str) -> Scorer:
        """A scorer of the campaign's present policy.

        Raises:
            NotFound: no such campaign. Invalid: it is archived or has no active variant, or the model has no head for
                the outcome.
            Conflict: code ``no_model``, the campaign has learned nothing yet.
        """
        with services.store.read() as reader:
            view = services.catalog.view(reader, workspace_id)
            if view.standing(reader, campaign_id) is None:
                raise NotFound(f"no campaign {campaign_id!r} in this workspace")
            campaign = view.campaign(reader, campaign_id)
        factors(campaign, None, None)
        live = services.policies.current(workspace_id, campaign_id)
        model = live.heaviest_model
        if model is None:
            raise Conflict(
                f"campaign {campaign_id!r} serves no learned policy yet; train one first "
                "(`sendtide retrain`, or POST /v1/training-runs)",
                code="no_model",
            )
        if outcome not in model.outcomes:
            raise Invalid.field(
                "outcome", f"{outcome!r} is not predicted by {live.policy_id}; allowed: {', '.join(model.outcomes)}"
            )
        return cls(services, campaign, outcome, live.policy_id, model, view, services.clock())

    @property
    def lacking(self) -> str | None:
        """Why ``without_message`` and ``uplift`` aren't told of anybody; None = they are."""
        if self.outcome not in self.model.no_send.outcomes:
            return None  # it can't happen without a message
        known = self.model.unsent(self.outcome)
        design = self.model.design(self.outcome, message=False)
        if known is not None and known >= LEAST_UNSENT * design:
            return None
        told = "doesn't tell how many" if known is None else f"knows {known}"
        if known is not None and known >= LEAST_UNSENT:
            told += f" of few recipients, who tell as much as {known / design:.0f} with one each"
        return (
            f"how likely {self.outcome!r} is without a message is learned from decisions without one: at least "
            f"{LEAST_UNSENT} are needed, and the model of {self.policy_id} {told}; let a part of the recipients get "
            'nothing (a campaign\'s groups: {"holdout": 0.05}), allow no_send, or import decisions without a variant'
        )

    def scores(self, rows: Sequence[ScoreRequest | SendtideError]) -> Iterator[Score | SendtideError]:
        """Scores in order; who was erased is refused (``erased``). A bad row stays what it is and spoils no other."""
        for start in range(0, len(rows), CHUNK):
            chunk = self._without_erased(rows[start : start + CHUNK])
            scored = iter(self._asked([row for row in chunk if isinstance(row, ScoreRequest)]))
            yield from (row if isinstance(row, SendtideError) else next(scored) for row in chunk)

    def _without_erased(self, rows: Sequence[ScoreRequest | SendtideError]) -> list[ScoreRequest | SendtideError]:
        """Rows, a refusal in place of each that names an erased person: a list that is ranked here is written to."""
        ids = {row.recipient_id for row in rows if isinstance(row, ScoreRequest) and row.recipient_id is not None}
        with self.services.store.read() as reader:
            erased = gone(reader, self.services.salt, self.campaign.workspace_id, ids)
        return [
            refusal(row.recipient_id)
            if isinstance(row, ScoreRequest) and row.recipient_id is not None and row.recipient_id in erased
            else row
            for row in rows
        ]

    def _asked(self, asked: Sequence[ScoreRequest]) -> list[Score | Invalid]:
        if not asked:
            return []
        whom = self._recipients(asked)
        contexts = [
            seen_at(with_past(seen_context(r, row.context, self.view.hidden), past, self.now), self.now)
            for r, row, past in zip(whom, asked, self._pasts(asked), strict=True)
        ]
        spaces: dict[str, ActionSpace] = {}
        return [
            where if isinstance(where, Invalid) else self._score(row, where, channels, x, effects, spaces)
            for row, where, channels, x, effects in zip(
                asked,
                map(self._zone, whom),
                self._open(whom),
                self.model.embed(contexts),
                self._effects(asked),
                strict=True,
            )
        ]

    def _zone(self, recipient: Recipient) -> Zone | Invalid:
        """Where they are scored; the refusal of who is where this host knows no zone."""
        try:
            return resolve_zone(recipient, self.campaign)[0]
        except Invalid as unknown:
            return unknown

    def _pasts(self, asked: Sequence[ScoreRequest]) -> list[tuple[Happening, ...]]:
        """Each recipient's last messages and events, as a decision would be told."""
        workspace_id = self.campaign.workspace_id
        with self.services.store.read() as reader:
            return [
                () if row.recipient_id is None else reader.past(workspace_id, row.recipient_id, self.now, limit=LENGTH)
                for row in asked
            ]

    def _effects(self, asked: Sequence[ScoreRequest]) -> list[JsonObject]:
        """What is known of each recipient's own weekly rhythm, as a decision would be told."""
        ids = list({row.recipient_id for row in asked if row.recipient_id is not None})
        with self.services.store.read() as reader:
            rhythms = reader.rhythms(self.campaign.workspace_id, ids) if ids else {}
        return [effects_of(rhythms.get(row.recipient_id or _NOBODY, ()), self.now) for row in asked]

    def _recipients(self, asked: Sequence[ScoreRequest]) -> list[Recipient]:
        ids = list({row.recipient_id for row in asked if row.recipient_id is not None})
        workspace_id = self.campaign.workspace_id
        with self.services.store.read() as reader:
            stored: Mapping[str, Recipient] = reader.recipients(workspace_id, ids) if ids else {}
        return [
            people.patched(
                stored.get(row.recipient_id or _NOBODY, people.unknown(workspace_id, row.recipient_id or _NOBODY)),
                row.recipient,
            )
            for row in asked
        ]

    def _open(self, whom: Sequence[Recipient]) -> NDArray[np.bool_]:
        """(N, C) the channels of the campaign on which each recipient may be written to at all."""
        channels = [channel.id for channel in self.campaign.channels]
        open_ = np.ones((len(whom), len(channels)), np.bool_)
        for closed in (not_agreed(whom, channels), suppressed(whom, channels, self.campaign.category)):
            if closed is not None:
                open_ &= ~closed
        return open_

    def _score(
        self,
        row: ScoreRequest,
        where: Zone,
        channels: NDArray[np.bool_],
        x: NDArray[np.float32],
        effects: JsonObject,
        spaces: dict[str, ActionSpace],
    ) -> Score:
        """The score of one recipient; ``spaces`` keeps the action space of each zone."""
        space = spaces.get(where.name) or spaces.setdefault(where.name, self._space(where))
        scores = self.model.score_outcome(x, space, self.campaign, effects, self.outcome)
        chance, draws = scores.outcome[self.outcome], scores.draws
        without = float(self._told(chance[-1], message=False)) if self.lacking is None else None
        if not channels.any():
            return Score(row.recipient_id, where.name, without)
        closed = ~np.broadcast_to(channels, space.shape).ravel()
        best = int(np.where(closed, -np.inf, chance[:-1]).argmax())
        chosen = np.where(closed, -np.inf, draws[:, :-1]).argmax(axis=1)
        message = float(self._told(chance[chosen], message=True).mean())
        told = Score(row.recipient_id, where.name, without, message, None, None, None, *named(space, best))
        if without is None:
            return told
        uplift = message - without
        margin = quantile(LEVEL) * math.hypot(
            self._error(draws[:, best], message=True), self._error(draws[:, -1], message=False)
        )
        low, high = max(uplift - margin, -without), min(uplift + margin, 1.0 - without)
        return replace(told, uplift=uplift, uplift_low=low, uplift_high=high)

    def _error(self, drawn: NDArray[np.floating], *, message: bool) -> float:
        """The standard error of a chance as it is told. The posterior takes rows to be independent; where one order
        counts for several decisions of a recipient, they know less."""
        design = self.model.design(self.outcome, message=message)
        return math.sqrt(design) * float(np.std(self._told(drawn, message=message)))

    def _told(self, chance: ArrayLike, *, message: bool) -> NDArray[np.float64]:
        """Chances as they are told; draws are linear, and may lie outside [0, 1]."""
        return self.model.calibrated(self.outcome, np.clip(chance, 0.0, 1.0), message=message)

    def _space(self, where: Zone) -> ActionSpace:
        """The slots of the default window from now whose hours were tried, always with ``no_send``."""
        variants, channels = factors(self.campaign, None, None)
        space = build_space(
            variants=variants,
            channels=channels,
            window=(self.now, self.now + timedelta(hours=self.campaign.default_window_hours)),
            slot_minutes=self.campaign.slot_minutes,
            spread=False,
            immediate=False,
            no_send=True,
            decision_id="",
            zone=where,
        )
        hours = self.model.hours(self.campaign.campaign_id)
        if hours is None:
            return space
        kept = tried(hours, space.local)
        return replace(space, send_at=space.send_at[kept], local=space.local[kept])
