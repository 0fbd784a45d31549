"""Control groups: stable, independent, in the stated order and shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.bandit.groups import assign
from storage.records import GroupShares

SALT = b"salt"
NAMES = ("holdout", "random", "baseline", "treated")


def groups(n: int, shares: GroupShares, campaign: str = "c", salt: bytes = SALT, workspace: str = "w") -> list[str]:
    return [assign(salt, workspace, campaign, f"u{i}", shares) for i in range(n)]


def test_shares_are_met() -> None:
    """Chi-squared over 40,000 recipients; at 25 the false alarm rate is below 2e-5 (3 degrees of freedom)."""
    shares = (0.05, 0.1, 0.15, 0.7)
    seen = groups(40_000, GroupShares(*shares[:3]))
    counts = np.array([seen.count(name) for name in NAMES])
    expected = 40_000 * np.array(shares)
    assert ((counts - expected) ** 2 / expected).sum() < 25


def test_groups_of_two_campaigns_workspaces_and_salts_are_independent() -> None:
    """P(equal) is .5 for independent halves; 20,000 draws stay within 5 s.e. but for 6e-7."""
    half = GroupShares(holdout=0.5)
    here = np.array(groups(20_000, half))
    for other in (
        groups(20_000, half, campaign="d"),
        groups(20_000, half, workspace="x"),
        groups(20_000, half, salt=b""),
    ):
        assert abs((here == np.array(other)).mean() - 0.5) < 5 * 0.5 / 20_000**0.5


def test_a_larger_share_takes_nobody_out_of_holdout() -> None:
    small, large = groups(5_000, GroupShares(holdout=0.05)), groups(5_000, GroupShares(holdout=0.1, random=0.3))
    assert all(b == "holdout" for a, b in zip(small, large, strict=True) if a == "holdout")


@given(st.text(max_size=8), st.text(max_size=8))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_whole_shares_decide_alone(campaign: str, recipient: str) -> None:
    for name in NAMES[:3]:
        assert assign(SALT, "w", campaign, recipient, GroupShares(**{name: 1.0})) == name
    assert assign(SALT, "w", campaign, recipient, GroupShares()) == "treated"


def test_the_border_between_two_names_matters() -> None:
    half = GroupShares(holdout=0.5)
    pairs = [(assign(SALT, "w", "a", f"b{i}", half), assign(SALT, "w", "ab", str(i), half)) for i in range(100)]
    assert any(a != b for a, b in pairs)


def test_the_hash_never_changes() -> None:
    # Written down once: a change of the hash would move people between groups of running experiments.
    quarters = GroupShares(1 / 4, 1 / 4, 1 / 4)
    assert "".join(g[0] for g in groups(24, quarters)) == "bhhrbbtrbbrtbbrrbrrbbhrt"


@pytest.mark.parametrize("shares", [GroupShares(-0.1), GroupShares(0.5, 0.5, 0.1), GroupShares(float("nan"))])
def test_impossible_shares_are_refused(shares: GroupShares) -> None:
    with pytest.raises(ValueError, match="group shares"):
        assign(SALT, "w", "c", "u", shares)


def test_shares_of_exactly_one_are_allowed() -> None:
    assert "treated" not in groups(2_000, GroupShares(0.7, 0.2, 0.1))
