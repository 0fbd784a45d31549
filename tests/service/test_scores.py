"""Scores: chances with and without a message, for stored and unknown recipients; nothing is stored or reserved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.bandit.localtime import zone
from optimizer.errors import Conflict, Invalid, NotFound
from optimizer.model.artifact import pack, unpack
from optimizer.model.examples import Examples
from optimizer.model.history import Past, read
from optimizer.model.inference import RewardModel
from optimizer.model.moment import seen_at
from optimizer.model.training import calibrate
from optimizer.model.training.train import refresh, train
from optimizer.service import setup
from optimizer.service.erasing import erase
from optimizer.service.requests import RecipientPatch, ScoreRequest
from optimizer.service.scores import CHUNK, LEAST_UNSENT, Score, Scorer
from optimizer.service.wiring import Services
from storage.records import Campaign, Consent, JsonObject, Recipient, Suppression
from tests.service.conftest import WORKSPACE
from tests.service.test_past import happened
from tests.service.trained import publish_blob, publish_model, rows

PRO = RecipientPatch(attributes={"plan": "pro"})
FREE = RecipientPatch(attributes={"plan": "free"})


@pytest.fixture
def learned(services: Services, spring: Campaign) -> Services:
    publish_model(services, spring)
    return services


def scored(services: Services, *rows: ScoreRequest | Invalid, outcome: str = "converted") -> list[Score]:
    scorer = Scorer.of(services, WORKSPACE, "spring", outcome)
    answers = list(scorer.scores(rows))
    assert all(isinstance(answer, Score) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Score)]


def test_a_score_tells_the_chance_with_and_without_the_best_message(learned: Services) -> None:
    """Planted: .1 without a message; "pro" people .5 with mens, all others .2 with womens. A model of 2,000 rows misses
    none of them by more than .12 (its cells have 330 rows or more: a standard error of .028 at most)."""
    pro, free = scored(learned, ScoreRequest(recipient=PRO), ScoreRequest(recipient=FREE))
    assert (pro.variant_id, free.variant_id) == ("mens", "womens")
    assert pro.with_message == pytest.approx(0.5, abs=0.12)
    assert free.with_message == pytest.approx(0.2, abs=0.12)
    for one in (pro, free):
        assert one.without_message == pytest.approx(0.1, abs=0.12)
        assert one.uplift is not None
        assert one.uplift == pytest.approx((one.with_message or 0.0) - (one.without_message or 0.0))
        assert one.send_at is not None
        hours = (one.send_at - learned.clock()).total_seconds() / 3_600
        assert 0 <= hours < 24
    assert (pro.uplift or 0.0) > (free.uplift or 0.0)


def test_inline_goes_over_what_is_stored_and_is_not_kept(learned: Services) -> None:
    setup.put_recipient(learned, Recipient(WORKSPACE, "u1", attributes={"plan": "pro"}))
    stored, told, unknown = scored(
        learned,
        ScoreRequest("u1"),
        ScoreRequest("u1", recipient=FREE),
        ScoreRequest("nobody", context={"plan": "pro"}),
    )
    assert stored.with_message == unknown.with_message
    assert (stored.recipient_id, unknown.recipient_id) == ("u1", "nobody")
    assert (told.with_message or 1.0) < (stored.with_message or 0.0)
    with learned.store.read() as reader:
        kept = reader.recipients(WORKSPACE, ["u1", "nobody"])
        assert kept["u1"].attributes == {"plan": "pro"}
        assert "nobody" not in kept
        assert list(reader.feedback(WORKSPACE)) == []


def test_who_may_not_be_written_to_has_a_chance_without_a_message_only(learned: Services) -> None:
    silent = Recipient(WORKSPACE, "silent", attributes={"plan": "pro"}, suppressed=(Suppression(),))
    setup.put_recipient(learned, silent)
    pushed = RecipientPatch(attributes={"plan": "pro"}, channels={"email": Consent(False), "push": Consent(True)})
    one, other = scored(learned, ScoreRequest("silent"), ScoreRequest(recipient=pushed))
    assert (one.with_message, one.uplift, one.variant_id, one.send_at) == (None, None, None, None)
    assert one.without_message is not None
    assert 0 < one.without_message < 1
    assert other.channel == "push"


def test_an_outcome_that_needs_a_message_has_no_chance_without_one(learned: Services) -> None:
    (one,) = scored(learned, ScoreRequest(recipient=PRO), outcome="clicked")
    assert one.without_message == 0.0
    assert one.uplift == one.with_message


def test_a_score_knows_the_past_as_a_decision_does(learned: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    happened(learned, "view", 15, properties={"topic": "shoes"})
    seen: list[JsonObject] = []
    embed = RewardModel.embed

    def noted(model: RewardModel, contexts: Sequence[JsonObject]) -> NDArray[np.float32]:
        seen.extend(contexts)
        return embed(model, contexts)

    monkeypatch.setattr(RewardModel, "embed", noted)
    scored(learned, ScoreRequest("u1"), ScoreRequest("u2"), ScoreRequest(recipient=PRO))
    assert [read(context) for context in seen] == [[Past(15, "viewed", "shoes")], [], []]


@pytest.mark.parametrize("unsent", [0, LEAST_UNSENT - 1, LEAST_UNSENT])
def test_what_happens_without_a_message_is_told_once_enough_decisions_without_one_are_known(
    services: Services, spring: Campaign, unsent: int
) -> None:
    """Without them the model's word is the base rate of messages: no evidence, and no uplift."""
    publish_model(services, spring, n=800, unsent=unsent)
    scorer = Scorer.of(services, WORKSPACE, "spring", "converted")
    (one,) = scored(services, ScoreRequest(recipient=PRO))
    assert one.with_message is not None
    if unsent < LEAST_UNSENT:
        assert (one.without_message, one.uplift) == (None, None)
        assert f"at least 100 are needed, and the model of {scorer.policy_id} knows {unsent};" in (scorer.lacking or "")
    else:
        assert scorer.lacking is None
        assert one.uplift == pytest.approx(one.with_message - (one.without_message or 0.0))
    (clicked,) = scored(services, ScoreRequest(recipient=PRO), outcome="clicked")
    assert (clicked.without_message, clicked.uplift) == (0.0, clicked.with_message)


def test_a_chance_that_cannot_be_calibrated_is_not_told() -> None:
    assert LEAST_UNSENT == calibrate.LEAST_ROWS


def test_messages_that_change_nothing_show_no_uplift(services: Services, spring: Campaign) -> None:
    """The chance is .1 whatever is sent. The best of 144 posterior means lies above their mean by sampling alone; the
    chance that is told lies at least a third of that nearer to it, and the uplift's interval holds 0."""
    told, nearer = [], []
    for seed in range(4):
        data = rows(spring, 2_000, seed)
        bought = np.random.default_rng(seed).random(len(data)) < 0.1
        trained = train(
            replace(data, outcome={"converted": bought.astype(float)}), attributes=(), seed=seed, network=False
        )
        publish_blob(services, spring, trained.blob, trained.feature_hash, len(data))
        scorer = Scorer.of(services, WORKSPACE, "spring", "converted")
        (one,) = scored(services, ScoreRequest(recipient=FREE))
        chance = messages_of(scorer, {"plan": "free"})
        nearer.append((chance.max() - (one.with_message or 0.0)) / (chance.max() - chance.mean()))
        told.append(one)
    assert np.mean(nearer) > 1 / 3
    assert all((one.uplift_low or 0.0) <= 0.0 <= (one.uplift_high or 0.0) for one in told)


@pytest.mark.parametrize("people", [40, 1_000])
def test_many_decisions_of_few_people_are_no_evidence(services: Services, spring: Campaign, people: int) -> None:
    """Who buys does whatever is sent, and one order counts for each of a person's decisions; a third get nothing. Of
    forty people with fifty each none can be told what nothing does; of a thousand with two, that no message helps."""
    data = rows(spring, 2_000, 1)
    rng = np.random.default_rng(1)
    who = np.sort(np.arange(len(data)) % people)
    silent, buys = np.arange(people) % 3 == 0, rng.random(people) < 0.3
    variant = np.where(silent[who], -1, rng.integers(0, 2, len(data)))
    channel = np.where(silent[who], -1, 0)
    bought = {"converted": buys[who].astype(float)}
    data = replace(data, variant=variant, channel=channel, outcome=bought, cluster=who)
    trained = train(data, attributes=(), seed=1, network=False)
    publish_blob(services, spring, trained.blob, trained.feature_hash, len(data))
    scorer = Scorer.of(services, WORKSPACE, "spring", "converted")
    (one,) = scored(services, ScoreRequest(recipient=FREE))
    if people == 40:
        assert one.uplift is None
        assert "knows 700 of few recipients, who tell as much as 14 with one each" in (scorer.lacking or "")
    else:
        assert scorer.lacking is None
        assert scorer.model.design("converted", message=False) == pytest.approx(2.0, abs=0.1)
        assert (one.uplift_low or 0.0) <= 0.0 <= (one.uplift_high or 0.0)


def messages_of(scorer: Scorer, context: JsonObject) -> NDArray[np.float64]:
    """The chance with each message by the model's mean, as it is told."""
    space = scorer._space(zone("UTC"))
    (x,) = scorer.model.embed([seen_at(context, scorer.now)])
    chance = scorer.model.score(x, space, scorer.campaign, {}).outcome["converted"][:-1]
    return scorer.model.calibrated("converted", chance, message=True)


def at_hours(data: Examples, hours: Sequence[int]) -> Examples:
    """The rows at these local hours of their days, in turn."""
    return replace(data, local=data.local // 86_400 * 86_400 + 3_600 * np.resize(hours, len(data)))


@pytest.mark.parametrize(
    ("hours", "told"),
    [
        ((9, 11), {9, 11}),
        ((9,) * 60 + (11,) * 60 + (4,), {9, 11}),  # some ten messages at 4 o'clock are no trial
        (tuple(range(24)), set(range(24))),
    ],
)
def test_a_score_names_hours_alone_that_were_tried(
    services: Services, spring: Campaign, hours: tuple[int, ...], told: set[int]
) -> None:
    data = at_hours(rows(spring, 2_000, 1), hours)
    trained = train(data, attributes=(), seed=1, network=False)
    for blob in (trained.blob, refresh(trained.blob, data.take(np.arange(300))).blob):  # a refresh forgets none
        publish_blob(services, spring, blob, trained.feature_hash, len(data))
        scorer = Scorer.of(services, WORKSPACE, "spring", "converted")
        for name in ("UTC", "Asia/Tokyo"):  # local hours
            assert {int(hour) for hour in scorer._space(zone(name)).local % 86_400 // 3_600} == told
        (one,) = scored(services, ScoreRequest(recipient=FREE))
        assert one.send_at is not None
        assert one.send_at.hour in told


def test_where_few_hours_are_well_tried_those_with_half_as_many_as_the_most_are_told(
    services: Services, spring: Campaign
) -> None:
    data = at_hours(rows(spring, 90, 1), (8,) * 4 + (9,) * 4 + (17,))
    trained = train(data, attributes=(), seed=1, network=False)
    publish_blob(services, spring, trained.blob, trained.feature_hash, len(data))
    space = Scorer.of(services, WORKSPACE, "spring", "converted")._space(zone("UTC"))
    assert sorted((space.local % 86_400 // 3_600).tolist()) == [8, 9]


def test_a_model_that_knows_no_hours_names_any(services: Services, spring: Campaign) -> None:
    """Models of earlier versions; a refresh reads a part of the rows and can't tell."""
    data = at_hours(rows(spring, 500, 1), (9,))
    trained = train(data, attributes=(), seed=1, network=False)
    graph, arrays, meta = unpack(trained.blob)
    before = pack(graph, arrays, {name: told for name, told in meta.items() if name != "hours"})
    for blob in (before, refresh(before, data).blob):
        publish_blob(services, spring, blob, trained.feature_hash, len(data))
        assert Scorer.of(services, WORKSPACE, "spring", "converted")._space(zone("UTC")).slots == 24


def test_a_clear_effect_keeps_its_uplift(learned: Services) -> None:
    """Planted: "pro" people buy at .5 with mens and at .1 without a message."""
    (pro,) = scored(learned, ScoreRequest(recipient=PRO))
    assert pro.uplift == pytest.approx(0.4, abs=0.1)
    assert 0.0 < (pro.uplift_low or 0.0) < (pro.uplift or 0.0) < (pro.uplift_high or 0.0) < 1.0


def test_bad_rows_stay_in_their_place(learned: Services) -> None:
    bad = Invalid.field("recipients.1", "no")
    rows = [ScoreRequest(f"u{i}") if i % 7 else bad for i in range(CHUNK + 3)]
    answers = list(Scorer.of(learned, WORKSPACE, "spring", "converted").scores(rows))
    assert len(answers) == len(rows)
    for i, answer in enumerate(answers):
        assert answer is bad if i % 7 == 0 else isinstance(answer, Score) and answer.recipient_id == f"u{i}"


def test_no_model_no_head_no_campaign(services: Services, spring: Campaign) -> None:
    with pytest.raises(Conflict, match="no learned policy yet") as refused:
        Scorer.of(services, WORKSPACE, "spring", "converted")
    assert refused.value.code == "no_model"
    publish_model(services, spring, n=400)
    with pytest.raises(Invalid, match="allowed: clicked, converted"):
        Scorer.of(services, WORKSPACE, "spring", "applauded")
    with pytest.raises(NotFound):
        Scorer.of(services, WORKSPACE, "summer", "converted")
    setup.put_campaign(services, replace(spring, status="archived"))
    with pytest.raises(Invalid, match="archived"):
        Scorer.of(services, WORKSPACE, "spring", "converted")


def test_a_stored_zone_that_this_host_lacks_spoils_no_other_row(learned: Services) -> None:
    setup.put_recipient(learned, Recipient(WORKSPACE, "u2", timezone="America/Nowhere"))
    asked = [ScoreRequest(f"u{i}") for i in (1, 2, 3)]
    first, refused, last = Scorer.of(learned, WORKSPACE, "spring", "converted").scores(asked)
    assert isinstance(first, Score)
    assert isinstance(last, Score)
    assert isinstance(refused, Invalid)
    assert (refused.code, list(refused.errors)) == ("unknown_zone", ["recipient.timezone"])


def test_an_erased_person_is_not_ranked_until_somebody_takes_them_up_again(learned: Services) -> None:
    whom = Recipient(WORKSPACE, "u1", attributes={"plan": "pro"})
    opted_out = (Suppression("email", "marketing", "event"),)
    setup.put_recipient(learned, replace(whom, suppressed=opted_out))
    erase(learned, WORKSPACE, "u1")
    scorer = Scorer.of(learned, WORKSPACE, "spring", "converted")
    asked = [ScoreRequest("u1"), ScoreRequest("u1", recipient=PRO), ScoreRequest("u2"), ScoreRequest(recipient=PRO)]
    *refused, stranger, nameless = scorer.scores(asked)
    for one in refused:
        assert isinstance(one, Invalid)
        assert (one.code, list(one.errors)) == ("erased", ["recipient_id"])
    assert isinstance(stranger, Score)
    assert isinstance(nameless, Score)
    assert None not in (stranger.with_message, nameless.with_message)
    setup.put_recipient(learned, whom)
    (back,) = scored(learned, ScoreRequest("u1"))
    assert back.with_message == nameless.with_message
