"""Prices of scarce things: worked out from the log's last days and from what is left, published as policy revisions.

Where a capacity, a budget or a cap binds, what is scarce should go to those who gain most by it, and not to whoever
asks first. So it gets a price that every message pays in the policy's eyes (``bandit.tolls``). The prices of a moment
are part of a revision of the policy, so a decision's propensity can be recomputed from the log; they are worked out
anew at each refresh, and in between by themselves, and published where they moved by more than ``TOLERANCE``.

One price holds for all campaigns that a rule binds: their questions are pooled, and their rewards taken to be in one
currency. A rule prices messages that it both binds (``applies_to``) and counts; what only counts takes its share first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import numpy as np

from optimizer.bandit.localtime import DAY
from optimizer.bandit.places import Wishes, price_of_place
from optimizer.bandit.scarce import Asked, Scarce, price_all
from optimizer.bandit.tolls import HOUR, Price, prices_of, with_prices
from optimizer.model.policy import LivePolicy
from optimizer.service.apart import Apart, attempted
from optimizer.service.gains import Memory, Scored, score_all
from optimizer.service.pacing import KNOWN_AT, known_until
from optimizer.service.priceable import Priceable, priceable, taking
from optimizer.service.publish import new_policy, publish
from optimizer.service.questions import LOOK_BACK, SETTLED, Past, watched
from optimizer.service.serving import load_policy
from optimizer.service.wiring import Services
from storage.errors import VersionConflict
from storage.policies import Pointer, Policy
from storage.port import Reader
from storage.records import JsonObject
from storage.rules import Budget, Cap, Capacity, Rule
from storage.usage import Usage, limit_in, period_of

#: A rule may bind where this part of a limit is used; a budget also where it is spent this fast.
NEARLY = 0.9
#: New prices are published where that of any hour of the next two days differs by more than this part of the mean.
#: By this part of the sum over them it would take 48 hours' worth of a change in the hour that runs out or stays empty:
#: a crowd whose truth is known then earned .965 of the optimum with hindsight, against .976.
TOLERANCE = 0.05
_RECENT = 500
_DAY = timedelta(days=1)

Prices = Mapping[str, tuple[Price, ...]]


def reprice(
    services: Services,
    workspace_id: str,
    campaign_id: str | None = None,
    memory: Memory | None = None,
    apart: Apart | None = None,
) -> list[dict[str, Any]]:
    """Works prices out anew and publishes a revision of each policy whose prices moved.

    Args:
        services: the wired service.
        workspace_id: whose rules and policies.
        campaign_id: only this campaign's policy (None = all).
        memory: what is remembered of earlier times, for whoever does this again and again.
        apart: keeps what fails for a campaign (None = it is raised).

    Returns:
        For each campaign whose prices moved ``campaign_id, decision, policy_id, prices`` (rule ids); ``decision`` is
        publish or superseded (the policy was moved meanwhile).
    """
    with services.store.read() as reader:
        served = priceable(reader, workspace_id, services.clock())
        prices = work_out(services, reader, served, memory, apart)
    published = [
        attempted(apart, name, partial(publish_prices, services, served.pointers[name], policy, prices.get(name, ())))
        for name, policy in served.policies.items()
        if campaign_id in (None, name) and moved(prices_of(policy.exploration), prices.get(name, ()), served.now)
    ]
    return [one for one in published if one is not None]


def publish_prices(services: Services, pointer: Pointer, policy: Policy, prices: Sequence[Price]) -> dict[str, Any]:
    """Publishes a revision that differs from the served policy in its prices alone."""
    now = services.clock()
    revision = new_policy(
        pointer.workspace_id,
        pointer.campaign_id,
        now,
        policy.mixture,
        parent=pointer,
        exploration=with_prices(policy.exploration, prices),
        verdict=_verdict(pointer, policy),
        run_id=None,
        gated_id=policy.gated_id or policy.policy_id,
    )
    answer = {"campaign_id": pointer.campaign_id, "prices": [price.rule_id for price in prices]}
    try:
        publish(services, [], revision, pointer, now, over_prices=False)
    except VersionConflict:
        return {**answer, "decision": "superseded", "policy_id": None}
    return {**answer, "decision": "publish", "policy_id": revision.policy_id}


def _verdict(pointer: Pointer, policy: Policy) -> JsonObject:
    """Of a policy whose prices alone are new. Its models are the same, so it is as far from its gated ancestor as what
    it revises; where that was put back, nothing from before counts for those that follow it."""
    told = dict(policy.verdict) if policy.revision else {"revision": True, "divergence": 0.0}
    told |= {KNOWN_AT: known_until(policy)}
    if pointer.moved_at > policy.created_at:
        told = {name: value for name, value in told.items() if name != "progress"} | {"put_back": True}
    return {**told, "repriced": True}


def moved(old: Sequence[Price], new: Sequence[Price], now: datetime) -> bool:
    """Whether new prices are worth a revision: some rule's moved by more than ``TOLERANCE`` in the next two days."""
    before, after = {p.rule_id: p for p in old}, {p.rule_id: p for p in new}
    if before.keys() != after.keys():
        return True
    times = int(now.timestamp()) + HOUR * np.arange(2 * DAY // HOUR, dtype=np.int64)
    for name, price in after.items():
        if before[name].channels != price.channels:
            return True
        one, other = before[name].at(times), price.at(times)
        if np.abs(one - other).max() > TOLERANCE * max(one.mean(), other.mean()):
            return True
    return False


def work_out(
    services: Services,
    reader: Reader,
    served: Priceable,
    memory: Memory | None = None,
    apart: Apart | None = None,
) -> Prices:
    """The prices of each campaign that serves a learned policy now; a rule that doesn't bind has none."""
    memory = Memory() if memory is None else memory
    shared, caps = _binding(reader, served)
    names = served.policies.keys()
    if not shared and not caps:
        return dict.fromkeys(names, ())
    demand = watched(memory.demand, served.workspace_id, names, shared, whole=bool(caps))
    past = demand.read(reader, served.workspace_id, served.now)
    live = {}
    for name in sorted(names):
        policy = attempted(apart, name, partial(_live, services, reader, served, name))
        if policy is not None:
            live[name] = served.campaigns[name], policy
    priced: dict[str, list[Price]] = {name: [] for name in names}
    without = frozenset(rule.rule_id for rule in shared)
    if shared and past.sample:
        questions = score_all(
            reader, services.salt, past.sample, live, served.rules, without, memory.scores, drawn=True
        )
        _add_shared(priced, served, shared, past, questions, _scarce(reader, served, shared, past))
    if caps and past.whole:
        every = without | {rule.rule_id for rule in caps}
        questions = score_all(reader, services.salt, past.whole, live, served.rules, every, memory.scores)
        _add_caps(priced, served, caps, questions)
    return {name: tuple(prices) for name, prices in priced.items()}


def _live(services: Services, reader: Reader, served: Priceable, name: str) -> LivePolicy:
    """The policy with its models: this process's, where that is the one."""
    mine = services.policies.current(served.workspace_id, name)
    wanted = served.policies[name].policy_id
    return mine if mine.policy_id == wanted else load_policy(reader, served.workspace_id, wanted, {})


def _binding(reader: Reader, served: Priceable) -> tuple[list[Rule], list[Rule]]:
    """The shared rules, if any of them may bind, and the caps that do. Cheap, since it is asked every minute."""
    shared, caps = served.shared, served.caps
    if not shared and not caps:
        return [], []
    had = {p.rule_id for policy in served.policies.values() for p in prices_of(policy.exploration)}
    recent = reader.decisions(served.workspace_id, limit=_RECENT).items
    masking = {r.rule_id for d in recent for r in d.reasons if not r.dry_run}
    felt = {rule.rule_id for rule in (*shared, *caps)} & (had | masking)
    if not felt and not _nearly_used(reader, served, shared):
        return [], []
    return shared, [rule for rule in caps if rule.rule_id in felt]


def _nearly_used(reader: Reader, served: Priceable, rules: Sequence[Rule]) -> bool:
    """Whether some period of a rule is nearly used up, or a budget on its way to be before its period ends."""
    now = int(served.now.timestamp())
    usage = _usage(reader, served, rules)
    for rule in rules:
        one = Scarce(rule, usage)
        present = period_of(one.parameters, served.now)
        if isinstance(rule.parameters, Budget):
            end, length = one.end(now), one.end(one.end(now)) - one.end(now)
            gone = 1.0 - (end - now) / length
            if usage.get((rule.rule_id, present), 0) > NEARLY * gone * rule.parameters.amount:
                return True
        for (name, period), used in usage.items():
            if name == rule.rule_id and used >= NEARLY * limit_in(one.parameters, period):
                return True
    return False


def _usage(reader: Reader, served: Priceable, rules: Sequence[Rule]) -> dict[tuple[str, int], int]:
    """What is used of the periods of the last days and of those to come that a question may reach."""
    spans = []
    for rule in rules:
        parameters = rule.parameters
        if isinstance(parameters, Capacity | Budget):
            first = period_of(parameters, served.now - LOOK_BACK)
            spans.append((rule.rule_id, first, period_of(parameters, served.now + 2 * _DAY)))
    return reader.usage(served.workspace_id, spans)


def _scarce(reader: Reader, served: Priceable, rules: Sequence[Rule], past: Past) -> list[Scarce]:
    """Each rule with what is left of it, and which part of that the questions can count on."""
    usage = _usage(reader, served, rules)
    return [
        Scarce(rule, usage, _share(rule, usage, served.now, *past.taken[rule.rule_id]), past.busy) for rule in rules
    ]


def _share(rule: Rule, usage: Usage, now: datetime, mine: int, decided: int, ended: int) -> float:
    """The part of what was used of a rule lately that the questions' own messages took; 1.0 where nothing was. What
    campaigns took that send no more is left out: the questions have that, too, from now on.

    Other systems' messages are in no decision, only in the usage. They cost nothing, so a budget doesn't know them;
    those of a capacity whose periods outlast a day are not told apart from older ones, and left out.
    """
    everybody, parameters = decided, rule.parameters
    if isinstance(parameters, Capacity) and parameters.per_minutes <= DAY // 60:
        first = period_of(parameters, now - SETTLED)
        used = sum(n for (name, p), n in usage.items() if name == rule.rule_id and p >= first)
        everybody = max(decided, used - ended)
    return mine / everybody if mine else 1.0


def _bound(question: Scored, channels: tuple[str, ...]) -> Any:
    """(m,) bool, whether each action is on one of the channels."""
    return np.array([name in channels for name in question.channels])[question.channel]


def _add_shared(
    priced: dict[str, list[Price]],
    served: Priceable,
    rules: Sequence[Rule],
    past: Past,
    questions: Sequence[Scored],
    limits: Sequence[Scarce],
) -> None:
    """Adds the prices of capacity and budget rules to each campaign's."""
    if not questions:
        return
    taken = {name: [taking(rule, campaign) for rule in rules] for name, campaign in served.campaigns.items()}
    asked_of = {(q.decision.campaign_id, q.channels) for q in questions}
    bound = {key: np.array([[c in mine for mine in taken[key[0]]] for c in key[1]]) for key in asked_of}
    asked = Asked(
        decided=np.array([int(q.decision.decided_at.timestamp()) for q in questions], dtype=np.int64),
        weight=np.full(len(questions), past.typical / len(questions)),
        question=np.repeat(np.arange(len(questions)), [len(q.gain) for q in questions]),
        send_at=np.concatenate([q.send_at for q in questions]),
        gain=np.concatenate([q.gain for q in questions]),
        cost=np.concatenate([q.cost for q in questions]),
        bound=np.concatenate([bound[q.decision.campaign_id, q.channels][q.channel] for q in questions]),
    )
    for rule, found in zip(rules, price_all(asked, limits, int(served.now.timestamp())), strict=True):
        if not found.binds:
            continue
        price = Price(
            rule_id=rule.rule_id,
            kind="capacity" if isinstance(rule.parameters, Capacity) else "budget",
            channels=(),
            usual=found.usual,
            every=found.every,
            starts=found.starts,
            values=found.values,
            until=found.until,
        )
        _give(priced, served, rule, price)


def _add_caps(
    priced: dict[str, list[Price]], served: Priceable, rules: Sequence[Rule], questions: Sequence[Scored]
) -> None:
    """Adds the prices of caps, each given the prices found before it."""
    people: dict[str, int] = {}
    for rule in rules:
        if not isinstance(rule.parameters, Cap):
            continue
        rows = []
        for q in questions:
            channels = taking(rule, served.campaigns[q.decision.campaign_id])
            gain = np.where(_bound(q, channels), q.gain - _paid(priced[q.decision.campaign_id], q), -np.inf)
            if gain.size and (best := int(gain.argmax())) >= 0 and gain[best] > 0:
                who = people.setdefault(q.decision.recipient_id, len(people))
                rows.append((who, q.send_at[best], q.local[best], gain[best]))
        if not rows:
            continue
        value = price_of_place(rule.parameters, Wishes(*(np.array(column) for column in zip(*rows, strict=True))))
        if value > 0:
            _give(priced, served, rule, Price(rule.rule_id, "cap", (), (float(f"{value:.6g}"),)))


def _paid(prices: Sequence[Price], question: Scored) -> Any:
    """(m,) what each action of a question is charged already."""
    total = np.zeros(len(question.gain))
    for price in prices:
        take = question.cost if price.kind == "budget" else np.ones(len(question.gain))
        total += np.where(_bound(question, price.channels), price.at(question.send_at) * take, 0.0)
    return total


def _give(priced: dict[str, list[Price]], served: Priceable, rule: Rule, price: Price) -> None:
    """Gives a rule's price to each campaign that it binds."""
    for name in priced:
        channels = taking(rule, served.campaigns[name])
        if channels:
            priced[name].append(replace(price, channels=channels))
