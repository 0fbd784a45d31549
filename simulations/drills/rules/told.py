"""The results of the rules drill, for programs and for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simulations.audit.verdicts import VERDICTS
from simulations.drills.race import balance_document, balance_lines
from simulations.drills.rules.run import Result

#: How many breaches are shown.
SHOWN = 5


def document(r: Result) -> dict[str, Any]:
    """A result for programs."""
    return {
        "mutant": r.mutant,
        "as_expected": r.as_expected,
        "honest": r.honest,
        "wanting": r.wanting,
        "decisions": r.answers,
        "recipients": r.size.recipients,
        "deciding_seconds": round(r.seconds[0], 1),
        "proving_seconds": round(r.seconds[1], 1),
        "decisions_per_second": round(r.answers / r.seconds[0], 1),
        "busy": r.busy,
        "refused": list(r.refused),
        "statuses": dict(r.part.statuses),
        "reserved": r.part.reserved,
        "displacing": r.part.displacing,
        "displaced": r.report.displaced,
        "masked": r.masked,
        "periods_run_out": r.ran_out,
        "answers_not_stored": r.unkept,
        "violations": len(r.report.breaches),
        "violations_of_the_mutant": r.found,
        "not_judged": r.report.unknown,
        "rules": [
            {"rule_id": rule_id, "kind": kind, **{name: tally[name] for name in VERDICTS}}
            for (rule_id, kind), tally in sorted(r.report.tallies.items())
        ],
        "largest_propensity_error": r.part.largest_error,
        "other_draws": r.part.other_draws,
        "drawn": len(r.part.redrawn),
        "redrawn": int(r.part.redrawn.sum()),
        "balance": balance_document(r.balance),
        "redrawn_balance": balance_document(r.redrawn_balance),
    }


def lines(r: Result) -> Iterator[str]:
    """A result for people."""
    yield f"== {'as it is' if r.mutant is None else 'mutant ' + r.mutant}"
    yield (
        f"{r.answers:,} decisions on {r.size.recipients:,} recipients by {r.size.processes} processes in "
        f"{r.seconds[0]:.0f} s ({r.answers / r.seconds[0]:,.0f}/s), proved in {r.seconds[1]:.0f} s, "
        f"{r.busy} refusals of a busy store"
    )
    yield f"reserved {r.part.reserved:,} ({r.part.reserved / max(1, r.answers):.0%}); by now " + ", ".join(
        f"{count:,} {status}" for status, count in sorted(r.part.statuses.items())
    )
    yield f"{'rule':<24}{'masked in':>10}{'run out':>9}{'kept':>10}{'violated':>10}{'unknown':>9}"
    for (rule_id, kind), tally in sorted(r.report.tallies.items()):
        masked = r.masked.get(rule_id, r.part.masked[kind] or "")
        counts = f"{tally['kept']:>10}{tally['violated']:>10}{tally['unknown']:>9}"
        yield f"{rule_id:<24}{masked:>10}{r.ran_out.get(rule_id, ''):>9}{counts}"
    yield f"{r.part.displacing:,} decisions displaced {r.report.displaced:,} others"
    yield from (f"  {b.rule_id}: {b.decision_id}: {b.detail}" for b in r.report.breaches[:SHOWN])
    yield f"answered decisions that are not stored as answered: {r.unkept}"
    drawn, redrawn = len(r.part.redrawn), int(r.part.redrawn.sum())
    error, others = r.part.largest_error, r.part.other_draws
    yield f"replayed: largest error of a propensity {error:.1e}, other draws {others} of {drawn}"
    yield from balance_lines(f"balance over all {drawn:,} draws", r.balance)
    yield from balance_lines(f"balance over the {redrawn:,} redrawn", r.redrawn_balance)
    yield from (f"too seldom: {what}" for what in r.wanting if r.mutant is None)
    yield _verdict(r)


def _verdict(r: Result) -> str:
    if r.mutant is None:
        return "passed" if r.as_expected else "failed"
    return f"found {r.found} times, as it must" if r.as_expected else "NOT FOUND, AND THAT IS WRONG"
