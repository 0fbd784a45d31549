"""Which control group a recipient belongs to in a campaign: a stable salted hash, so that nobody changes groups."""

from __future__ import annotations

import hashlib

from storage.log import Group
from storage.records import GroupShares

_SCALE = 2.0**-53


def assign(salt: bytes, workspace_id: str, campaign_id: str, recipient_id: str, shares: GroupShares) -> Group:
    """The group of a recipient in a campaign.

    The hash gives a number u in [0, 1); the shares lie side by side in the order holdout, random, baseline, and the
    rest is treated. So the same inputs always give the same group, and groups of two campaigns are independent.

    Args:
        salt: secret of the installation, at most 64 bytes (blake2b's key).
        workspace_id: tenant of the campaign.
        campaign_id: the campaign.
        recipient_id: the person.
        shares: each in [0, 1], together at most 1.

    Raises:
        ValueError: a share is negative or their sum is above 1, or the salt is longer than 64 bytes.
    """
    holdout, random, baseline = shares.holdout, shares.random, shares.baseline
    # 1e-9: three decimal shares that make 1 may add up to 1 + 2e-16 in binary.
    if not (holdout >= 0 and random >= 0 and baseline >= 0 and holdout + random + baseline <= 1 + 1e-9):
        raise ValueError(f"group shares {shares} must each be at least 0 and together at most 1")
    u = _hash(salt, workspace_id, campaign_id, recipient_id)
    if u < holdout:
        return "holdout"
    if u < holdout + random:
        return "random"
    if u < holdout + random + baseline:
        return "baseline"
    return "treated"


def _hash(salt: bytes, *names: str) -> float:
    """53 bits of blake2b as a number in [0, 1). Names go in with their lengths, so ("a", "bc") is not ("ab", "c")."""
    framed = b"".join([len(one).to_bytes(4, "little") + one for one in [name.encode() for name in names]])
    digest = hashlib.blake2b(framed, digest_size=8, key=salt, person=b"sendtide.group").digest()
    return (int.from_bytes(digest, "little") >> 11) * _SCALE
