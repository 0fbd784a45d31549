"""A policy from a file: three ways of saying it, and every way of saying it wrong is refused with its line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow
import pytest
from pyarrow import parquet

from optimizer.errors import Invalid
from optimizer.service.policyfile import read_policy
from storage.log import Decision
from tests.service.test_stakes import row

DECISION = replace(row(0.0).decision, actions=4, eligible=np.packbits([1, 0, 1, 1]).tobytes(), action=2)


def ndjson(tmp_path: Path, *rows: Mapping[str, Any]) -> Path:
    path = tmp_path / "policy.ndjson"
    path.write_bytes(b"\n".join(orjson.dumps(one) for one in rows))
    return path


def vector(tmp_path: Path, probability: Any, decision: Decision = DECISION) -> list[float] | None:
    told = read_policy(ndjson(tmp_path, {"decision_id": "dec_1", "probability": probability}))
    found = told.given["dec_1"].vector(decision)
    return None if found is None else found.tolist()


class TestForms:
    def test_a_list_over_the_action_space(self, tmp_path: Path) -> None:
        assert vector(tmp_path, [0.5, 0.0, 0.25, 0.25]) == [0.5, 0.0, 0.25, 0.25]

    def test_an_object_by_action_index(self, tmp_path: Path) -> None:
        assert vector(tmp_path, {"0": 0.5, "3": 0.5}) == [0.5, 0.0, 0.0, 0.5]

    def test_the_logged_action_alone(self, tmp_path: Path) -> None:
        told = {"decision_id": "dec_1", "probability": 0.4, "predicted": 0.1, "value": 0.2, "anything": "else"}
        given = read_policy(ndjson(tmp_path, told)).given["dec_1"]
        assert given.vector(DECISION) is None
        assert (given.chance(), given.predicted, given.value) == (0.4, 0.1, 0.2)

    def test_parquet(self, tmp_path: Path) -> None:
        path = tmp_path / "policy.parquet"
        columns = {"decision_id": ["a", "b"], "probability": [[1.0, 0.0, 0.0, 0.0], None]}
        parquet.write_table(pyarrow.table(columns), path)
        found = read_policy(path)
        assert set(found.given) == {"a"}
        assert found.nulls == 1, "null says nothing, and is counted"
        texts = tmp_path / "texts.parquet"
        parquet.write_table(pyarrow.table({"decision_id": ["a"], "probability": ['{"2": 1.0}']}), texts)
        got = read_policy(texts).given["a"].vector(DECISION)
        assert got is not None
        assert got.tolist() == [0.0, 0.0, 1.0, 0.0]


class TestRefused:
    @pytest.mark.parametrize(
        ("probability", "what"),
        [
            ([0.5, 0.5], "has 2 entries, the action space 4"),
            ([0.5, 0.25, 0.25, 0.0], "not eligible"),
            ([0.5, 0.0, 0.25, 0.2], "sums to 0.95"),
            ([1.5, 0.0, -0.5, 0.0], "negative"),
            ([0.5, 0.0, 0.5, "x"], "finite number"),
            ({"9": 1.0}, "not in 0"),
            ({"two": 1.0}, "no action index"),
            ({"0": 0.5, "2": 0.5, "00": 0.5}, "'00' is no action index: it must be written 0"),
        ],
    )
    def test_what_is_no_distribution(self, tmp_path: Path, probability: Any, what: str) -> None:
        with pytest.raises(Invalid, match=what) as caught:
            vector(tmp_path, probability)
        assert "line 1" in caught.value.detail

    @pytest.mark.parametrize(
        ("rows", "what"),
        [
            ([{"probability": [1.0]}], "decision_id: line 1: missing"),
            ([{"decision_id": "a"}], "probability: line 1: missing"),
            ([{"decision_id": "a", "probability": True}], "must be a list"),
            ([{"decision_id": "a", "probability": "{"}], "not JSON"),
            ([{"decision_id": "a", "probability": 0.5}, {"decision_id": "a", "probability": 0.5}], "line 1 already"),
            ([{"decision_id": "a", "probability": 0.5, "value": "high"}], "finite number"),
        ],
    )
    def test_rows_that_cannot_be_read(self, tmp_path: Path, rows: Sequence[Mapping[str, Any]], what: str) -> None:
        with pytest.raises(Invalid, match=what):
            read_policy(ndjson(tmp_path, *rows))

    def test_a_broken_line(self, tmp_path: Path) -> None:
        path = tmp_path / "policy.ndjson"
        path.write_text('{"decision_id": "a", "probability": 0.5}\n{nonsense\n')
        with pytest.raises(Invalid, match="line 2: not JSON"):
            read_policy(path)

    def test_a_chance_that_is_none(self, tmp_path: Path) -> None:
        given = read_policy(ndjson(tmp_path, {"decision_id": "a", "probability": 1.5})).given["a"]
        with pytest.raises(Invalid, match=r"1\.5"):
            given.chance()
