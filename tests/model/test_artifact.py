"""Artifacts: what goes in comes out, and any damage is noticed."""

from __future__ import annotations

import ast
import struct
from hashlib import sha256
from pathlib import Path

import numpy as np
import orjson
import pytest

import optimizer.model
from optimizer.errors import BadArtifact
from optimizer.model.artifact import pack, unpack
from optimizer.model.inference import RewardModel
from optimizer.model.training.train import train
from tests.model.conftest import made_up

ARRAYS = {"w": np.arange(6.0).reshape(2, 3), "bank": np.ones((2, 2), dtype=np.float32)}
BLOB = pack(b"graph", ARRAYS, {"format": 1, "name": "é"})


def test_round_trip() -> None:
    graph, arrays, meta = unpack(BLOB)
    assert graph == b"graph"
    assert meta == {"format": 1, "name": "é"}
    assert arrays.keys() == ARRAYS.keys()
    assert all(
        np.array_equal(arrays[name], ARRAYS[name]) and arrays[name].dtype == ARRAYS[name].dtype for name in arrays
    )


def test_the_same_parts_give_the_same_bytes() -> None:
    assert pack(b"graph", dict(reversed(ARRAYS.items())), {"name": "é", "format": 1}) == BLOB


def test_every_flipped_byte_is_noticed() -> None:
    for position in range(len(BLOB)):
        damaged = bytearray(BLOB)
        damaged[position] ^= 0x40
        with pytest.raises(BadArtifact):
            unpack(bytes(damaged))


@pytest.mark.parametrize("size", [0, 1, 40, 67, 68, len(BLOB) - 1])
def test_every_cut_is_noticed(size: int) -> None:
    with pytest.raises(BadArtifact):
        unpack(BLOB[:size])
    with pytest.raises(BadArtifact):
        unpack(BLOB + b"x")


def rebuilt(blob: bytes, *, meta: bytes | None = None, arrays: bytes | None = None) -> bytes:
    """The blob with another meta, or with the arrays of another header and two bytes; its checksum goes with them."""
    graph, _, told = unpack(blob)
    head, raw = (b"{}", b"") if arrays is None else (arrays, b"\0\0")
    parts = (orjson.dumps(told) if meta is None else meta, struct.pack("<Q", len(head)) + head + raw, graph)
    start = struct.pack("<8sI3Q", b"SNDTIDE\x01", 1, *map(len, parts))
    return start + sha256(start + b"".join(parts)).digest() + b"".join(parts)


def test_a_whole_blob_with_the_wrong_content_is_a_bad_artifact() -> None:
    trained = train(made_up(60, 1), attributes=(), seed=1, network=False)
    graph, arrays, meta = unpack(trained.blob)
    RewardModel.load(pack(graph, arrays, meta))
    wrong = [
        pack(b"no graph", arrays, meta),
        pack(graph, {}, meta),
        pack(graph, arrays, {}),
        pack(graph, arrays, {**meta, "format": 99}),
        pack(graph, arrays | {"message.mean": arrays["message.mean"][:, :-1]}, meta),
        pack(graph, arrays, {**meta, "spec": {"columns": [], "dropped": []}}),
        pack(graph, arrays, {**meta, "message": {**meta["message"], "layout": {}}}),
        pack(graph, arrays, {**meta, "spec": "x"}),
        pack(
            graph,
            arrays,
            {**meta, "message": {**meta["message"], "layout": {**meta["message"]["layout"], "owner": []}}},
        ),
        *(
            pack(graph, arrays | {name: np.full_like(arrays[name], np.nan)}, meta)
            for name in (
                "message.mean",
                "message.bank",
                "message.doubt",
                "no_send.precision",
                "no_send.offset",
                "basis.mean",
            )
        ),
        *(rebuilt(pack(graph, {}, meta), meta=odd) for odd in (b"[]", b"null", b"3")),
        rebuilt(pack(graph, {}, meta), arrays=b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'),
    ]
    for blob in wrong:
        with pytest.raises(BadArtifact):
            RewardModel.load(blob)


def test_no_module_of_the_model_can_unpickle() -> None:
    for path in Path(optimizer.model.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "marshal", "joblib", "shelve"} & {name.split(".")[0] for name in names}, path
            if isinstance(node, ast.Attribute) and node.attr in ("load", "save") and isinstance(node.value, ast.Name):
                assert node.value.id not in ("torch", "np", "numpy"), path
