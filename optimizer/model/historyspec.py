"""What a model reads of a recipient's history, learned once from data and then frozen with the model.

A closed-form summary joins the encoded context; ids of a fixed vocabulary are what an encoder reads in order. Neither
fails on what it has not seen.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import BadArtifact
from optimizer.model.columns import CLIP
from optimizer.model.hashing import signed_bucket
from optimizer.model.history import LENGTH, SENT, Events, Past, read, read_all
from storage.records import JsonObject

#: Kinds that say a recipient took note of a message.
ENGAGED: Final = frozenset({"opened", "clicked", "converted"})
#: Half-lives of the decayed counts, in days.
HALF_LIVES: Final = (1.0, 7.0, 30.0)
#: Half-life of the decayed counts of messages by variant, in days.
VARIANT_HALF_LIFE: Final = 7.0
#: What an event was about counts so much less for each later one of its kind: by order, not by age. Where the last of
#: several purchases decides what is wanted, 2,000 rows then find the right one of six variants for .76 of the people,
#: where counts that halve in 7 and 30 days find it for .60 and .48; where the most frequent one does, for .72 (.63,
#: .75). Means of two worlds.
ABOUT_DECAY: Final = 0.5
#: How the names of these numbers begin; then come kind and subject.
_ABOUT: Final = "about."
#: An age that stands for "never", and beyond which ages are alike, in hours.
NEVER: Final = 90 * 24.0
#: Numbers that describe an event to an encoder: kind, subject, channel, variant, step, age. The *step* is what the
#: event was about after what the one before it was about: first-order transitions, as in Rendle et al. 2010 (FPMC). A
#: small network does not find them by itself in the few thousand rows of a young log: without steps none of the three
#: learned anything from 3,800 rows of a world where the order of the last two events decides; with them, up to 60 % of
#: what there was to learn.
FACTS: Final = 6
#: Most named values of each; the rest falls into hashed buckets.
_MOST_NAMED: Final = {"kinds": 12, "subjects": 48, "channels": 8, "variants": 24, "steps": 96}
_REST = 4
#: Of these the summary has columns: each costs weights for every variant and channel.
_SUMMED_KINDS, _SUMMED_CHANNELS, _SUMMED_VARIANTS, _SUMMED_ABOUT = 6, 4, 8, 12
#: Upper ends of the age classes, in hours.
_AGES: Final = (0.25, 0.5, 1.0, 2.0, 6.0, 12.0, 24.0, 48.0, 96.0, 168.0, 336.0, 720.0)
#: A summary number that varies less than this is left out.
_FLAT = 1e-3
#: How the summary's numbers are named. The first way called a kind ``sent.email`` what it called the channel ``email``;
#: artifacts that say nothing have it, and go on to mean what they meant. Under the second, each subject that events
#: were about was a feature of its own.
_FIRST_NAMING, _SECOND_NAMING, _NAMING = 1, 2, 3
_Value = TypeVar("_Value", str, tuple[str, str])
_PREFIXES: Final = ("event.", f"{SENT}.channel.", f"{SENT}.variant.")


@dataclass(frozen=True)
class HistorySpec:
    """The frozen vocabulary of a model's histories, and the columns of their summary.

    Attributes:
        kinds, subjects, channels, variants, steps: values with an id of their own, most frequent first.
        columns: (name, mean, scale) of every number of the summary.
        naming: which way these names are made; see ``_Sums.names``.
        about: (kind, subject) that the summary counts, most frequent first: a bought coat says something else than one
            that was looked at.
    """

    kinds: tuple[str, ...]
    subjects: tuple[str, ...]
    channels: tuple[str, ...]
    variants: tuple[str, ...]
    steps: tuple[str, ...]
    columns: tuple[tuple[str, float, float], ...]
    naming: int = _NAMING
    about: tuple[tuple[str, str], ...] = ()

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of the summary's numbers, e.g. ``sent.channel.email.7d``."""
        return tuple(name for name, _, _ in self.columns)

    @cached_property
    def counted(self) -> tuple[str, ...]:
        """For each number of the summary the feature that it belongs to: what it counts, at all its half-lives.

        What events of a kind were about is one feature, as the levels of a category are: nearly each of these numbers
        follows from the others, so that of single ones chance would put to rest what tells two subjects apart.
        """
        names = (label.rpartition(".")[0] for label in self.labels)
        if self.naming <= _SECOND_NAMING:
            return tuple(names)
        return tuple(".".join(name.split(".")[:2]) if name.startswith(_ABOUT) else name for name in names)

    @cached_property
    def plain(self) -> tuple[bool, ...]:
        """For each number of the summary whether it carries a broad effect: what events were about does, since what
        somebody bought speaks for all variants of which the same is said (through the features of variants)."""
        return tuple(self.naming > _SECOND_NAMING and name.startswith(_ABOUT) for name in self.labels)

    @cached_property
    def size(self) -> int:
        """How many ids there are; 0 is "nothing"."""
        return 1 + sum(len(values) + _REST for values in self._vocabulary) + len(_AGES) + 1

    def summary(self, contexts: Sequence[JsonObject]) -> NDArray[np.float64]:
        """The summary of the histories in n contexts, standardised, (n, width)."""
        place, mean, scale = self._standard
        raw = self._sums.of(read_all(contexts))[:, place]
        return np.clip((raw - mean) / scale, -CLIP, CLIP)

    def ids(self, contexts: Sequence[JsonObject]) -> NDArray[np.int32]:
        """The histories in n contexts for an encoder, (n, ``LENGTH``, ``FACTS``): newest event last, 0 = nothing."""
        out = np.zeros((len(contexts), LENGTH, FACTS), dtype=np.int32)
        ages = self.size - len(_AGES) - 1
        for i, context in enumerate(contexts):
            events = read(context)
            if events:
                out[i, LENGTH - len(events) :] = [
                    [
                        *(self._id(fact, text) for fact, text in enumerate((*event[1:], step))),
                        ages + bisect_left(_AGES, event.minutes / 60.0),
                    ]
                    for event, step in zip(events, _steps(events), strict=True)
                ]
        return out

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON; ``from_json`` gives an equal one."""
        told = asdict(self)
        # As they were written before there were such: the hash of a stored spec must not change.
        if self.naming == _FIRST_NAMING:
            del told["naming"]
        if not self.about:
            del told["about"]
        return told

    @classmethod
    def from_json(cls, data: JsonObject) -> HistorySpec:
        """The spec written by ``to_json``.

        Raises:
            BadArtifact: anything else.
        """
        try:
            kinds, subjects, channels, variants, steps = (tuple(map(str, data[name])) for name in _MOST_NAMED)
            columns = tuple((str(name), float(mean), float(scale)) for name, mean, scale in data["columns"])
            naming = int(data.get("naming", _FIRST_NAMING))
            if naming not in (_FIRST_NAMING, _SECOND_NAMING, _NAMING):
                raise ValueError(f"naming {naming}")
            about = tuple((str(kind), str(subject)) for kind, subject in data.get("about", ()))
            return cls(kinds, subjects, channels, variants, steps, columns, naming, about)
        except (KeyError, TypeError, ValueError) as error:
            raise BadArtifact(f"history spec can't be read: {error!r}") from error

    @property
    def _vocabulary(self) -> tuple[tuple[str, ...], ...]:
        return self.kinds, self.subjects, self.channels, self.variants, self.steps

    @cached_property
    def _lookups(self) -> tuple[tuple[dict[str, int], int], ...]:
        """Of each fact the ids of its named values ("" has 0), and the first id of its buckets."""
        out = []
        start = 1
        for values in self._vocabulary:
            out.append(({"": 0, **{value: start + i for i, value in enumerate(values)}}, start + len(values)))
            start += len(values) + _REST
        return tuple(out)

    def _id(self, fact: int, text: str) -> int:
        named, rest = self._lookups[fact]
        found = named.get(text)
        return rest + signed_bucket(text, _REST)[0] if found is None else found

    @cached_property
    def _sums(self) -> _Sums:
        summed = self.kinds[:_SUMMED_KINDS], self.channels[:_SUMMED_CHANNELS], self.variants[:_SUMMED_VARIANTS]
        return _Sums(*summed, self.about, self.naming)

    @cached_property
    def _standard(self) -> tuple[list[int], NDArray[np.float64], NDArray[np.float64]]:
        """Where the summary's columns lie among all sums, their means and scales."""
        names = self._sums.names
        mean, scale = (np.array([column[i] for column in self.columns], dtype=np.float64) for i in (1, 2))
        return [names.index(name) for name in self.labels], mean, scale


def fit_history(contexts: Sequence[JsonObject]) -> HistorySpec | None:
    """Learns the vocabulary and the summary of the histories in n contexts; None where there is no history."""
    events = read_all(contexts)
    if not len(events.alike):
        return None
    enough = max(5, len(events.alike) // 500)
    times = list(zip(events.distinct, np.bincount(events.alike).tolist(), strict=True))
    spec = HistorySpec(
        kinds=_frequent(((event.kind, count) for event, count in times), enough, "kinds"),
        subjects=_frequent(((event.subject, count) for event, count in times), enough, "subjects"),
        channels=_frequent(((event.channel, count) for event, count in times), enough, "channels"),
        variants=_frequent(((event.variant, count) for event, count in times), enough, "variants"),
        steps=_frequent(_step_counts(events), enough, "steps"),
        columns=(),
        about=_most((((event.kind, event.subject), n) for event, n in times if event.subject), enough, _SUMMED_ABOUT),
    )
    sums = spec._sums.of(events)
    mean, scale = sums.mean(axis=0), sums.std(axis=0)
    kept = [i for i in range(len(scale)) if scale[i] > _FLAT]
    return replace(spec, columns=tuple((spec._sums.names[i], float(mean[i]), float(scale[i])) for i in kept))


def _steps(events: Sequence[Past]) -> list[str]:
    """What each event was about after what the one before it was about; "" for the first."""
    about = [event.subject or event.kind for event in events]
    return ["", *(f"{before}>{after}" for before, after in pairwise(about))][: len(events)]


def _step_counts(events: Events) -> Iterator[tuple[str, int]]:
    """The steps in histories, each with how often it occurs; one may come several times."""
    kinds = len(events.distinct)
    inside = np.ones(len(events.alike), np.bool_)
    inside[(np.cumsum(events.counts) - events.counts)[events.counts > 0]] = False
    after = np.flatnonzero(inside)
    pairs, counts = np.unique(events.alike[after - 1] * kinds + events.alike[after], return_counts=True)
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        yield _steps([events.distinct[pair // kinds], events.distinct[pair % kinds]])[1], count


def _frequent(counted: Iterable[tuple[str, int]], enough: int, name: str) -> tuple[str, ...]:
    """The values that occur at least ``enough`` times, most frequent first, as many of them as may have ids."""
    return _most(((value, count) for value, count in counted if value), enough, _MOST_NAMED[name])


def _most(counted: Iterable[tuple[_Value, int]], enough: int, most: int) -> tuple[_Value, ...]:
    """The values that occur at least ``enough`` times, most frequent first, ``most`` of them at most; ``counted`` may
    name a value several times."""
    counts: Counter[_Value] = Counter()
    for value, count in counted:
        counts[value] += count
    kept = [value for value, count in counts.items() if count >= enough]
    return tuple(sorted(kept, key=lambda value: (-counts[value], value))[:most])


@dataclass(frozen=True)
class _Sums:
    """The closed-form summary over given kinds, channels, variants and subjects.

    The logarithm of decayed counts, Σ 2^(−age / half-life): of each kind and of messages by channel at every half-life,
    of messages by variant at one (how fresh the variant is); of what events were about, by their order among those of
    their kind, Σ ABOUT_DECAY^(how many came later); and the logarithm of the hours since the last message and since the
    last engagement.
    """

    kinds: tuple[str, ...]
    channels: tuple[str, ...]
    variants: tuple[str, ...]
    about: tuple[tuple[str, str], ...]
    naming: int

    @cached_property
    def names(self) -> tuple[str, ...]:
        """One name a number. Each begins with words of ours that say what is counted: kinds, channels and variants are
        whatever callers call them."""
        first = self.naming == _FIRST_NAMING
        kind, channel, variant = ("", f"{SENT}.", f"{SENT}.") if first else _PREFIXES
        counted = (*(kind + name for name in self.kinds), *(channel + name for name in self.channels))
        decayed = tuple(f"{name}.{days:g}d" for name in counted for days in HALF_LIVES)
        fresh = tuple(f"{variant}{name}.{VARIANT_HALF_LIFE:g}d" for name in self.variants)
        topics = tuple(f"{_ABOUT}{_dotless(name)}.{subject}.lately" for name, subject in self.about)
        return (*decayed, *fresh, *topics, "since.sent", "since.engaged")

    def of(self, events: Events) -> NDArray[np.float64]:
        """The numbers of n histories, (n, len(names)); each row depends on its own history alone."""
        count = len(events.counts)
        row = np.repeat(np.arange(count), events.counts)
        hours = events.minutes / 60.0
        sums = np.zeros((count, len(self.names)))
        *counted, about = (np.array(one, dtype=np.int64)[events.alike] for one in self._places(events.distinct))
        for place, lives in zip(counted, (HALF_LIVES, HALF_LIVES, (VARIANT_HALF_LIFE,)), strict=True):
            some = np.flatnonzero(place >= 0)
            at, age = row[some] * sums.shape[1] + place[some], hours[some]
            for i, days in enumerate(lives):
                left = np.exp2(age / (-24.0 * days))
                sums += np.bincount(at + i, left, minlength=sums.size).reshape(sums.shape)
        if self.about:
            some = np.flatnonzero(about >= 0)
            at, left = row[some] * sums.shape[1] + about[some], ABOUT_DECAY ** self._later(events, row)[some]
            sums += np.bincount(at, left, minlength=sums.size).reshape(sums.shape)
        sums[:, -2:] = NEVER
        for column, kinds in ((-2, {SENT}), (-1, ENGAGED)):
            which = np.array([event.kind in kinds for event in events.distinct], dtype=np.bool_)[events.alike]
            np.minimum.at(sums[:, column], row[which], hours[which])
        return np.log1p(sums)

    def _later(self, events: Events, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """(m,) how many events of its kind that tell what they were about came after each, in its history."""
        kinds = {kind: i for i, kind in enumerate(dict.fromkeys(kind for kind, _ in self.about))}
        alike = np.array([kinds.get(one.kind, -1) if one.subject else -1 for one in events.distinct], dtype=np.int64)
        told = np.flatnonzero(alike[events.alike] >= 0)
        group = row[told] * len(kinds) + alike[events.alike][told]
        order = np.argsort(group, kind="stable")  # of each history and kind one after the other, oldest first
        ordered = group[order]
        later = np.zeros(len(row), dtype=np.int64)
        later[told[order]] = np.searchsorted(ordered, ordered, side="right") - 1 - np.arange(len(ordered))
        return later

    def _places(self, events: Sequence[Past]) -> tuple[list[int], list[int], list[int], list[int]]:
        """Where each event counts by its kind, a message by its channel and by its variant, and an event by what it was
        about; −1 = nowhere."""
        kind, channel, variant, about = self._starts
        return (
            [kind.get(event.kind, -1) for event in events],
            [channel.get(event.channel, -1) if event.kind == SENT else -1 for event in events],
            [variant.get(event.variant, -1) if event.kind == SENT else -1 for event in events],
            [about.get((event.kind, event.subject), -1) for event in events],
        )

    @cached_property
    def _starts(self) -> tuple[dict[str, int], dict[str, int], dict[str, int], dict[tuple[str, str], int]]:
        lives = len(HALF_LIVES)
        channels = lives * len(self.kinds)
        variants = channels + lives * len(self.channels)
        about = variants + len(self.variants)
        return (
            {name: lives * i for i, name in enumerate(self.kinds)},
            {name: channels + lives * i for i, name in enumerate(self.channels)},
            {name: variants + i for i, name in enumerate(self.variants)},
            {pair: about + i for i, pair in enumerate(self.about)},
        )


def _dotless(kind: str) -> str:
    """A kind in which no dot stands, so that it ends where the dot behind it is."""
    return kind.replace("%", "%25").replace(".", "%2E")
