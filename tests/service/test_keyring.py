"""Keys are looked up for many callers at once, and never remembered."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from optimizer.service import setup
from optimizer.service.wiring import Services
from tests.service.conftest import WORKSPACE


def test_callers_that_come_together_get_each_their_own_key(services: Services) -> None:
    made = [setup.create_key(services, WORKSPACE, f"key {n}", ["read"]) for n in range(3)]
    expected = {secret: key for key, secret in made} | {"st_guess": None}
    asked = list(expected) * 200
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(services.keys, asked)) == [expected[secret] for secret in asked]


def test_a_revoked_key_is_known_as_revoked_from_then_on(services: Services) -> None:
    key, secret = setup.create_key(services, WORKSPACE, "key", ["read"])
    before = services.keys(secret)
    setup.revoke_key(services, WORKSPACE, key.key_id)
    after = services.keys(secret)
    assert before == key
    assert after is not None
    assert after.revoked_at is not None
