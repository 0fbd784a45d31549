"""Rules: what they do in plain words, what they would have masked last week, turning them on and off, changing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import orjson
from flask import Response, request

from optimizer.errors import Conflict, Invalid, NotFound, SendtideError, Unreadable
from optimizer.service import setup
from optimizer.service.freshreports import Fresh
from optimizer.service.rulepreview import preview
from optimizer.web import body, render
from optimizer.web.console.filters import Sayings
from optimizer.web.console.pages import Visit, console, note, see
from optimizer.web.console.rulewords import in_words, selected
from optimizer.web.schemas.body import Body
from optimizer.web.schemas.fields import Id
from optimizer.web.schemas.rules import RuleIn, rule_of
from optimizer.web.validation import load
from storage.port import Reader
from storage.rules import Fatigue, Rule

_REFRESH_SECONDS = 15
_SCHEMA = RuleIn()
#: The states of a rule that it can be switched to.
STATES: Final = ("on", "dry_run", "off")
#: Where a rule goes from which no switch brings it back.
_ARCHIVED: Final = "archived"
#: What a new rule of a kind starts from.
STARTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "cap": {"limit": 3, "window": {"rolling_hours": 168}},
    "gap": {"minutes": 240},
    "quiet_hours": {"start": "21:00", "end": "08:00"},
    "blackout": {"dates": ["2027-01-01"]},
    "capacity": {"limit": 1000, "per_minutes": 60},
    "budget": {"amount": 100, "per": "day"},
    "fatigue": {"outcome": "unsubscribed", "max_risk": 0.01},
}
#: What the service says of a stored rule that a PUT of it doesn't.
_TOLD = ("rule_id", "version", "updated_at", "archived")


class _NameIn(Body):
    """The name of a new rule."""

    rule_id = Id(addressed=True, required=True)


_NAME = _NameIn()


@console.page("/rules")
def rules(visit: Visit) -> Response:
    """Every rule that isn't archived."""
    with visit.services.store.read() as reader:
        known = [one for one in reader.rules(visit.workspace_id) if not one.archived]
        missing = {one.rule_id: _missing(reader, one) for one in known}
    rows = [(one, state_of(one), {**_words(visit, one), "missing": missing[one.rule_id]}) for one in known]
    notice = visit.language("rule.done.archived") if request.args.get("done") == _ARCHIVED else None
    return visit.show("rules.html", rows=sorted(rows, key=lambda row: row[0].rule_id), kinds=STARTS, notice=notice)


@console.page("/rules/<id:rule_id>")
def rule(visit: Visit, rule_id: str) -> Response:
    """One rule, with what it would have masked last week."""
    found = _stored(visit, rule_id)
    done = request.args.get("done")
    notice = visit.language(f"rule.done.{done}") if done in (*STATES, "saved") else None
    return visit.show("rule.html", **_facts(visit, found), refresh_seconds=_REFRESH_SECONDS, notice=notice)


@console.page("/rules/<id:rule_id>/switch/<to>", scope="admin")
def confirm_switch(visit: Visit, rule_id: str, to: str) -> Response:
    """Asks whether it is meant, beside what the rule would have masked."""
    found = _switchable(visit, rule_id, to)
    return visit.show("confirm_rule.html", **_facts(visit, found), to=to, refresh_seconds=_REFRESH_SECONDS)


@console.action("/rules/<id:rule_id>/switch/<to>")
def switch_rule(visit: Visit, rule_id: str, to: str) -> Response:
    """Turns a rule on, off or into a dry run, or archives it; refused when somebody has changed it meanwhile."""
    found = _switchable(visit, rule_id, to)
    if to == _ARCHIVED:
        setup.archive_rule(visit.services, visit.workspace_id, rule_id, _version())
        return see("rules", done=to)
    setup.put_rule(visit.services, _switched(found, to), _version())
    return see("rule", rule_id=rule_id, done=to)


@console.page("/new-rule", scope="admin")
def new_rule(visit: Visit) -> Response:
    """The form of a rule that isn't there yet, filled in with an example of its kind."""
    kind = request.args.get("kind", "cap")
    if kind not in STARTS:
        raise NotFound(f"no kind of rule {kind!r}; there are: {', '.join(STARTS)}")
    # Tried out before it binds anybody.
    return _form(visit, None, "", _pretty({"kind": kind, **STARTS[kind], "applies_to": {}, "dry_run": True}))


@console.page("/rules/<id:rule_id>/edit", scope="admin")
def edit_rule(visit: Visit, rule_id: str) -> Response:
    """The form of a rule, filled in with its document."""
    found = _stored(visit, rule_id)
    return _form(visit, found, rule_id, _pretty(_document(found)))


@console.action("/try-rule", audited=False)
def try_rule(visit: Visit) -> Response:
    """What the rule of the form would have masked last week. It stores nothing."""
    return _tried(visit, save=False)


@console.action("/save-rule")
def save_rule(visit: Visit) -> Response:
    """Stores the rule of the form as it was tried; one that was changed since is tried first."""
    return _tried(visit, save=True)


def state_of(found: Rule) -> str:
    """Which of ``STATES`` a rule is in."""
    return "off" if not found.enabled else "dry_run" if found.dry_run else "on"


def _switched(found: Rule, to: str) -> Rule:
    """The rule in that state; one that is turned off stays what it was otherwise."""
    return replace(found, enabled=to != "off", dry_run=found.dry_run if to == "off" else to == "dry_run")


def _tried(visit: Visit, *, save: bool) -> Response:
    text, rule_id = request.form.get("document", ""), request.form.get("rule_id", "").strip()
    known = _known(visit, rule_id)
    is_new, version = request.form.get("new") == "yes", _version()
    stored = None if is_new else known
    try:
        load(_NAME, {"rule_id": rule_id})
        if is_new and known is not None and not known.archived:
            raise Invalid.field("rule_id", f"there is a rule {rule_id!r} already")
        document = body.parse_object(text.encode("utf-8", "replace"))
        asked = rule_of(load(_SCHEMA, document), workspace_id=visit.workspace_id, rule_id=rule_id)
    except (Invalid, Unreadable) as fault:
        return _form(visit, stored, rule_id, text, status=422, fault=fault)
    if not is_new and stored is None:
        raise NotFound(f"no rule {rule_id!r} in this workspace")
    tried = orjson.dumps([rule_id, document], option=orjson.OPT_SORT_KEYS).decode()
    if save and request.form.get("tried") == tried:
        setup.put_rule(visit.services, asked, known.version if is_new and known is not None else version)
        note(rule_id=rule_id)
        return see("rule", rule_id=rule_id, done="saved")
    told = {**_words(visit, _as_stored(asked, known, visit.now)), "state": state_of(asked)}
    # A rule that was changed since it was tried is not stored: the answer shows what it would do first.
    return _form(
        visit,
        stored,
        rule_id,
        text,
        status=409 if save else 200,
        tried=tried,
        told=told,
        outcome=_preview(visit, asked),
    )


def _form(
    visit: Visit,
    stored: Rule | None,
    rule_id: str,
    text: str,
    *,
    status: int = 200,
    fault: SendtideError | None = None,
    tried: str = "",
    told: Mapping[str, str | None] | None = None,
    outcome: Mapping[str, Any] | None = None,
) -> Response:
    """The form, with what is wrong with what was typed, or with what came of trying it."""
    is_new = stored is None
    version = request.form.get("version") or str(0 if stored is None else stored.version)
    errors: Mapping[str, Sequence[str]] = {} if fault is None else fault.errors or {"": [fault.detail]}
    return visit.show(
        "rule_edit.html",
        status,
        is_new=is_new,
        rule_id=rule_id,
        version=version,
        text=text,
        kinds=STARTS,
        errors=errors,
        tried=tried,
        told=told,
        preview=outcome,
        moved=status == 409,
    )


def _facts(visit: Visit, found: Rule) -> dict[str, Any]:
    """What the pages of one rule show."""
    fresh = _fresh(visit, found)
    with visit.services.store.read() as reader:
        missing = _missing(reader, found)
    return {
        "rule": found,
        "missing": missing,
        "state": state_of(found),
        "states": [state for state in STATES if state != state_of(found)],
        **_words(visit, found),
        "document": _pretty(_document(found)),
        "preview": fresh.report,
        "pending": fresh.pending,
        "can_preview": not isinstance(found.parameters, Fatigue),
    }


def _words(visit: Visit, found: Rule) -> dict[str, str | None]:
    """What a rule does, whom it binds, and what it counts where that is something else."""
    say = Sayings(visit.language)
    counts = selected(say, found.counts) if found.counts != found.applies_to else None
    return {"words": in_words(say, found), "binds": selected(say, found.applies_to), "counts": counts}


def _missing(reader: Reader, rule: Rule) -> str:
    """The campaigns that a rule names and that there are not: no message is of them."""
    lists = [(one.campaigns, one.except_campaigns) for one in (rule.applies_to, rule.counts)]
    named = dict.fromkeys(name for both in lists for names in both for name in names or ())
    return ", ".join(name for name in named if reader.campaign(rule.workspace_id, name) is None)


def _as_stored(asked: Rule, known: Rule | None, now: datetime) -> Rule:
    """The rule of the form as it would be stored now."""
    before = None if known is None or known.archived else known.parameters
    return replace(asked, parameters=setup.started(asked.parameters, before, now))


def _fresh(visit: Visit, found: Rule) -> Fresh:
    """The preview of a stored rule, made behind the page's back."""
    if isinstance(found.parameters, Fatigue):
        return Fresh(None, pending=False)
    key = (visit.workspace_id, "rule-preview", found.rule_id, found.version)
    return visit.services.fresh.latest(key, visit.now, lambda: preview(visit.services, found))


def _preview(visit: Visit, asked: Rule) -> dict[str, Any] | None:
    """The preview of a rule of the form; None for a kind that has none."""
    try:
        return preview(visit.services, asked)
    except Conflict:
        return None


def _switchable(visit: Visit, rule_id: str, to: str) -> Rule:
    found = _stored(visit, rule_id)
    allowed = (*STATES, _ARCHIVED)
    if to not in allowed:
        raise NotFound(f"a rule can't be switched to {to!r}; allowed: {', '.join(allowed)}")
    if state_of(found) == to:
        raise Conflict(f"the rule {rule_id!r} is in that state already", code="moved")
    return found


def _stored(visit: Visit, rule_id: str) -> Rule:
    found = _known(visit, rule_id)
    if found is None or found.archived:
        raise NotFound(f"no rule {rule_id!r} in this workspace")
    return found


def _known(visit: Visit, rule_id: str) -> Rule | None:
    with visit.services.store.read() as reader:
        return next((one for one in reader.rules(visit.workspace_id) if one.rule_id == rule_id), None)


def _version() -> int:
    """The version that the form was made of."""
    given = request.form.get("version", "")
    if not given.isascii() or not given.isdecimal() or len(given) > 10:
        raise Invalid.field("version", "is not that of a rule; load the page again")
    return int(given)


def _document(found: Rule) -> dict[str, Any]:
    """The rule as a PUT of it would say it."""
    shown = {name: value for name, value in render.rule(found).items() if name not in _TOLD}
    if found.counts == found.applies_to:
        del shown["counts"]
    return shown


def _pretty(document: Mapping[str, Any]) -> str:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
