"""Encoders of a recipient's history: small networks over the ids of ``model.historyspec``, each giving 16 columns.

An event is the sum of the embeddings of its facts (kind, subject, channel, variant, step, age); id 0 embeds to nothing.
``gru`` reads the events in order, ``cnn`` is causal with dilated kernels, ``transformer`` attends over those that there
are. The newest event goes straight to the columns; what an encoder makes of the others is added to it, and starts at
nothing: so each begins as the simplest reader of order there is, and says more only where that pays.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from optimizer.model.history import LENGTH, Encoder
from optimizer.model.historyspec import FACTS

#: Numbers of an embedded event, and of an encoder's state: 32 learned less than 16 from some thousand rows.
EMBEDDED, HIDDEN = 16, 16
#: Columns that join f(x).
COLUMNS = 16
#: Kernel of the convolutions and their dilations: together they reach over 31 events.
KERNEL, DILATIONS = 3, (1, 2, 4, 8)
LAYERS, HEADS = 1, 2
#: Share of a state's numbers that is left out in training.
DROPPED = 0.5
#: Added to the attention's logits where there is no event: finite, so that a history without any stays a number.
NOTHING = -1e4


class Reader(nn.Module):
    """What the three encoders share: embedding in front, standardised tanh columns behind.

    ``mean`` and ``scale`` standardise the columns by what they were on training rows.
    """

    kind: ClassVar[Encoder]
    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, size: int, generator: torch.Generator) -> None:
        """``size``: number of ids."""
        super().__init__()
        self.table = nn.Embedding(size, EMBEDDED, padding_idx=0)
        self.newest = nn.Linear(EMBEDDED, COLUMNS)
        self.out = nn.Linear(HIDDEN, COLUMNS, bias=False)
        self.dropout = nn.Dropout(DROPPED)
        self._build()
        self._initialise(generator)
        self.register_buffer("mean", torch.zeros(COLUMNS))
        self.register_buffer("scale", torch.ones(COLUMNS))

    @property
    def width(self) -> int:
        """Number of columns that join f(x)."""
        return COLUMNS

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Columns (n, 16) of ids (n, ``LENGTH``, ``FACTS``), before standardisation; states drop out in training."""
        events = self.table(ids).sum(dim=2)
        state = self.dropout(self._state(events, ids[:, :, 0] > 0))
        return torch.tanh(self.newest(events[:, -1]) + self.out(state))

    def columns(self, ids: torch.Tensor) -> torch.Tensor:
        """The standardised columns (n, 16) of ids."""
        return (self.hidden(ids) - self.mean) * self.scale

    def groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters that read the newest event, and the rest: those are to learn more slowly."""
        named = list(self.named_parameters())
        first = [weight for name, weight in named if name.startswith(("table.", "newest."))]
        return first, [weight for name, weight in named if not name.startswith(("table.", "newest."))]

    def _build(self) -> None:
        raise NotImplementedError

    def _state(self, events: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """The state (n, ``HIDDEN``) behind the newest of embedded events (n, L, E); ``present`` (n, L)."""
        raise NotImplementedError

    def _initialise(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if weight.dim() > 1:
                    fan_in = FACTS if name.startswith("table.") else weight[0].numel()
                    weight.normal_(std=1.0 / float(np.sqrt(fan_in)), generator=generator)
                elif not name.endswith("norm.weight"):
                    weight.zero_()
            self.table.weight[0] = 0.0
            self.out.weight.zero_()


class Gru(Reader):
    """One gated recurrent layer."""

    kind: ClassVar[Encoder] = "gru"

    def _build(self) -> None:
        self.cell = nn.GRU(EMBEDDED, HIDDEN, batch_first=True)

    def _state(self, events: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        del present
        state: torch.Tensor = self.cell(events)[1][0]
        return state


class Cnn(Reader):
    """Causal convolutions with growing dilation, each added to what it read."""

    kind: ClassVar[Encoder] = "cnn"

    def _build(self) -> None:
        self.enter = nn.Linear(EMBEDDED, HIDDEN)
        self.convolutions = nn.ModuleList(nn.Conv1d(HIDDEN, HIDDEN, KERNEL, dilation=d) for d in DILATIONS)

    def _state(self, events: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        del present
        state = self.enter(events).transpose(1, 2)
        for convolution, dilation in zip(self.convolutions, DILATIONS, strict=True):
            padded = nn.functional.pad(state, ((KERNEL - 1) * dilation, 0))
            state = state + torch.relu(convolution(padded))
        newest: torch.Tensor = state[:, :, -1]
        return newest


class Transformer(Reader):
    """Attention over the events, which know their place as counted from the newest."""

    kind: ClassVar[Encoder] = "transformer"

    def _build(self) -> None:
        self.enter = nn.Linear(EMBEDDED, HIDDEN)
        self.position = nn.Parameter(torch.zeros(LENGTH, HIDDEN))
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))

    def _state(self, events: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        state = self.enter(events) + self.position
        absent = (~present).float()[:, None, None, :] * NOTHING
        for block in self.blocks:
            state = block(state, absent)
        newest: torch.Tensor = state[:, -1]
        return newest


class Block(nn.Module):
    """Attention and a small network, each behind a layer norm and added to what it read."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(HIDDEN)
        self.project = nn.Linear(HIDDEN, 3 * HIDDEN)
        self.merge = nn.Linear(HIDDEN, HIDDEN)
        self.network_norm = nn.LayerNorm(HIDDEN)
        self.first = nn.Linear(HIDDEN, 2 * HIDDEN)
        self.second = nn.Linear(2 * HIDDEN, HIDDEN)

    def forward(self, state: torch.Tensor, absent: torch.Tensor) -> torch.Tensor:
        """States (n, L, HIDDEN); ``absent`` (n, 1, 1, L) is added to the attention's logits."""
        n, length, _ = state.shape
        parts = self.project(self.attention_norm(state)).reshape(n, length, 3, HEADS, HIDDEN // HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        weight = torch.softmax(query @ key.transpose(2, 3) * (HIDDEN // HEADS) ** -0.5 + absent, dim=-1)
        state = state + self.merge((weight @ value).transpose(1, 2).reshape(n, length, HIDDEN))
        change: torch.Tensor = self.second(torch.relu(self.first(self.network_norm(state))))
        return state + change


ENCODERS: dict[Encoder, type[Reader]] = {reader.kind: reader for reader in (Gru, Cnn, Transformer)}
#: What each costs to serve beside reading the newest event alone, in µs a decision (32 events, one thread).
COST_US: dict[Encoder, float] = {"gru": 32.0, "cnn": 24.0, "transformer": 75.0}
