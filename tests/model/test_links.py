"""What comes after a click is learned beside it: who buys has mostly clicked before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optimizer.model.artifact import pack, unpack
from optimizer.model.examples import Examples
from optimizer.model.heads import Heads
from optimizer.model.inference import RewardModel
from optimizer.model.layout import Action
from optimizer.model.training.evaluate import log_likelihood
from optimizer.model.training.links import later
from optimizer.model.training.train import anchor, follow, refresh, train
from tests.model.conftest import Maker
from tests.model.test_anchor import CHANGED, clicks
from tests.model.test_settled import told


def bought(examples: Examples, seed: int, after: float = 0.2, anyway: float = 0.01) -> Examples:
    """With purchases: of who clicked, and now and then without."""
    clicked = np.nan_to_num(examples.outcome["clicked"])
    drawn = np.random.default_rng([seed, 2]).random(len(examples)) < anyway + after * clicked
    outcome = {**examples.outcome, "converted": drawn.astype(np.float64)}
    return replace(examples, outcome=outcome, value={"converted": np.where(drawn, 30.0, np.nan)})


def known(blob: bytes, held: Examples, name: str = "converted") -> float:
    """Mean log-likelihood of what came of messages that the model has not seen."""
    return float(np.nanmean(log_likelihood(blob, held)[name][held.sent]))


def shares(blob: bytes) -> dict[str, float]:
    """What a stored model takes for purchases of what it knows of earlier outcomes."""
    return dict(RewardModel.load(blob).message.links.get("converted", {}))


def fitted(examples: Examples) -> bytes:
    """A model of these rows."""
    return train(examples, attributes=(), seed=1, network=False, calibrated=False).blob


def test_what_comes_after_a_click_is_told_by_clicks(make_examples: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Better in each of five audiences than by purchases alone, and clicks are predicted as before."""
    for seed in range(500, 550, 10):
        few = bought(clicks(make_examples(3_000, seed), seed, swapped=False), seed)
        held = bought(clicks(make_examples(20_000, seed + 1), seed + 1, swapped=False), seed + 1)
        linked = fitted(few)
        with monkeypatch.context() as patch:
            patch.setattr("optimizer.model.training.lastlayer.later", lambda _: ())
            alone = fitted(few)
        assert shares(linked)["clicked"] > 0.2, seed
        assert shares(alone) == {}
        assert known(linked, held) > known(alone, held) + 0.0005, seed
        assert known(linked, held, "clicked") == pytest.approx(known(alone, held, "clicked"), abs=1e-9)


def test_a_click_that_nothing_foretells_foretells_no_purchase(make_examples: Maker) -> None:
    """Seven of ten who click buy, and clicks are coins. What a model of 600 rows says of the very clicks that it has
    learned from goes with the purchases that came after them; that must not be taken for a share."""
    found = []
    for seed in range(6):
        rows = make_examples(600, seed)
        coins = np.random.default_rng([seed, 3]).random(600) < 0.3
        tossed = replace(rows, outcome={"clicked": np.where(rows.sent, coins.astype(np.float64), np.nan)}, value={})
        found.append(shares(fitted(bought(tossed, seed, after=0.7)))["clicked"])
    assert abs(float(np.mean(found))) < 0.5, found


def test_what_is_rare_and_goes_its_own_way_is_learned(make_examples: Maker) -> None:
    """Who clicks never buys, and half of the others do: clicks mislead, and enough rows tell."""
    rows = clicks(make_examples(12_000, 7), 7, swapped=False)
    held = clicks(make_examples(8_000, 8), 8, swapped=False)
    few, many = (bought(one, 7, after=-0.5, anyway=0.5) for one in (rows.take(np.arange(600)), rows))
    held = bought(held, 8, after=-0.5, anyway=0.5)
    assert shares(fitted(many))["clicked"] < 0.0
    assert known(fitted(many), held) > known(fitted(few), held)


def test_harm_and_custom_outcomes_come_later_too() -> None:
    assert later(("booked", "clicked", "converted", "opened", "unsubscribed")) == (
        "booked",
        "converted",
        "unsubscribed",
    )
    assert later(("converted", "unsubscribed")) == (), "nothing comes first"


def test_a_refresh_goes_on_with_the_shares(make_examples: Maker) -> None:
    log = bought(clicks(make_examples(6_000, 11), 11, swapped=False), 11)
    held = bought(clicks(make_examples(6_000, 12), 12, swapped=False), 12)
    old = fitted(log.take(np.arange(3_000)))
    first = refresh(old, log.take(np.arange(5_000)), settled=4_000)
    at_once, followed = refresh(old, log), follow(first.blob, told(first), log.take(np.arange(4_000, 6_000)))
    assert shares(old) == shares(first.blob) == shares(at_once.blob) == shares(followed.blob) != {}
    assert known(at_once.blob, held) > known(old, held)
    assert known(followed.blob, held) == pytest.approx(known(at_once.blob, held), abs=2e-4)


def test_a_refresh_without_clicks_goes_on_by_purchases_alone(make_examples: Maker) -> None:
    """A campaign may stop speaking of clicks."""
    log = bought(clicks(make_examples(2_000, 13), 13, swapped=False), 13)
    silent = replace(log, outcome={"converted": log.outcome["converted"]})
    again = refresh(fitted(log), silent).blob
    assert shares(again) == {}
    assert np.isfinite(known(again, silent))


def test_after_a_change_purchases_follow_the_new_clicks(make_examples: Maker) -> None:
    """Over four audiences an anchored model foresees purchases better than one that has no shares."""
    found: dict[str, float] = {"linked": 0.0, "alone": 0.0}
    for seed in (640, 650, 660, 670):
        before = fitted(bought(clicks(make_examples(6_000, seed), seed, swapped=False), seed))
        since = bought(clicks(make_examples(1_500, seed + 1), seed + 1, swapped=True), seed + 1)
        held = bought(clicks(make_examples(20_000, seed + 2), seed + 2, swapped=True), seed + 2)
        graph, arrays, meta = unpack(before)
        message = {key: value for key, value in meta["message"].items() if key != "links"}
        unlinked = pack(graph, arrays, {**meta, "message": message})
        assert shares(unlinked) == {}, "as stored by an earlier release"
        linked = anchor(before, since, "spring", CHANGED).blob
        found["linked"] += known(linked, held) / 4
        found["alone"] += known(anchor(unlinked, since, "spring", CHANGED).blob, held) / 4
    more = refresh(linked, since).blob
    assert shares(more) == shares(linked) == shares(before)
    assert known(more, held) == pytest.approx(known(linked, held), abs=2e-3)
    assert found["linked"] > found["alone"] + 0.0005, found


def test_what_is_in_doubt_of_clicks_is_in_doubt_of_purchases(make_examples: Maker) -> None:
    """A variant that training has not seen draws for purchases what it draws for clicks, times the share, and more."""
    log = bought(clicks(make_examples(3_000, 21), 21, swapped=False), 21)
    heads: Heads = RewardModel.load(fitted(log)).message
    of = heads.links["converted"]
    share = of["clicked"]
    block = next(block for block in heads.layout.blocks if block.name == "variant*one")
    clicked, bought_too = (heads.outcomes.index(name) for name in ("clicked", "converted"))
    own = heads._prior_draws(bought_too, block, "never seen", 1)
    drawn = heads._unseen(bought_too, block, "never seen", 1)
    assert np.allclose(drawn - own, share * heads._prior_draws(clicked, block, "never seen", 1))
    new, both = Action("spring", "never seen", "email"), np.array([clicked, bought_too])
    shared = heads.deviations(new, both) - replace(heads, links={}).deviations(new, both)
    assert np.allclose(shared[0], 0.0)
    unseen = [block for block in heads.layout.blocks if block.segment == "one" and block.unit in ("variant", "pair")]
    expected = sum(
        one * heads._prior_draws(heads.outcomes.index(name), block, new.key(block.unit) or "", 1)
        for name, one in of.items()
        for block in unseen
    )
    assert np.allclose(shared[1][:, heads.layout.offsets["one"]], expected)
    bank = heads.bank[[clicked, bought_too]][:, :, block.start : block.start + block.size]
    assert np.corrcoef(bank[0].ravel(), bank[1].ravel())[0, 1] > 0.5
