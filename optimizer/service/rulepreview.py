"""What a rule would have masked last week, before it binds anybody.

Caps, gaps, quiet hours and blackouts are tried on logged decisions, each beside the messages that were known when it
was made. Capacities and budgets are filled with the week's messages in the order in which they were reserved, on top of
what was used of their periods before; messages of other systems count there from the start. What would have followed
from a masked message (another one in its place, a cap that stays open) isn't played on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from optimizer.bandit.eligibility import Question, eligible_many, needs_unanswered
from optimizer.errors import Conflict, NotFound
from optimizer.service import recipients as people
from optimizer.service.engagement import unanswered_then
from optimizer.service.gains import ledgers
from optimizer.service.holidays import holidays_of
from optimizer.service.record import message_of
from optimizer.service.replay import Replayer, eligible_logged, situation_of, space_logged
from optimizer.service.wiring import Services
from storage import usage
from storage.log import Decision, Message, items_of
from storage.port import Reader
from storage.records import Consent, Recipient
from storage.rules import Budget, Capacity, Fatigue, Rule, Selector

SPAN: Final = timedelta(days=7)
#: The newest decisions that a rule is tried on, for which somebody waits: one each costs .4 ms of a processor, one that
#: fills a limit .1 ms, one whose recipient's log is read for an adaptive cap 2 ms, so each is over in about a second on
#: a machine that is not busy.
MOST, MOST_SHARED, MOST_ADAPTIVE = 2_000, 10_000, 500
_CHUNK: Final = 500
#: No period of a capacity or budget is longer, whatever its zone.
_LONGEST: Final = timedelta(days=33)
_FIGURES: Final = ("decisions", "touched", "actions", "messages", "silenced")


@dataclass
class _Counts:
    """Figures of each campaign; see ``preview``."""

    of: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, decision: Decision, **figures: int) -> None:
        self.of.setdefault(decision.campaign_id, Counter()).update(figures)

    def told(self) -> dict[str, Any]:
        total: Counter[str] = sum(self.of.values(), Counter())
        rows = [
            {"campaign_id": name, **{figure: counts[figure] for figure in _FIGURES}}
            for name, counts in sorted(self.of.items())
        ]
        return {**{figure: total[figure] for figure in _FIGURES}, "by_campaign": rows}


def preview(services: Services, rule: Rule) -> dict[str, Any]:
    """What a rule would have masked beyond what was masked, in the newest decisions of the last seven days.

    Args:
        services: the wired service.
        rule: as it would be stored; taken to act, whatever it says of being enabled or a dry run.

    Returns:
        ``decisions`` looked at, from ``since`` on (``complete``: all of the week, and no message that a capacity or
        budget counts in their periods is deleted); ``touched`` those of which an action would have been masked;
        ``actions`` how many such actions; ``messages`` that were planned or sent and would have been masked;
        ``silenced`` decisions that no message would have been left to. The same ``by_campaign``.

    Raises:
        Conflict: code ``not_previewed``, a fatigue rule: it masks by predictions, and what a model would have predicted
            of a rule that was not there is not logged.
    """
    if isinstance(rule.parameters, Fatigue):
        raise Conflict(
            "a fatigue rule masks by predictions, which the log lacks; put it with dry_run and read the reasons",
            code="not_previewed",
        )
    acting = replace(rule, enabled=True, dry_run=False, archived=False)
    until = services.clock()
    most = MOST_SHARED if usage.scarce(rule) else MOST_ADAPTIVE if needs_unanswered((acting,)) else MOST
    with services.store.read() as reader:
        made, all_read = _newest(reader, rule.workspace_id, until - SPAN, most)
        rows = [row for row in made if _tried(row)]
        if usage.scarce(rule):
            counts, whole = _filled(reader, acting, made)
        else:
            counts, whole = _masked(reader, services.salt, acting, rows), True
    since = until - SPAN if all_read or not rows else min(row.decided_at for row in rows)
    return {
        "rule_id": rule.rule_id,
        "kind": rule.kind,
        "since": since,
        "until": until,
        "complete": all_read and whole,
        **counts.told(),
    }


def _newest(reader: Reader, workspace_id: str, since: datetime, most: int) -> tuple[list[Decision], bool]:
    """The newest decisions since then, at most so many live ones, and whether these are all."""
    rows: list[Decision] = []
    tried = 0
    for decision in items_of(lambda at: reader.decisions(workspace_id, limit=_CHUNK, cursor=at)):
        if decision.decided_at < since:
            break
        if tried >= most:
            return rows, False
        rows.append(decision)
        tried += _tried(decision)
    return rows, True


def _tried(decision: Decision) -> bool:
    """Whether the rule is tried on a decision: a policy's own, made here."""
    return not decision.imported and decision.mode == "live"


def _masked(reader: Reader, salt: bytes, rule: Rule, rows: Sequence[Decision]) -> _Counts:
    replayer, counts = Replayer(reader, salt), _Counts()
    for start in range(0, len(rows), _CHUNK):
        known = list(_questions(reader, replayer, rule, rows[start : start + _CHUNK]))
        answers = eligible_many([question for _, question in known], (rule,))
        for (decision, question), answer in zip(known, answers, strict=True):
            was = eligible_logged(decision)
            closed = was & ~answer.mask
            messages = slice(0, question.space.messages)
            silenced = was[messages].any() and not (was & answer.mask)[messages].any()
            drawn = decision.action if decision.variant_id is not None else None
            counts.add(
                decision,
                decisions=1,
                touched=int(closed.any()),
                actions=int(closed.sum()),
                messages=int(drawn is not None and drawn < closed.size and bool(closed[drawn])),
                silenced=int(silenced),
            )
    return counts


def _questions(
    reader: Reader, replayer: Replayer, rule: Rule, rows: Sequence[Decision]
) -> Iterator[tuple[Decision, Question]]:
    """Each decision as it was asked, of a recipient who refuses nothing: only the rule is to mask."""
    kept = []
    for decision in rows:
        try:
            space = space_logged(decision, replayer.campaign(decision))
        except NotFound:  # a campaign whose version is not kept, a zone that this host doesn't know
            continue
        if space.messages and space.size == decision.actions:
            kept.append((decision, space))
    if not kept:
        return
    workspace_id = rule.workspace_id
    stored = reader.recipients(workspace_id, list({d.recipient_id for d, _ in kept}))
    unanswered = unanswered_then(reader, [d for d, _ in kept], (rule,))
    messages = ledgers(reader, [d for d, _ in kept], {d.decision_id: space for d, space in kept}, (rule,))
    for decision, space in kept:
        s = situation_of(decision, replayer.campaign(decision))
        recipient = _willing(
            stored.get(decision.recipient_id) or people.unknown(workspace_id, decision.recipient_id), s.channels
        )
        yield (
            decision,
            Question(
                space,
                replace(s.campaign, variants=tuple(replace(v, requires=()) for v in s.campaign.variants)),
                recipient,
                messages[decision.decision_id],
                s.zone,
                now=int(decision.decided_at.timestamp()),
                unanswered=unanswered[decision.decision_id],
                holidays=holidays_of((rule,), recipient, space),
            ),
        )


def _willing(recipient: Recipient, channels: Sequence[str]) -> Recipient:
    return replace(recipient, channels={channel: Consent(True) for channel in channels}, suppressed=())


def _filled(reader: Reader, rule: Rule, rows: Sequence[Decision]) -> tuple[_Counts, bool]:
    """The week's messages, first come first served, against a limit that all share; and whether all that was used of
    it before is known."""
    parameters, counts = rule.parameters, _Counts()
    if not isinstance(parameters, Capacity | Budget):
        raise AssertionError(f"rule {rule.rule_id} shares no limit")
    made = [(row, message_of(row)) for row in sorted(rows, key=lambda row: row.position)]
    used = _used_before(reader, rule, parameters, [message for _, message in made if message is not None])
    for decision, message in made:
        over = False
        if message is not None:
            period, amount = usage.needed(parameters, message)
            bound = _selects(rule.applies_to, message) and amount > 0
            over = bound and used[period] + amount > usage.limit_in(parameters, period)
            used[period] += amount if _selects(rule.counts, message) and not over else 0
        if _tried(decision):
            counts.add(decision, decisions=1, touched=int(over), actions=int(over), messages=int(over), silenced=0)
    forgotten = reader.forgotten_until(rule.workspace_id)
    return counts, forgotten is None or not used or usage.period_of(parameters, forgotten) < min(used)


def _used_before(
    reader: Reader, rule: Rule, parameters: Capacity | Budget, messages: Sequence[Message]
) -> Counter[int]:
    """What is used of the rule in the periods of the messages that it binds or counts, less what they take."""
    own: Counter[int] = Counter()
    for message in messages:
        counted = _selects(rule.counts, message)
        if counted or _selects(rule.applies_to, message):
            period, amount = usage.needed(parameters, message)
            own[period] += amount if counted else 0
    if not own:
        return own
    held = reader.summed(rule, min(message.at for message in messages) - _LONGEST)
    return Counter({period: held.get(period, 0) - amount for period, amount in own.items()})


def _selects(selector: Selector, message: Message) -> bool:
    return selector.admits(channel=message.channel, category=message.category, campaign_id=message.campaign_id)
