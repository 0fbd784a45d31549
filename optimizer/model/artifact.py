"""One file for a trained model: JSON meta, safetensors arrays and an ONNX graph under one SHA-256. Never pickle.

Layout, little endian: magic (8 bytes) | version u32 | three lengths u64 (meta, arrays, graph) | SHA-256 of everything
before and after it (32 bytes) | meta | arrays | graph.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from optimizer.errors import BadArtifact
from storage.records import JsonObject

Arrays = dict[str, NDArray[Any]]

_MAGIC = b"SNDTIDE\x01"
_VERSION = 1
_HEAD = struct.Struct("<8sI3Q")
_DIGEST = 32
_START = _HEAD.size + _DIGEST


def pack(onnx: bytes, arrays: Mapping[str, NDArray[Any]], meta: JsonObject) -> bytes:
    """Packs a model into one blob. The same input gives the same bytes."""
    parts = (
        orjson.dumps(dict(meta), option=orjson.OPT_SORT_KEYS),
        save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}),
        onnx,
    )
    head = _HEAD.pack(_MAGIC, _VERSION, *(len(part) for part in parts))
    body = b"".join(parts)
    return head + sha256(head + body).digest() + body


def unpack(blob: bytes) -> tuple[bytes, Arrays, JsonObject]:
    """The graph, the arrays and the meta of a blob.

    Raises:
        BadArtifact: not one of ours, another version, cut short, or any byte changed.
    """
    if len(blob) < _START:
        raise BadArtifact(f"artifact of {len(blob)} bytes is shorter than its header ({_START} bytes)")
    magic, version, *lengths = _HEAD.unpack_from(blob)
    if magic != _MAGIC:
        raise BadArtifact("artifact does not begin with Sendtide's magic bytes")
    if version != _VERSION:
        raise BadArtifact(f"artifact has format version {version}, this release reads {_VERSION}")
    if sum(lengths) != len(blob) - _START:
        raise BadArtifact(f"artifact holds {len(blob) - _START} bytes, its header says {sum(lengths)}")
    digest = sha256(blob[: _HEAD.size] + blob[_START:]).digest()
    if not compare_digest(digest, blob[_HEAD.size : _START]):
        raise BadArtifact("artifact fails its checksum (SHA-256)")
    split = (_START, _START + lengths[0], _START + lengths[0] + lengths[1], len(blob))
    try:
        meta = orjson.loads(blob[split[0] : split[1]])
        arrays: Arrays = dict(load(blob[split[1] : split[2]]))
    # KeyError: a type of numbers that NumPy lacks (bfloat16, eight bits).
    except (orjson.JSONDecodeError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BadArtifact(f"artifact can't be read: {error!r}") from error
    if not isinstance(meta, dict):
        raise BadArtifact(f"artifact's meta is of type {type(meta).__name__}, not an object")
    return blob[split[2] : split[3]], arrays, meta
