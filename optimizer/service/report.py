"""The report of a campaign: what it brought, to whom, and against what it would have brought otherwise.

Groups are compared by intention to treat: withheld and released decisions are in. Comparisons are as of the newest
midnight UTC (see ``compared``), counts as of now.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np

from optimizer.bandit.comparison import Total, compare
from optimizer.bandit.rates import ANY_RATE, difference_bounds, mismatch, rate_bounds
from optimizer.bandit.rewards import HARMFUL
from optimizer.errors import Invalid, NotFound
from optimizer.service.breakdowns import breakdowns
from optimizer.service.compared import EPOCH, LEVEL, Compared, Part, bounds, compared_of, midnight
from optimizer.service.forms import Reported, doubts, reported, told_of
from optimizer.service.ledger import GROUPS, MODES, NONE, STATUSES, Floats, Ints, Ledger
from optimizer.service.power import power
from optimizer.service.reportwords import told
from optimizer.service.trends import trends
from optimizer.service.wiring import Services
from storage.log import Group
from storage.port import Reader
from storage.records import Campaign, GroupShares

#: Below this the sizes of the groups are called wrong: an alarm that is raised, not a lift that is claimed.
MISMATCH: Final = 0.01
#: The group that is sent nothing, so that nobody in it unsubscribes or complains of a message.
_HARMLESS: Final[Group] = "holdout"
CONTROLS: Final[tuple[Group, ...]] = ("holdout", "random", "baseline")


def report(
    services: Services,
    workspace_id: str,
    campaign_id: str,
    since: datetime | None = None,
    until: datetime | None = None,
) -> dict[str, Any]:
    """The report of a campaign over decisions made in ``[since, until)``; left out: all.

    One that took long to make may be some minutes old (``generated_at``).

    Raises:
        NotFound: no such campaign.
        Invalid: the period ends before it begins.
    """
    now = services.clock()
    if since is not None and until is not None and until <= since:
        raise Invalid.field("until", f"{until.isoformat()} must be after since ({since.isoformat()})")
    key = (workspace_id, campaign_id, since, until)
    return services.reports.get(key, now, lambda: _made(services, workspace_id, campaign_id, since, until, now))


def _made(
    services: Services,
    workspace_id: str,
    campaign_id: str,
    since: datetime | None,
    until: datetime | None,
    now: datetime,
) -> dict[str, Any]:
    """A new report."""
    campaign, compared, shares = read_compared(services, workspace_id, campaign_id, since, until, now)
    return _facts(campaign, compared, shares, since, until, now)


def report_with_trends(
    services: Services,
    workspace_id: str,
    campaign_id: str,
    since: datetime | None = None,
    until: datetime | None = None,
) -> dict[str, Any]:
    """The report over decisions made in ``[since, until)``, made anew, and under ``trends`` how its figures came about.

    Raises:
        NotFound: no such campaign.
    """
    now = services.clock()
    campaign, compared, shares = read_compared(services, workspace_id, campaign_id, since, until, now)
    return {**_facts(campaign, compared, shares, since, until, now), "trends": trends(compared)}


def read_compared(
    services: Services,
    workspace_id: str,
    campaign_id: str,
    since: datetime | None,
    until: datetime | None,
    now: datetime,
) -> tuple[Campaign, Compared, Mapping[int, GroupShares]]:
    """The campaign, its decisions, and its groups' shares at each version of it.

    Raises:
        NotFound: no such campaign.
    """
    with services.store.read() as reader:
        campaign = reader.campaign(workspace_id, campaign_id)
        if campaign is None:
            raise NotFound(f"no campaign {campaign_id!r} in this workspace")
        end = min(until, now) if until else now + timedelta(seconds=1)
        ledger = services.columns.ledger(reader, campaign, since or EPOCH, end)
        shares = {version: _shares(reader, campaign, version) for version in np.unique(ledger.version).tolist()}
    return campaign, compared_of(ledger, shares, now), shares


def _facts(
    campaign: Campaign,
    compared: Compared,
    shares: Mapping[int, GroupShares],
    since: datetime | None,
    until: datetime | None,
    now: datetime,
) -> dict[str, Any]:
    ledger, forms = compared.ledger, reported(campaign, compared)
    facts: dict[str, Any] = {
        "campaign_id": campaign.campaign_id,
        "currency": campaign.currency,
        "since": since,
        "until": until,
        "generated_at": now,
        "as_of": midnight(now),
        "level": LEVEL,
        "decisions": _counts(ledger, compared),
        "groups": [_group(compared, group, shares) for group in GROUPS if np.any(ledger.group == GROUPS.index(group))],
        "lifts": [_lift(compared, group, forms) for group in CONTROLS if _compares(compared, group, campaign.groups)],
        "forms": told_of(forms),
        "group_sizes": _sizes(ledger, shares),
        "rules": _rules(ledger),
        **breakdowns(compared),
    }
    return {**facts, "summary": told(facts)}


def _shares(reader: Reader, campaign: Campaign, version: int) -> GroupShares:
    """The groups' shares at a version; the present ones where it is not kept."""
    stored = reader.campaign(campaign.workspace_id, campaign.campaign_id, version)
    return (stored or campaign).groups


def _counts(ledger: Ledger, compared: Compared) -> dict[str, Any]:
    live = ledger.mode == MODES.index("live")
    open_ = live & ~compared.chosen
    return {
        "total": int(ledger.decided.size),
        "recipients": _distinct(ledger.recipient),
        "compared": int(compared.chosen.sum()),
        "windows_open": int(open_.sum()),
        "next_closes_at": EPOCH + timedelta(microseconds=int(ledger.closes[open_].min())) if open_.any() else None,
        "not_live": int((~live).sum()),
        "by_status": {s: n for s, n in zip(STATUSES, _bins(ledger.status, STATUSES), strict=True) if n},
    }


def _bins(codes: Ints, words: Sequence[str]) -> list[int]:
    counts: list[int] = np.bincount(codes, minlength=len(words)).tolist()
    return counts


def _distinct(codes: Ints) -> int:
    """How many different codes there are."""
    return int(np.count_nonzero(np.bincount(codes)))


def _group(compared: Compared, group: Group, shares: Mapping[int, GroupShares]) -> dict[str, Any]:
    """What one group brought."""
    ledger, part = compared.ledger, compared.groups[group]
    every = ledger.group == GROUPS.index(group)
    status = ledger.status[every]
    newest = list(shares.values())[-1]
    return {
        "group": group,
        "configured_share": _share(newest, group),
        "recipients": _distinct(ledger.recipient[every]),
        "decisions": int(every.sum()),
        "withheld": int((status == STATUSES.index("withheld")).sum()),
        "messages": int((ledger.variant[every] != NONE).sum()),
        "compared": int(part.rows.size),
        "value": part.mean(ledger.reward, ledger.worth),
        "money": part.mean(ledger.revenue - ledger.cost, np.abs(ledger.revenue)),
        "revenue": float(ledger.revenue[part.rows].sum()),
        "cost": float(ledger.cost[part.rows].sum()),
        "outcomes": {name: _outcome(ledger, part, group, name) for name in ledger.outcomes},
    }


def _share(shares: GroupShares, group: Group) -> float:
    controls = {"holdout": shares.holdout, "random": shares.random, "baseline": shares.baseline}
    return controls.get(group, max(0.0, 1.0 - sum(controls.values())))


def _outcome(ledger: Ledger, part: Part, group: Group, name: str) -> dict[str, Any]:
    """How often an outcome happened in a group, per decision."""
    happened = ledger.outcomes[name].happened
    count, rows = int(np.count_nonzero(happened[part.rows])), int(part.rows.size)
    if rows == 0:
        return {"count": 0, "estimate": None, "low": None, "high": None}
    if name in HARMFUL:
        low, high = _harm_bounds(group, count, rows, LEVEL)
        return {"count": count, "estimate": count / rows, "low": low, "high": high}
    value = happened.astype(np.float64)
    found = part.mean(value, value)
    if count == rows and found["low"] is not None:  # all alike, they scatter by nothing: the next one may differ
        recipients = _distinct(part.unit)
        found["low"], found["high"] = rate_bounds(recipients, recipients, LEVEL, ANY_RATE)
    return {"count": count, **found}


def _compares(compared: Compared, control: Group, present: GroupShares) -> bool:
    """Whether the campaign has this control group, even if nobody of it was asked about yet, or had it."""
    return _share(present, control) > 0.0 or bool(np.any(compared.ledger.group == GROUPS.index(control)))


def _lift(compared: Compared, control: Group, forms: Reported) -> dict[str, Any]:
    """The treated against a control group; nothing but its name where one of them has no decisions to compare."""
    ledger = compared.ledger
    treated, other = compared.groups["treated"], compared.groups[control]
    if not treated.rows.size or not other.rows.size:
        nothing: dict[str, Any] = {"value": None, "money": None, "doubts": [], "harms": {}}
        return {"control": control, "compared": int(other.rows.size), **nothing}
    doubtful = doubts(forms, control)
    comparable = all(one["doubt"] != "two_forms" for one in doubtful)
    value = _difference(compared, control, ledger.reward, ledger.worth, comparable)
    money = _difference(compared, control, ledger.revenue - ledger.cost, np.abs(ledger.revenue), comparable)
    return {
        "control": control,
        "compared": int(other.rows.size),
        "value": value,
        "money": money,
        "doubts": doubtful,
        "harms": {name: found for name in sorted(HARMFUL) if (found := _harm(compared, control, name)) is not None},
    }


def _difference(
    compared: Compared, control: Group, value: Floats, worth: Floats, comparable: bool
) -> dict[str, Any] | None:
    """A lift a decision, relative to the control once it can be stated, and over all treated decisions so far; None =
    none to speak of. What isn't ``comparable`` is never clear."""
    treated, other = (compared.groups[group].of(value, worth) for group in ("treated", control))
    comparison = compare(treated, other)
    if comparison is None:
        return None
    found, base = comparison.lift(LEVEL), comparison.base
    return {
        **bounds(found),
        "base": base,
        "relative": comparison.value / base if base > 0.0 and math.isfinite(found.low) else None,
        "clear": _clear(float(found.low), float(found.high)) if comparable else "no",
        "total": _total(comparison.total(LEVEL)),
        "power": power(comparison, found, compared.today, LEVEL),
    }


def _total(found: Total) -> dict[str, Any]:
    return {**bounds(found.estimate), "decisions": found.decisions}


def _harm(compared: Compared, control: Group, name: str) -> dict[str, Any] | None:
    """How much more often a harm happens to the treated; half of the error goes to each group, all of it to the treated
    where the other can have none."""
    happened = compared.ledger.outcomes[name].happened.astype(np.float64)
    treated, other = (compared.groups[group].of(happened, happened) for group in ("treated", control))
    comparison = compare(treated, other)
    if comparison is None:
        return None
    level = LEVEL if control == _HARMLESS else 1.0 - (1.0 - LEVEL) / 2.0
    one, two = comparison.rates()
    low, high = difference_bounds(rate_bounds(*one, level), _harm_bounds(control, *two, level))
    return {
        "estimate": one.cases / one.decisions - two.cases / two.decisions,
        "low": low,
        "high": high,
        "clear": _clear(low, high),
    }


def _harm_bounds(group: Group, cases: float, rows: float, level: float) -> tuple[float, float]:
    """Bounds of a harm's rate in a group. A harm is an answer to a message: who gets none has none, for certain."""
    return (0.0, 0.0) if group == _HARMLESS else rate_bounds(cases, rows, level)


def _clear(low: float, high: float) -> str:
    return "higher" if low > 0.0 else "lower" if high < 0.0 else "no"


def _sizes(ledger: Ledger, shares: Mapping[int, GroupShares]) -> dict[str, Any]:
    """Whether recipients fall into groups as the shares say: each counts where it was first asked about."""
    backwards = np.argsort(ledger.decided, kind="stable")[::-1]
    first = np.full(int(ledger.recipient.max(initial=-1)) + 1, NONE)
    first[ledger.recipient[backwards]] = backwards  # of several, the last one written stays: the earliest decision
    first = first[first != NONE]
    found: list[tuple[dict[str, int], dict[str, float]]] = []
    for one in dict.fromkeys(shares.values()):
        mine = np.isin(ledger.version[first], [version for version, other in shares.items() if other == one])
        counts = _bins(ledger.group[first][mine], GROUPS)
        found.append((dict(zip(GROUPS, counts, strict=True)), {group: _share(one, group) for group in GROUPS}))
    p = mismatch(found)
    expected = {group: sum(sum(c.values()) * s[group] for c, s in found) for group in GROUPS}
    return {
        "p_value": p,
        "mismatch": p < MISMATCH,
        "recipients": {group: sum(c[group] for c, _ in found) for group in GROUPS},
        "expected": expected,
    }


def _rules(ledger: Ledger) -> list[dict[str, Any]]:
    """What masked actions, the most often first."""
    told_of = sorted(ledger.reasons.items(), key=lambda one: (-one[1][0], one[0]))
    return [
        {"rule_id": rule, "kind": kind, "dry_run": dry, "decisions": n, "withheld": withheld, "masked": masked}
        for (rule, kind, dry), (n, withheld, masked) in told_of
    ]
