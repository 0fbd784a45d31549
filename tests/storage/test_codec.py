"""Encoding: every value comes back exactly, and every word has a code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import codec
from storage.cursors import decode_cursor, encode_cursor
from storage.decision_codec import pack_detail, unpack_detail
from storage.log import Group, Reason, Status
from storage.records import Consent, Mode, Recipient, Suppression
from storage.rules import (
    Adapt,
    Blackout,
    Budget,
    Cap,
    Capacity,
    Fatigue,
    QuietHours,
    RiskLimit,
    Rule,
    RuleKind,
    RuleParameters,
    Selector,
    WarmUpStep,
)
from tests.storage.builders import NOON, make_campaign, make_decision, make_policy, make_recipient

text = st.text(st.characters(codec="utf-8"))
times = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants naive bounds
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(text, json_values, max_size=5)


@given(times)
def test_times_are_exact_to_the_microsecond(moment: datetime) -> None:
    assert codec.from_micros(codec.to_micros(moment)) == moment


@given(st.integers(-(10**15), 10**15))
def test_every_microsecond_is_a_time(micros: int) -> None:
    assert codec.to_micros(codec.from_micros(micros)) == micros


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(TypeError):
        codec.to_micros(datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test


@pytest.mark.parametrize(
    ("codes", "words"),
    [(codec.STATUS_CODES, Status), (codec.GROUP_CODES, Group), (codec.MODE_CODES, Mode)],
    ids=["status", "group", "mode"],
)
def test_every_word_has_a_code_of_its_own(codes: Mapping[str, int], words: object) -> None:
    assert set(codes) == set(get_args(words))
    assert len(set(codes.values())) == len(codes)


def test_codes_that_are_on_disk_stay() -> None:
    assert list(codec.STATUS_CODES.items()) == [
        ("reserved", 0),
        ("claimed", 1),
        ("sent", 2),
        ("assumed_sent", 3),
        ("no_send", 4),
        ("withheld", 5),
        ("released", 6),
        ("revoked", 7),
        ("displaced", 8),
        ("expired", 9),
    ]
    assert codec.GROUP_CODES == {"treated": 0, "random": 1, "baseline": 2, "holdout": 3}
    assert codec.MODE_CODES == {"live": 0, "shadow": 1, "baseline_only": 2, "paused": 3}


@settings(max_examples=40)
@given(context=json_objects, effects=json_objects, metadata=json_objects, start=times, attempt=st.integers(0, 2**31))
def test_a_decisions_detail_comes_back(
    context: dict[str, object], effects: dict[str, object], metadata: dict[str, object], start: datetime, attempt: int
) -> None:
    snapshot = replace(make_decision().snapshot, context=context, effects=effects, window_start=start, attempt=attempt)
    reasons = (Reason("r", "cap", 1, start), Reason("\0", "consent", 2))
    assert unpack_detail(pack_detail(snapshot, reasons, metadata)) == (snapshot, reasons, metadata)


@settings(max_examples=40)
@given(
    cost=st.integers(0, 10**15),
    unanswered=st.none() | st.integers(0, 99),
    risks=st.dictionaries(text, st.lists(st.none() | st.floats(0, 1), max_size=3).map(tuple), max_size=3),
    channels=st.none() | st.lists(text, min_size=1, max_size=3).map(tuple),
    displaced=st.lists(text, max_size=3).map(tuple),
    note=text,
    dry_run=st.booleans(),
)
def test_what_rules_did_to_a_decision_comes_back(
    cost: int,
    unanswered: int | None,
    risks: dict[str, tuple[float | None, ...]],
    channels: tuple[str, ...] | None,
    displaced: tuple[str, ...],
    note: str,
    dry_run: bool,
) -> None:
    snapshot = replace(
        make_decision().snapshot,
        cost=cost,
        unanswered=unanswered,
        limits=(RiskLimit("tired", "unsubscribed", 0.002, channels),),
        risks=risks,
        displaced=displaced,
    )
    reasons = (Reason("r", "cap", 1), Reason("s", "blackout", 0, NOON, dry_run, note), Reason("t", "gap", 2, note=note))
    assert unpack_detail(pack_detail(snapshot, reasons, {})) == (snapshot, reasons, {})


def test_a_decisions_detail_of_before_the_rules_still_reads() -> None:
    old = (
        b'{"w":[1773144000123456,1773230400123456],"v":["mens","womens"],"c":["email","sms"],"z":"Europe/Berlin",'
        b'"x":{"country":"DE","age":33},"o":["weekly"],"r":[["weekly","cap",12,null]],"m":{"order":"7"}}'
    )
    snapshot = replace(make_decision().snapshot, overridden_rules=("weekly",))
    assert unpack_detail(old) == (snapshot, (Reason("weekly", "cap", 12),), {"order": "7"})


RULES: dict[RuleKind, tuple[RuleParameters, ...]] = {
    "cap": (
        Cap(3, rolling_hours=168.0),
        Cap(0, calendar="week", week_start="sun"),
        Cap(3, calendar="day", adapt=Adapt(5, 1)),
    ),
    "gap": (Cap(1, rolling_hours=0.25),),
    "quiet_hours": (QuietHours("21:00", "08:00"), QuietHours("00:00", "24:00", ("sat", "sun"))),
    "blackout": (Blackout(("2026-12-24", "2026-12-31")), Blackout((), country_holidays=True, default_country="DE")),
    "capacity": (Capacity(500, 60), Capacity(9, 1440, (WarmUpStep(1, 2), WarmUpStep(4, 5)), "2026-03-01")),
    "budget": (Budget(12_500_000, "day"), Budget(0, "week", "Asia/Kolkata", "sun"), Budget(1, "month")),
    "fatigue": (Fatigue("unsubscribed", 0.002),),
}


def test_every_kind_of_rule_has_parameters_here() -> None:
    assert set(RULES) == set(get_args(RuleKind))


@pytest.mark.parametrize(("kind", "parameters"), [(kind, one) for kind in RULES for one in RULES[kind]])
def test_a_rule_comes_back(kind: RuleKind, parameters: RuleParameters) -> None:
    plain = Rule("w", "r", kind, parameters, version=7)
    scope = Selector(("email",), ("sms",), ("marketing",), ("transactional",), ("spring",), ("summer",))
    full = Rule("w", "r", kind, parameters, scope, scope, False, True, True, 8, NOON)
    for rule in (plain, full):
        assert codec.unpack_rule("w", "r", rule.version, codec.pack_rule(rule)) == rule


def test_a_rule_of_before_the_other_kinds_still_reads() -> None:
    old = (
        b'{"kind":"cap","parameters":{"limit":3,"rolling_hours":168.0,"calendar":null,"week_start":"mon"},'
        b'"counts":{"channels":["email"]},"dry_run":true}'
    )
    rule = Rule("w", "r", "cap", Cap(3, 168.0), counts=Selector(channels=("email",)), dry_run=True)
    assert codec.unpack_rule("w", "r", 1, old) == rule


@given(attributes=json_objects, zone=st.none() | text, consents=st.dictionaries(text, st.booleans()), moment=times)
def test_a_recipient_comes_back(
    attributes: dict[str, object], zone: str | None, consents: dict[str, bool], moment: datetime
) -> None:
    recipient = Recipient(
        "w",
        "u",
        4,
        zone,
        attributes,
        {channel: Consent(state, "app" if state else None, moment) for channel, state in consents.items()},
        (Suppression(at=moment), Suppression("sms", "news", "import")),
        moment,
    )
    assert codec.unpack_recipient("w", "u", 4, codec.pack_recipient(recipient)) == recipient


@given(json_objects)
def test_an_object_comes_back(value: dict[str, object]) -> None:
    assert codec.unpack_object(codec.pack_object(value)) == value


def test_any_mapping_may_stand_for_an_object() -> None:
    frozen = MappingProxyType({"a": MappingProxyType({"b": 1})})
    assert codec.unpack_object(codec.pack_object(frozen)) == {"a": {"b": 1}}
    recipient = make_recipient(attributes=frozen)
    assert codec.unpack_recipient("w1", "u1", 1, codec.pack_recipient(recipient)).attributes == {"a": {"b": 1}}


def test_what_is_not_json_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="complex"):
        codec.pack_object({"a": 1j})


def test_whole_documents_come_back() -> None:
    campaign, policy = make_campaign(), make_policy()
    assert codec.CAMPAIGN.unpack(codec.CAMPAIGN.pack(campaign)) == campaign
    assert codec.POLICY.unpack(codec.POLICY.pack(policy)) == policy


def test_a_campaign_of_before_methods_of_exploration_still_reads() -> None:
    campaign = replace(make_campaign(), exploration_rate=0.1)
    fields = codec.unpack_object(codec.CAMPAIGN.pack(campaign))
    old = {k: v for k, v in fields.items() if k not in ("exploration_method", "exploration_parameter")}
    read = codec.CAMPAIGN.unpack(codec.encode(old))
    assert read == campaign
    assert (read.exploration_method, read.exploration_parameter) == ("posterior_bank", None)


def test_what_is_at_its_default_takes_no_room() -> None:
    bare = codec.pack_recipient(Recipient("w", "u", 1))
    assert bare == b"{}"
    plain = replace(make_decision().snapshot, context={})
    assert len(pack_detail(plain, (), {})) < 120


@given(st.integers(-(2**63), 2**63 - 1), text)
def test_a_cursor_comes_back_and_is_safe_in_a_url(number: int, name: str) -> None:
    cursor = encode_cursor("things", (number, name))
    assert all(c.isascii() and (c.isalnum() or c in "-_") for c in cursor)
    assert decode_cursor("things", cursor, (int, str)) == (number, name)
    for listing, kinds in (("others", (int, str)), ("things", (str, int)), ("things", (int,)), ("things", ())):
        with pytest.raises(ValueError, match="cursor"):
            decode_cursor(listing, cursor, kinds)
    with pytest.raises(ValueError, match="cursor"):
        decode_cursor("things", cursor + "=", (int, str))


@given(st.text())
def test_text_that_is_no_cursor_is_a_value_error(cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        decode_cursor("things", cursor, (int, int))


@pytest.mark.parametrize("key", [(2**63, 0), (0, -(2**63) - 1), (True, 0), (0.5, 0), (None, 0)])
def test_a_forged_cursor_is_a_value_error(key: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cursor"):
        decode_cursor("things", encode_cursor("things", key), (int, int))


def test_later_times_sort_later() -> None:
    moments = [NOON + timedelta(microseconds=n) for n in (-1, 0, 1)]
    assert [codec.to_micros(m) for m in moments] == sorted(codec.to_micros(m) for m in moments)
