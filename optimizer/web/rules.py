"""Rules: put, patch, read, archive; which reserved messages break them now."""

from __future__ import annotations

from typing import Any

from optimizer.errors import Invalid, NotFound
from optimizer.service import rulecheck, setup
from optimizer.service.changing import change_rule
from optimizer.service.rulepreview import preview
from optimizer.web import body, examples, render
from optimizer.web.operation import Answer, Call, Operations
from optimizer.web.paging import own_cursor, sliced
from optimizer.web.schemas.body import PageQuery
from optimizer.web.schemas.rule_previews import RulePreviewOut
from optimizer.web.schemas.rules import BreachesPage, BreachesQuery, RuleIn, RuleOut, RulesPage, rule_of
from optimizer.web.versions import expected_version, patched
from storage.port import Reader
from storage.rules import Rule

api = Operations("rules", "Set-up")
_SCHEMA = RuleIn()
_PATH = "/v1/rules/{rule_id}"


@api.operation(
    "PUT",
    _PATH,
    "Create or replace a rule",
    body=RuleIn,
    answers={200: RuleOut, 201: RuleOut},
    scope="admin",
    preconditions=True,
    etag=True,
    example=examples.CAP,
)
def put_rule(call: Call) -> Answer:
    """Who may be written to, when, how often. It binds what is reserved from now on.

    `applies_to` says which requests it binds, `counts` which messages it counts (left out: the same); a selector left
    out means all, an empty list is refused. A new rule can't be named `baseline`, `consent`, `mode`, `requires` or
    `suppression`, by which reasons name what masks without a rule.
    """
    expected = expected_version(call, lambda reader: _version(reader, call))
    stored, created = setup.put_rule(call.services, _made(call, call.loaded), expected)
    return Answer(render.rule(stored), 201 if created else 200, etag=stored.version)


@api.operation(
    "PATCH",
    _PATH,
    "Change a rule",
    body=RuleIn,
    media=(body.MERGE_PATCH, body.JSON),
    answers={200: RuleOut},
    scope="admin",
    preconditions=True,
    etag=True,
    problems=(404, 409),
    example={"enabled": False},
)
def patch_rule(call: Call) -> Answer:
    """A JSON Merge Patch (RFC 7386) on the document as GET shows it. An archived rule is 409: a PUT brings it back. The
    kind stays: what follows from another one is in a whole document, so a PUT or a new rule."""
    rule_id = call.path["rule_id"]

    def document(rule: Rule) -> dict[str, Any]:
        if call.document.get("kind", rule.kind) != rule.kind:
            raise Invalid.field(
                "kind", f"can't be changed, it is {rule.kind!r}; make a new rule, or replace this by PUT"
            )
        shown = render.rule(rule)
        if rule.counts == rule.applies_to:
            del shown["counts"]  # so that it follows when the patch changes ``applies_to``
        if not call.document.get("warm_up", True):
            shown.pop("starts_on", None)  # a warm-up that is taken away takes its first day with it
        return shown

    with call.services.store.read() as reader:
        before = _stored(reader, call)
    of = patched(call, _SCHEMA, before, document, f"rule {rule_id!r}")
    stored = change_rule(call.services, call.workspace_id, rule_id, lambda found: _made(call, of(found)))
    return Answer(render.rule(stored), etag=stored.version)


@api.operation("GET", _PATH, "Read a rule", answers={200: RuleOut}, scope="read", etag=True, problems=(404,))
def get_rule(call: Call) -> Answer:
    """The rule, archived or not."""
    with call.services.store.read() as reader:
        stored = _stored(reader, call)
    if stored is None:
        raise NotFound(f"no rule {call.path['rule_id']!r} in this workspace")
    if call.preconditions.unchanged(stored.version):
        return Answer(status=304, etag=stored.version)
    return Answer(render.rule(stored), etag=stored.version)


@api.operation("GET", "/v1/rules", "List rules", query=PageQuery, answers={200: RulesPage}, scope="read")
def list_rules(call: Call) -> Answer:
    """All rules by id, archived ones included. A new workspace has the rule `default-quiet-hours`."""
    with call.services.store.read() as reader:
        stored = reader.rules(call.workspace_id)
    items, cursor = sliced(stored, lambda r: r.rule_id, limit=call.query["limit"], cursor=call.query["cursor"])
    return Answer(render.page("rules", [render.rule(r) for r in items], cursor))


@api.operation(
    "DELETE", _PATH, "Archive a rule", answers={204: None}, scope="admin", preconditions=True, problems=(404,)
)
def archive_rule(call: Call) -> Answer:
    """It binds nothing any more. It stays readable, its id taken; doing it again changes nothing."""
    expected = expected_version(call, lambda reader: _version(reader, call))
    setup.archive_rule(call.services, call.workspace_id, call.path["rule_id"], expected)
    return Answer(status=204)


@api.operation(
    "POST",
    f"{_PATH}/preview",
    "Try a rule on last week",
    body=RuleIn,
    answers={200: RulePreviewOut},
    scope="read",
    problems=(409,),
    example=examples.CAP,
)
def preview_rule(call: Call) -> Answer:
    """What a rule would have masked of the newest decisions of the last seven days, beyond what was masked then. It
    changes nothing; the rule need not be stored, and is taken to act.

    Each decision is judged beside the messages that were known when it was made. What would have followed from a masked
    message isn't played on. A capacity or budget is filled with the week's decided messages in the order of their
    reservation, on top of what was used of their periods before; messages of other systems count there from the start.
    An adaptive cap goes by the messages that the log says were unanswered. 409 with the code `not_previewed`: a fatigue
    rule, which masks by predictions.
    """
    return Answer(preview(call.services, _made(call, call.loaded)))


@api.operation(
    "GET",
    f"{_PATH}/breaches",
    "List reserved messages that break a rule",
    query=BreachesQuery,
    answers={200: BreachesPage},
    scope="read",
    problems=(404,),
)
def list_rule_breaches(call: Call) -> Answer:
    """Reserved, not yet sent messages that break this rule as it stands now, since a rule binds only what is reserved
    after it. Of a rule that is a dry run: those that would break it. Nothing is called off: release what shall not go.

    Each message is judged as if it were reserved now beside the recipient's others. Of a capacity or budget the last
    reserved ones of an overfull period are listed, until the rest fits. A fatigue rule is the policy's: nothing breaks
    it.
    """
    return _breaches(call, call.path["rule_id"])


@api.operation(
    "GET",
    "/v1/rule-breaches",
    "List reserved messages that break any rule",
    query=BreachesQuery,
    answers={200: BreachesPage},
    scope="read",
)
def list_breaches(call: Call) -> Answer:
    """Reserved, not yet sent messages that break the rules that act now, a message once for each rule; also those that
    the recipient's consent or suppressions no longer allow."""
    return _breaches(call, None)


def _breaches(call: Call, rule_id: str | None) -> Answer:
    with own_cursor():
        page = rulecheck.breaches(call.services, call.workspace_id, rule_id, **call.query)
    return Answer(render.page("breaches", [render.breach(b) for b in page.items], page.cursor))


def _made(call: Call, loaded: dict[str, Any]) -> Rule:
    return rule_of(loaded, workspace_id=call.workspace_id, rule_id=call.path["rule_id"])


def _stored(reader: Reader, call: Call) -> Rule | None:
    return setup.rule_of(reader, call.workspace_id, call.path["rule_id"])


def _version(reader: Reader, call: Call) -> int:
    stored = _stored(reader, call)
    return stored.version if stored is not None else 0
