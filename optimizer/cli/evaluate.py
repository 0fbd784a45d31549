"""``sendtide evaluate``: what a policy would have been worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from optimizer.cli.call import Call, command, option
from optimizer.cli.group import EXIT_CODES
from optimizer.cli.tables import number

#: The kinds of intervals beside the normal one, and the width of a column of them.
_INTERVALS = {
    "bootstrap": "bootstrap",
    "empirical_likelihood": "empirical likelihood",
    "cressie_read": "Cressie–Read",
    "confidence_sequence": "sequence",
}
_WIDTH = 20
_TITLES = {"policy": "policy", "serving": "serving now", "cold_start": "cold start"}


@click.command(epilog=EXIT_CODES)
@option("--policy", help="A stored policy's id.")
@option(
    "--probabilities",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A policy as a file: NDJSON or Parquet rows of decision_id and probability.",
)
@option("--campaign", help="Whose decisions the file speaks of.")
@option(
    "--by",
    help="Attribute whose values are groups of recipients, not a sensitive one nor one that is not for the model; left "
    "out, the most evenly dividing one.",
)
@command()
def evaluate(call: Call, policy: str | None, probabilities: Path | None, campaign: str | None, by: str | None) -> None:
    """Estimate a policy's value from the log, off policy.

    Mean reward a decision, on the logged eligible sets, with 95 % intervals whose errors are clustered by recipient: by
    inverse propensities (ips, snips), by the reward model alone (dm) and by both (dr, switch_dr); beside it the policy
    that serves now and the campaign's cold start. Rows are used that neither policy can have learned from, and it says
    how many are left out for that; where they are too few, it says whose figures are flattered. Intervals by empirical
    likelihood and Cressie–Read use that weights average 1, so they follow snips and can lie away from ips's own figure.

    \b
    A file of probabilities has one row a decision: decision_id and probability, which is
      a list over the whole action space, as "sendtide export feedback" writes it;
      or an object from action index to probability (a JSON text in Parquet);
      or one number, the logged action's; then dm and dr need predicted (a model's reward of
      the logged action) and value (the mean of its rewards under the policy).
    """
    if (policy is None) == (probabilities is None) or (probabilities is not None and campaign is None):
        raise click.UsageError("give either --policy ID, or --probabilities FILE with --campaign ID")
    from optimizer.service.evaluate import evaluate as report_of
    from optimizer.service.evaluate import evaluate_file

    with call.services() as services:
        if probabilities is not None and campaign is not None:
            report = evaluate_file(services, call.workspace, campaign, probabilities, by)
        else:
            report = report_of(services, call.workspace, policy or "", by)
    call.answer(report, *_lines(report))


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report as a table for people."""
    seen = {True: "decided after it was made", False: "that it may have been trained on", None: "of its file"}
    name = report.get("policy_id") or report["file"]
    yield f"{name} of campaign {report['campaign_id']} on {report['rows']} rows {seen[report['unseen']]},"
    covered = f"; the file speaks of {report['covered']:.1%} of all closed rows" if "covered" in report else ""
    yield f"{report['recipients']} recipients{covered}"
    if "given" in report and report["given"]["rows"] > report["given"]["closed"]:
        yield _given(report["given"])
    yield from _left_out(report["left_out"])
    if "serving" in report and "serving" not in report["seen_by"]:
        yield "all decided after the policy that serves now was made: it can't have learned from them"
    for policy, policy_id in report["seen_by"].items():
        told = f"{_TITLES[policy]} ({policy_id}) may have learned from these rows"
        yield f"{told}: its figures are flattered, and with them its side of every difference"
    yield ""
    yield from _estimates(report)
    yield ""
    for other, found in report["difference"].items():
        yield _difference(f"policy − {_TITLES.get(other, 'as logged')}", found)
    yield from _reasons(report)
    yield from _support(report["support"]["policy"])
    if report["groups"]:
        yield ""
        yield f"{'group':32}{'rows':>8}{'logged':>10}{'policy':>10}{'low':>10}{'high':>10}"
    for group in report["groups"]:
        title = f"{group['by']}={group['group'] or '(none)'}"
        figures = (group["logged"]["value"], group["policy"]["value"], group["policy"]["low"], group["policy"]["high"])
        yield f"{title:32.32}{group['rows']:>8}" + "".join(map(_number, figures))
    if report["grouped"] is not None:
        yield from _not_shown(report["grouped"])


def _not_shown(found: Mapping[str, Any]) -> Iterator[str]:
    """That groups of recipients are too small to be told of."""
    from optimizer.service.evaluate import LEAST_GROUP
    from optimizer.service.runs import LEAST_RECIPIENTS

    hidden = found["values"] - found["shown"]
    if hidden:
        yield (
            f"groups by {found['by']} that are left out: {hidden} of {found['values']}, with fewer than {LEAST_GROUP} "
            f"rows or {LEAST_RECIPIENTS} recipients"
        )


def _left_out(found: Mapping[str, Any]) -> Iterator[str]:
    """How many closed rows are not evaluated on, and why."""
    if found["seen"]:
        whom = " and ".join(f"{_TITLES[name]} ({policy_id})" for name, policy_id in found["seen_by"].items())
        yield f"{found['seen']} older closed rows are left out: {whom} may have learned from them"
    if found["older"]:
        yield f"{found['older']} older closed rows are left out: there are enough newer ones"


def _given(found: Mapping[str, Any]) -> str:
    """What became of a file's rows."""
    others = {
        "with a probability of null": found["null"],
        "with an unknown decision_id": found["unknown"],
        "of other campaigns": found["other"],
        "of the holdout, for whom no policy chose": found["holdout"],
        "not closed, not drawn by a policy with a known propensity, or with an offer that the campaign no longer has": (
            found["known"] - found["holdout"] - found["closed"]
        ),
    }
    told = ", ".join(f"{count} {what}" for what, count in others.items() if count)
    return f"of the file's {found['rows']} rows {found['closed']} can be evaluated on; the others: {told}"


def _estimates(report: Mapping[str, Any]) -> Iterator[str]:
    """A line an estimate, with a column for each kind of interval that any of them has."""
    from optimizer.service.estimates import SEQUENCE_START

    lines = {
        f"{title}, {estimator}": estimate
        for policy, title in _TITLES.items()
        for estimator, estimate in report.get(policy, {}).items()
    }
    kinds = {kind: title for kind, title in _INTERVALS.items() if any(one[kind] is not None for one in lines.values())}
    more = "".join(f"  {title:{_WIDTH}}" for title in kinds.values())
    yield f"{'':24}{'value':>10}{'low':>10}{'high':>10}{'eff. rows':>11}{more}".rstrip()
    for name, estimate in {"as logged": report["logged"], **lines}.items():
        numbers = "".join(_number(estimate[figure]) for figure in ("value", "low", "high"))
        ends = "".join(f"  {_ends(estimate.get(kind)):{_WIDTH}}" for kind in kinds)
        yield f"{name:24}{numbers}{estimate['effective_sample_size']:>11.0f}{ends}".rstrip()
    if "cressie_read" not in kinds and report["recipients"] < report["rows"]:
        yield "Cressie–Read's intervals are left out: recipients have several rows, and it would count each as a person"
    if "confidence_sequence" not in kinds and report["rows"] < SEQUENCE_START:
        yield f"confidence sequences are left out: they begin at {SEQUENCE_START:,} rows"


def _ends(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else f"[{interval[0]:.4f}, {interval[1]:.4f}]"


def _number(figure: float | None) -> str:
    """A figure in its column; one that is withheld is a dash."""
    return f"{'–':>10}" if figure is None else f"{figure:>10.4f}"


def _reasons(report: Mapping[str, Any]) -> Iterator[str]:
    """Why figures are withheld, each reason once with all whom it is about."""
    about: dict[str, list[str]] = {}
    if report["logged"]["withheld"] is not None:
        about[report["logged"]["withheld"]] = ["as logged, bounds"]
    for policy, title in _TITLES.items():
        for name, estimate in report.get(policy, {}).items():
            if estimate["withheld"] is not None:
                about.setdefault(estimate["withheld"], []).append(f"{title}, {name}")
    for group in report["groups"]:
        reason = group["policy"]["withheld"]
        if reason is not None:
            about.setdefault(reason, []).append(f"{group['by']}={group['group'] or '(none)'}")
    for reason, whom in about.items():
        yield f"–  {'; '.join(whom)}: {reason}"


def _difference(title: str, found: Mapping[str, Any]) -> str:
    if found["withheld"] is not None:
        return f"{title:24}{_number(None) * 3}  by {found['estimator']}; {found['withheld']}"
    effect = found["minimum_detectable_effect"]
    told = "unknown" if effect is None else f"{effect:.4f}"
    return (
        f"{title:24}{found['value']:>10.4f}{found['low']:>10.4f}{found['high']:>10.4f}"
        f"  by {found['estimator']}; these rows would show a difference of {told}"
    )


def _support(found: Mapping[str, Any]) -> Iterator[str]:
    z = found["mean_weight_z"]
    told = "" if z is None else f" (z {z:.1f} from 1)"
    yield (
        f"support: largest weight {found['largest_weight']:.1f}, mean {found['mean_weight']:.3f}{told}, "
        f"{found['never_taken']:.1%} of logged actions it never takes"
    )
    for condition in found["conditions"]:
        if not condition["passed"]:
            figures = f"{number(condition['figure'])} against {number(condition['limit'])}"
            yield f"  short of the gate's {condition['name']}: {figures}"
