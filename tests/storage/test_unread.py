"""JSON objects that stay texts until somebody looks into them."""

from __future__ import annotations

import pickle
from dataclasses import replace

import msgspec

from storage.decision_codec import pack_detail, unpack_detail
from storage.log import Snapshot
from storage.unread import Unread
from tests.storage.builders import make_decision

TOLD: dict[str, object] = {"rhythm": {"sent": [[9, 2.5]]}, "other": None}


def test_it_is_the_object_that_its_text_says() -> None:
    found = Unread(msgspec.json.encode(TOLD))
    assert found == TOLD
    assert found == TOLD
    assert dict(found) == TOLD
    assert found.get("rhythm") == TOLD["rhythm"]
    assert "nobody" not in found
    assert (len(found), bool(found), repr(found)) == (2, True, repr(TOLD))
    assert pickle.loads(pickle.dumps(found)) == TOLD  # noqa: S301 - our own
    assert not Unread(b"{}")


def _snapshot(effects: dict[str, object]) -> Snapshot:
    return replace(make_decision().snapshot, effects=effects)


def test_effects_are_read_when_somebody_asks() -> None:
    read = unpack_detail(pack_detail(_snapshot(TOLD), (), {}))[0]
    assert isinstance(read.effects, Unread)
    assert read == _snapshot(TOLD)
    assert unpack_detail(pack_detail(_snapshot({}), (), {}))[0].effects == {}


def test_a_snapshot_that_was_read_is_written_as_it_was() -> None:
    document = pack_detail(_snapshot(TOLD), (), {})
    assert pack_detail(unpack_detail(document)[0], (), {}) == document
