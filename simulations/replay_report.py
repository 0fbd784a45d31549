"""The figures of a replay over seeds: paired differences with their errors, targets, and what can't be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from simulations import fragments
from simulations.evaluation import CLEAR, HeldOut
from simulations.hillstrom import ARM_NAMES
from simulations.rivals import Floats

if TYPE_CHECKING:
    from simulations.replay_seed import Options, SeedResult

#: The mean paired difference to Thompson sampling that is asked for, over all accepted and over their second half.
TARGET_ALL, TARGET_LAST = -0.002, -0.002
#: How many standard errors the final policy may lie below the best static choice.
TARGET_VALUE = -0.5


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its standard error (NaN for a single seed)."""

    mean: float
    error: float
    per_seed: tuple[float, ...]


@dataclass(frozen=True)
class Span:
    """Mean reward in a span of the accepted customers under each way of choosing."""

    name: str
    service: Mean
    thompson: Mean
    uniform: Mean
    static: Mean
    against_thompson: Mean
    target: float

    @property
    def met(self) -> bool:
        """Whether the paired difference reaches the target."""
        return self.against_thompson.mean >= self.target


@dataclass(frozen=True)
class Summary:
    """All figures of a replay."""

    spans: tuple[Span, ...]
    values: tuple[HeldOut, ...]
    results: Sequence[SeedResult]
    best_arm: int

    def value(self) -> HeldOut | None:
        """The final policies' values, averaged over seeds (None = not evaluated).

        Held-out customers of different seeds are largely the same ones, so averaging takes away little of the error:
        the mean of the seeds' standard errors is kept.
        """
        if not self.values:
            return None
        fields = {name: float(np.mean([getattr(v, name) for v in self.values])) for name in asdict(self.values[0])}
        return HeldOut(**{**fields, "rows": round(fields["rows"])})  # type: ignore[arg-type]  # floats but for rows

    def as_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        value = self.value()
        return {
            "best_static": ARM_NAMES[self.best_arm],
            "spans": [{**asdict(span), "met": span.met} for span in self.spans],
            "final_policy": asdict(value) if value is not None else None,
            "final_policies": [asdict(v) for v in self.values],
            "verdict": sentence(value, self.best_arm) if value is not None else None,
            "seeds": [
                {
                    "seed": r.seed,
                    "accepted": int(r.service.size),
                    "consumed": r.consumed,
                    "last_shares": dict(zip(ARM_NAMES, r.shares, strict=True)),
                    "steps": list(r.steps),
                    "seconds": r.seconds,
                }
                for r in self.results
            ],
        }


def summarise(results: Sequence[SeedResult]) -> Summary:
    """The figures of all seeds; the second span is the later half of the accepted customers."""
    shortest = min(r.service.size for r in results)
    half = shortest // 2
    spans = (
        _span(f"first {shortest:,} accepted", results, slice(0, shortest), TARGET_ALL),
        _span(f"last {shortest - half:,} of them", results, slice(half, shortest), TARGET_LAST),
    )
    values = tuple(r.held_out for r in results if r.held_out is not None)
    return Summary(spans, values, results, results[0].best_arm)


def _span(name: str, results: Sequence[SeedResult], part: slice, target: float) -> Span:
    def means(rewards: list[Floats]) -> Mean:
        return mean_of([float(one[part].mean()) if one[part].size else float("nan") for one in rewards])

    service, thompson = [r.service for r in results], [r.thompson for r in results]
    ours, theirs = means(service), means(thompson)
    differences = [a - b for a, b in zip(ours.per_seed, theirs.per_seed, strict=True)]
    return Span(
        name=name,
        service=ours,
        thompson=theirs,
        uniform=means([r.uniform for r in results]),
        static=means([r.static for r in results]),
        against_thompson=mean_of(differences),
        target=target,
    )


def mean_of(values: Sequence[float]) -> Mean:
    """Mean and standard error of independent values."""
    array = np.array(values, dtype=np.float64)
    error = float(array.std(ddof=1) / np.sqrt(array.size)) if array.size > 1 else float("nan")
    return Mean(float(array.mean()), error, tuple(float(v) for v in values))


def sentence(value: HeldOut, best_arm: int) -> str:
    """What the final policy's value means, in words."""
    name = ARM_NAMES[best_arm]
    figures = f"{value.difference:+.4f} ± {value.difference_error:.4f} (standard error) visits a customer"
    if not value.is_clear:
        return (
            f"There is little to personalise here: against always choosing {name} the learned policy earns {figures}, "
            f"which can't be told from nothing."
        )
    better = "more" if value.difference > 0 else "less"
    return f"The learned policy earns clearly {better} than always choosing {name}: {figures}."


def markdown(summary: Summary, options: Options) -> str:
    """The fragment for the report of results."""
    told = (
        f"Reward: a visit. Choices that agree with the experiment's are accepted, {options.accepted:,} a seed; a "
        f"refresh every {options.refresh_every}; gate and canary {'on' if options.gate else 'off'}; "
        f"{len(summary.results)} random orders. Mean reward ± standard error over seeds; "
        f"static: always {ARM_NAMES[summary.best_arm]}."
    )
    head = ["", "Sendtide", "Thompson", "static", "random", "− Thompson, paired", "goal", ""]
    blocks = [
        "## hillstrom: an e-mail experiment replayed through the service",
        told,
        fragments.table(head, [_cells(one) for one in summary.spans]),
    ]
    value = summary.value()
    if value is not None:
        blocks.append(_valued(value, summary.best_arm))
    return "\n\n".join([*blocks, fragments.played(), "![hillstrom](results/hillstrom.png)"]) + "\n"


def print_report(console: Console, summary: Summary, *, gate: bool, through: str) -> None:
    """Tables for people."""
    seeds = len(summary.results)
    console.print(
        f"Hillstrom replay: reward = visit, {seeds} seed{'s' * (seeds > 1)}, gate {'on' if gate else 'off'}, "
        f"through {through}, {sum(r.seconds for r in summary.results):.0f} s of work"
    )
    console.print(_spans(summary))
    if seeds > 1:
        console.print(_seeds(summary))
    value = summary.value()
    if value is None:
        return
    console.print(_valued(value, summary.best_arm))


def _valued(value: HeldOut, best_arm: int) -> str:
    """The final policies on held-out customers, in figures and in words."""
    in_errors = value.difference / value.difference_error if value.difference_error else 0.0
    met = "met" if value.difference >= TARGET_VALUE * value.policy_error else "missed"
    return (
        f"Final policy on {value.rows:,} customers it never saw (doubly robust): {value.policy:.4f} "
        f"± {value.policy_error:.4f}; {ARM_NAMES[best_arm]} always: {value.static:.4f} "
        f"± {value.static_error:.4f}; difference {value.difference:+.4f} ± {value.difference_error:.4f} "
        f"({in_errors:+.1f} of its standard errors; clear from {CLEAR:g}); "
        f"not below by more than half a standard error: {met}. Without exploring, the difference is "
        f"{value.greedy_difference:+.4f} ± {value.greedy_error:.4f}. {sentence(value, best_arm)}"
    )


def _spans(summary: Summary) -> Table:
    table = Table(title=f"Mean reward (static: always {ARM_NAMES[summary.best_arm]}; ± standard error over seeds)")
    for heading in ("", "Sendtide", "Thompson", "static", "random", "− Thompson", "asked for", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for span in summary.spans:
        table.add_row(*_cells(span))
    return table


def _cells(span: Span) -> list[str]:
    return [
        span.name,
        *(_figure(m) for m in (span.service, span.thompson, span.static, span.uniform)),
        _figure(span.against_thompson, signed=True),
        f"≥ {span.target:+.3f}",
        "met" if span.met else "missed",
    ]


def _seeds(summary: Summary) -> Table:
    table = Table(title="Sendtide − Thompson, paired, by seed; shares of mens / womens / none at the end")
    table.add_column("seed", justify="right")
    for span in summary.spans:
        table.add_column(span.name, justify="right")
    for heading in ("shares", "customers", "seconds"):
        table.add_column(heading, justify="right")
    for i, result in enumerate(summary.results):
        table.add_row(
            str(result.seed),
            *(f"{span.against_thompson.per_seed[i]:+.4f}" for span in summary.spans),
            " / ".join(f"{share:.2f}" for share in result.shares),
            f"{result.consumed:,}",
            f"{result.seconds:.0f}",
        )
    return table


def _figure(value: Mean, *, signed: bool = False) -> str:
    shown = f"{value.mean:+.4f}" if signed else f"{value.mean:.4f}"
    return shown if np.isnan(value.error) else f"{shown} ± {value.error:.4f}"
