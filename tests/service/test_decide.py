"""Deciding: exact propensities, idempotency, groups, modes, rules at the very time that is answered."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from optimizer.errors import Conflict, Invalid, SendtideError
from optimizer.model.policy import LivePolicy
from optimizer.service import settle, setup
from optimizer.service.evidence import vector_of
from optimizer.service.ids import COLD_POLICY
from optimizer.service.replay import Replayer, plan_of, situation_of, vectors
from optimizer.service.requests import DecisionRequest, RecipientPatch
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.records import Baseline, Campaign, Channel, Consent, GroupShares, Mode, Recipient, Suppression
from storage.rules import Cap, Rule, Selector
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign


def ask(services: Services, recipient: str = "u1", **fields: object) -> Decision:
    request = DecisionRequest(campaign_id="spring", recipient_id=recipient, **fields)  # type: ignore[arg-type]
    return services.decider.decide(WORKSPACE, request)[0]


def cap(services: Services, limit: int, **cap_fields: object) -> None:
    parameters = Cap(limit=limit, **(cap_fields or {"rolling_hours": 168.0}))  # type: ignore[arg-type]
    setup.put_rule(services, Rule(workspace_id=WORKSPACE, rule_id="cap", kind="cap", parameters=parameters))


def test_without_a_policy_the_choice_is_uniform_over_the_eligible(services: Services, spring: Campaign) -> None:
    decision = ask(services)
    # 2 variants x 24 slots by e-mail (push needs a yes), and not sending.
    assert decision.eligible_actions == 2 * 24 + 1
    assert decision.propensity == pytest.approx(1 / 49, abs=1e-12)


def test_the_send_time_lies_in_the_window_and_is_spread_within_its_slot(services: Services, spring: Campaign) -> None:
    window = (START + timedelta(hours=2), START + timedelta(hours=8))
    times = {d.send_at for i in range(40) if (d := ask(services, f"u{i}", window=window)).send_at is not None}
    assert all(window[0] <= t < window[1] for t in times)
    assert len({t.minute for t in times}) > 10


def test_the_same_request_answers_the_same_and_reserves_nothing_more(services: Services, spring: Campaign) -> None:
    first, created = services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1", request_id="r1"))
    again, created_again = services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1", request_id="r1"))
    assert (created, created_again) == (True, False)
    assert again == first
    with services.store.read() as reader:
        assert len(reader.decisions(WORKSPACE, limit=10).items) == 1


def test_a_request_id_with_another_body_is_a_conflict(services: Services, spring: Campaign) -> None:
    ask(services, "u1", request_id="r1")
    with pytest.raises(Conflict, match="r1"):
        ask(services, "u2", request_id="r1")


def test_a_preview_reserves_and_logs_nothing(services: Services, spring: Campaign) -> None:
    ask(services, preview=True)
    with services.store.read() as reader:
        assert reader.decisions(WORKSPACE, limit=10).items == ()


def test_a_cap_withholds_what_is_over_it_and_says_why(services: Services) -> None:
    setup.put_campaign(services, campaign(allow_no_send=False))
    cap(services, 2)
    got = [ask(services) for _ in range(4)]
    assert [d.status for d in got] == ["reserved", "reserved", "withheld", "withheld"]
    assert got[2].propensity == 1.0
    assert got[2].action is None
    assert {r.rule_id for r in got[2].reasons} == {"cap", "consent", "default-quiet-hours"}


def test_a_release_frees_the_cap(services: Services, clock: FakeClock) -> None:
    setup.put_campaign(services, campaign(allow_no_send=False))
    cap(services, 1)
    first = ask(services)
    assert ask(services).status == "withheld"
    settle.release(services, WORKSPACE, first.decision_id, "sender is down")
    assert ask(services).status == "reserved"


def test_a_recipient_named_twice_in_a_batch_sees_the_first_reservation(services: Services) -> None:
    setup.put_campaign(services, campaign(allow_no_send=False))
    cap(services, 1)
    rows = [DecisionRequest("spring", "u1"), DecisionRequest("spring", "u1"), DecisionRequest("spring", "u2")]
    got = services.decider.decide_batch(WORKSPACE, rows, "run1")
    assert [d.status for d in got if isinstance(d, Decision)] == ["reserved", "withheld", "reserved"]


def test_a_batch_again_answers_the_same(services: Services, spring: Campaign) -> None:
    rows = [DecisionRequest("spring", f"u{i}") for i in range(5)]
    assert services.decider.decide_batch(WORKSPACE, rows, "run1") == services.decider.decide_batch(
        WORKSPACE, rows, "run1"
    )


def test_a_bad_row_spoils_no_other(services: Services, spring: Campaign) -> None:
    rows: list[DecisionRequest | SendtideError] = [
        DecisionRequest("spring", "u1"),
        Invalid("unreadable line"),
        DecisionRequest("nope", "u2"),
        DecisionRequest("spring", "u3"),
    ]
    got = services.decider.decide_batch(WORKSPACE, rows, "run1")
    assert [type(g).__name__ for g in got] == ["Decision", "Invalid", "Invalid", "Decision"]


def test_a_stored_zone_that_this_host_lacks_spoils_no_other_row(services: Services, spring: Campaign) -> None:
    setup.put_campaign(services, campaign(campaign_id="afar", timezone="America/Nowhere"))
    setup.put_recipient(services, Recipient(WORKSPACE, "u2", timezone="America/Nowhere"))
    rows = [DecisionRequest(*names) for names in (("spring", "u1"), ("spring", "u2"), ("afar", "u3"), ("spring", "u4"))]
    first, who, where, last = services.decider.decide_batch(WORKSPACE, rows, "run1")
    assert isinstance(first, Decision)
    assert isinstance(last, Decision)
    for refused, field in ((who, "recipient.timezone"), (where, "campaign.timezone")):
        assert isinstance(refused, Invalid)
        assert (refused.code, list(refused.errors)) == ("unknown_zone", [field])
        assert "'America/Nowhere' is not a time zone" in refused.detail


def test_only_campaigns_that_exist_are_remembered(services: Services, spring: Campaign) -> None:
    services.decider.decide_batch(WORKSPACE, [DecisionRequest(name, "u1") for name in ("nope", "spring")], "run1")
    view = services.catalog.newest(WORKSPACE)
    assert view is not None
    assert [view.knows(name) for name in ("nope", "spring")] == [False, True]


def test_a_request_id_repeated_within_a_batch_answers_once(services: Services, spring: Campaign) -> None:
    rows = [DecisionRequest("spring", "u1", request_id="r"), DecisionRequest("spring", "u1", request_id="r")]
    first, second = services.decider.decide_batch(WORKSPACE, rows, "run1")
    assert first == second
    other = [DecisionRequest("spring", "u1", request_id="s"), DecisionRequest("spring", "u2", request_id="s")]
    assert isinstance(services.decider.decide_batch(WORKSPACE, other, "run2")[1], Conflict)


def test_the_set_changed_between_read_and_write_so_the_draw_is_made_anew(
    services: Services, spring: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = Consent(state=True)
    real = services.store.write

    def consent_first(work: object, *, recipients: object = ()) -> object:
        monkeypatch.setattr(services.store, "write", real)
        setup.put_recipient(services, Recipient(WORKSPACE, "u1", channels={"push": push}))
        return real(work, recipients=recipients)  # type: ignore[arg-type]

    monkeypatch.setattr(services.store, "write", consent_first)
    decision = ask(services)
    assert decision.snapshot.attempt == 1
    assert decision.eligible_actions > 49
    with services.store.read() as reader:
        assert Replayer(reader, services.salt).draw(decision) == decision.action


def test_a_change_that_leaves_the_set_keeps_the_draw(
    services: Services, spring: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ask(services, preview=True, request_id="r1")
    real = services.store.write

    def touch_first(work: object, *, recipients: object = ()) -> object:
        monkeypatch.setattr(services.store, "write", real)
        setup.put_recipient(services, Recipient(WORKSPACE, "u1", attributes={"plan": "pro"}))
        return real(work, recipients=recipients)  # type: ignore[arg-type]

    monkeypatch.setattr(services.store, "write", touch_first)
    decision = ask(services, request_id="r1")
    assert decision.snapshot.attempt == 0
    assert decision.action == expected.action


@pytest.mark.parametrize("group", ["holdout", "random", "baseline"])
def test_groups_answer_as_they_should(services: Services, group: str) -> None:
    shares = GroupShares(**{group: 1.0})
    baseline = Baseline("mens", "email", "10:30")
    setup.put_campaign(services, campaign(groups=shares, baseline=baseline))
    decision = ask(services)
    assert decision.group == group
    if group == "holdout":
        assert (decision.status, decision.propensity, decision.send_at) == ("no_send", 1.0, None)
    elif group == "baseline":
        assert decision.send_at == START.replace(hour=10, minute=30)
        assert (decision.variant_id, decision.propensity) == ("mens", 1.0)
    else:
        assert decision.propensity == pytest.approx(1 / 49)


@pytest.mark.parametrize("mode", ["shadow", "baseline_only", "paused"])
def test_modes_answer_as_they_should(services: Services, mode: Mode) -> None:
    setup.put_campaign(services, campaign(mode=mode, baseline=Baseline("womens", "email", "12:00")))
    decision = ask(services)
    if mode == "paused":
        assert decision.status == "withheld"
        assert decision.reasons[0].kind == "paused"
        return
    assert (decision.variant_id, decision.channel) == ("womens", "email")
    assert (decision.snapshot.shadow is not None) == (mode == "shadow")


@pytest.mark.parametrize("mode", ["shadow", "baseline_only"])
def test_a_campaign_without_a_baseline_sends_nothing_where_the_baseline_answers(
    services: Services, spring: Campaign, mode: Mode
) -> None:
    setup.set_mode(services, WORKSPACE, mode)
    decision = ask(services)
    assert (decision.status, decision.action, decision.propensity) == ("withheld", None, 1.0)
    assert (decision.reasons[0].rule_id, decision.reasons[0].kind) == ("mode", "no_baseline")
    assert (decision.snapshot.shadow is not None) == (mode == "shadow")
    with services.store.read() as reader:
        replayer = Replayer(reader, services.salt)
        assert (replayer.draw(decision), replayer.vector(decision).sum()) == (None, 0.0)


def test_a_decision_of_before_that_was_made_for_want_of_a_baseline_still_replays(
    services: Services, spring: Campaign
) -> None:
    """Its first eligible action was taken, of the policy's own space."""
    made = replace(ask(services), mode="baseline_only", action=0, propensity=1.0)
    with services.store.read() as reader:
        replayer = Replayer(reader, services.salt)
        assert (replayer.draw(made), replayer.vector(made)[0]) == (0, 1.0)


def test_the_stricter_of_workspace_and_campaign_mode_wins(services: Services, spring: Campaign) -> None:
    setup.set_mode(services, WORKSPACE, "paused")
    assert ask(services).status == "withheld"
    setup.set_mode(services, WORKSPACE, "live")
    assert ask(services).status in ("reserved", "no_send")


@pytest.mark.parametrize(
    "made", [{"groups": GroupShares(baseline=1.0)}, {"mode": "shadow"}, {"mode": "baseline_only"}], ids=str
)
@pytest.mark.parametrize("asked", [{"variants": ("mens",)}, {"channels": ("push",)}], ids=str)
@pytest.mark.parametrize("override", [False, True])
def test_a_baseline_that_the_request_leaves_out_is_withheld_and_says_why(
    services: Services, made: dict[str, object], asked: dict[str, object], override: bool
) -> None:
    setup.put_campaign(services, campaign(baseline=Baseline("womens", "email", "12:00"), **made))
    decision = ask(services, "u1", override_rules=override, **asked)
    assert (decision.status, decision.action, decision.eligible_actions) == ("withheld", None, 0)
    reason = decision.reasons[0]
    assert (reason.rule_id, reason.kind, reason.masked) == ("baseline", "not_requested", decision.actions)
    assert reason.note.startswith("womens by email")
    with services.store.read() as reader:
        replayer = Replayer(reader, services.salt)
        assert (replayer.draw(decision), replayer.vector(decision).sum()) == (None, 0.0)


def test_a_baseline_that_the_request_names_is_sent(services: Services) -> None:
    setup.put_campaign(services, campaign(mode="baseline_only", baseline=Baseline("womens", "email", "12:00")))
    assert ask(services, variants=("womens",), channels=("email",)).status == "reserved"


def test_a_window_in_the_past_is_refused_and_one_that_began_is_clipped(services: Services, spring: Campaign) -> None:
    with pytest.raises(Invalid, match=r"window\.end"):
        ask(services, window=(START - timedelta(hours=2), START - timedelta(hours=1)))
    begun = ask(services, window=(START - timedelta(hours=2), START + timedelta(hours=1)))
    assert begun.snapshot.window_start == START


def test_an_unknown_restriction_names_what_is_allowed(services: Services, spring: Campaign) -> None:
    with pytest.raises(Invalid, match="mens, womens"):
        ask(services, variants=("kids",))


def test_inline_consent_is_stored_but_never_loosens_a_refusal(services: Services, spring: Campaign) -> None:
    patch = RecipientPatch(channels={"push": Consent(True)})
    services.decider.decide(WORKSPACE, DecisionRequest("spring", "u9", recipient=patch))
    with services.store.read() as reader:
        stored = reader.recipient(WORKSPACE, "u9")
    assert stored is not None
    assert stored.channels["push"].state
    setup.put_recipient(services, replace(stored, channels={"push": Consent(False)}))
    services.decider.decide(WORKSPACE, DecisionRequest("spring", "u9", recipient=patch))
    with services.store.read() as reader:
        refused = reader.recipient(WORKSPACE, "u9")
    assert refused is not None
    assert not refused.channels["push"].state


def test_what_is_told_inline_is_stored_and_takes_the_room_of_what_came_last_before_it(
    services: Services, spring: Campaign
) -> None:
    stored = Recipient(WORKSPACE, "u1")
    for i in range(3):
        values: dict[str, object] = {f"a{i}_{j}": j for j in range(99)}
        agreed = {f"c{i}_{j}": Consent(True) for j in range(30)}
        patch = RecipientPatch(attributes={**values, "lists": [i] * 10}, channels={**agreed, f"no{i}": Consent(False)})
        services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1", recipient=patch))
        with services.store.read() as reader:
            stored = reader.recipients(WORKSPACE, ["u1"])["u1"]
        assert patch.attributes.items() <= stored.attributes.items()
        assert patch.channels.items() <= stored.channels.items()
    names = [name.partition("_")[0] for name in stored.attributes]
    assert {name: names.count(name) for name in names} == {"a0": 90, "a2": 99, "lists": 1}  # the list counts as 11
    assert len(stored.channels) == 50
    assert [name for name, one in stored.channels.items() if not one.state] == ["no0", "no1", "no2"]
    services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1", recipient=RecipientPatch("Europe/Berlin")))
    with services.store.read() as reader:
        told = reader.recipients(WORKSPACE, ["u1"])["u1"]
    assert (told.attributes, told.channels) == (stored.attributes, stored.channels)


def test_no_refusal_that_is_told_inline_is_left_out(services: Services, spring: Campaign) -> None:
    for i in range(2):
        refused = {f"c{i}_{j}": Consent(False) for j in range(30)}
        services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1", recipient=RecipientPatch(channels=refused)))
    agreed = RecipientPatch(channels={"push": Consent(True)})
    services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1", recipient=agreed))
    with services.store.read() as reader:
        channels = reader.recipients(WORKSPACE, ["u1"])["u1"].channels
    assert [one.state for one in channels.values()] == [False] * 60


def test_overriding_rules_leaves_the_recipients_word_in_force(services: Services) -> None:
    setup.put_campaign(services, campaign(allow_no_send=False, channels=(Channel("email"), Channel("sms"))))
    cap(services, 0)
    assert ask(services).status == "withheld"
    overridden = ask(services, override_rules=True)
    assert (overridden.status, overridden.channel) == ("reserved", "email")
    assert overridden.snapshot.overridden_rules == ("cap", setup.DEFAULT_QUIET_HOURS)
    setup.put_recipient(services, Recipient(WORKSPACE, "u1", suppressed=(Suppression("email"),)))
    assert ask(services, override_rules=True).status == "withheld"


def test_a_gap_keeps_messages_apart_on_both_sides(services: Services) -> None:
    setup.put_campaign(services, campaign(allow_no_send=False, spread_within_slot=False))
    setup.put_rule(services, Rule(WORKSPACE, "gap", "gap", Cap(1, rolling_hours=5.0)))
    noon = (START + timedelta(hours=12), START + timedelta(hours=13))
    assert ask(services, window=noon).send_at == noon[0]
    got = [ask(services) for _ in range(10)]
    sent = sorted(d.send_at for d in [*got, ask(services, window=noon)] if d.send_at is not None)
    assert all(later - earlier >= timedelta(hours=5) for earlier, later in pairwise([*sent]))
    assert all(abs(t - noon[0]) >= timedelta(hours=5) for t in sent)
    assert {r.kind for d in got for r in d.reasons} >= {"gap"}


def test_rules_bind_only_what_they_apply_to(services: Services) -> None:
    setup.put_campaign(services, campaign(allow_no_send=False))
    only_push = Selector(channels=("push",))
    rule = Rule(WORKSPACE, "cap", "cap", Cap(0, rolling_hours=24.0), applies_to=only_push, counts=only_push)
    setup.put_rule(services, rule)
    assert ask(services).channel == "email"


def test_every_decision_replays_to_its_propensity_and_its_draw(services: Services, clock: FakeClock) -> None:
    setup.put_campaign(
        services,
        campaign(groups=GroupShares(0.2, 0.2, 0.2), baseline=Baseline("mens", "email", "15:00"), slot_minutes=30),
    )
    cap(services, 3)
    zones = ("Europe/Berlin", "Asia/Kathmandu", "America/New_York")
    for i in range(60):
        patch = RecipientPatch(timezone=zones[i % 3], channels={"push": Consent(i % 2 == 0)})
        services.decider.decide(WORKSPACE, DecisionRequest("spring", f"u{i % 15}", recipient=patch))
        clock.forward(minutes=7)
    with services.store.read() as reader:
        replayer = Replayer(reader, services.salt)
        for decision in reader.decisions(WORKSPACE, limit=100).items:
            assert replayer.draw(decision) == decision.action
            if decision.action is not None:
                assert replayer.vector(decision)[decision.action] == pytest.approx(decision.propensity, abs=1e-9)


def around_the_baseline(services: Services, clock: FakeClock) -> Decision:
    """By a cold start at an hour at which text messages are closed, so that no single move from it leads to one."""
    clock.now = START.replace(hour=0)
    channels = (Channel("email"), Channel("sms"))
    baseline = Baseline("mens", "email", "07:30")
    setup.put_campaign(services, campaign(channels=channels, cold_start="around_baseline", baseline=baseline))
    setup.put_recipient(services, Recipient(WORKSPACE, "u1", timezone="UTC", channels={"sms": Consent(True)}))
    return ask(services)


def test_a_cold_start_around_the_baseline_tries_every_channel_variant_and_daypart(
    services: Services, clock: FakeClock
) -> None:
    decision = around_the_baseline(services, clock)
    with services.store.read() as reader:
        replayer = Replayer(reader, services.salt)
        vector = replayer.vector(decision)
        assert (replayer.draw(decision), vector[decision.action or 0]) == (decision.action, decision.propensity)
    cube = vector[:-1].reshape(2, 24, 2)
    assert vector.max() > 0.95
    for masses in (cube.sum(axis=(1, 2)), cube.sum(axis=(0, 1)), cube.reshape(2, 4, 6, 2).sum(axis=(0, 2, 3))):
        assert masses.min() >= 0.001 - 1e-12, "a twentieth of the exploration rate"


def test_a_cold_start_of_before_it_kept_the_floor_still_replays(services: Services, clock: FakeClock) -> None:
    decision = around_the_baseline(services, clock)
    of_before = replace(decision, snapshot=replace(decision.snapshot, floored=False))
    with services.store.read() as reader:
        replayer = Replayer(reader, services.salt)
        both = list(vectors(replayer, [of_before, decision]))
        compared = [
            vector_of(LivePolicy.cold(COLD_POLICY), situation_of(d, made), plan_of(d, made))
            for d in (of_before, decision)
            for made in (replayer.campaign(d),)
        ]
    assert [one[:-1].reshape(-1, 2)[:, 1].sum() > 0 for one in both] == [False, True]
    assert both[0].max() == pytest.approx(0.98)
    assert [one.tolist() for one in compared] == [one.tolist() for one in both], "as a canary's watch compares them"
