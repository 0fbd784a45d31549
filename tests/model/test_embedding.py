"""The graph's runtime does what it is asked, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx

from optimizer.model.embedding import TOGETHER, Embedder
from optimizer.model.features import fit_spec
from optimizer.model.training.export import export_graph
from storage.records import Attribute

_SCRIPT = """
import sys
import numpy as np
from optimizer.model.embedding import Embedder
from optimizer.model.features import fit_spec
from optimizer.model.training.export import export_graph
from storage.records import Attribute
contexts = [{"age": float(i)} for i in range(40)]
spec = fit_spec(contexts, (Attribute("w", "age", "number"),))
print(Embedder(spec, export_graph(spec, None)).bulk(contexts).shape[0])
"""


def test_the_runtime_leaves_nothing_in_the_home_folder_and_so_reports_to_nobody(tmp_path: Path) -> None:
    """Where it reports to its vendor, it first writes an id of the machine under the home folder."""
    told = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    told |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": "", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=told, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "40"
    assert not list(tmp_path.rglob("*"))


def test_a_graph_that_adds_nothing_gives_the_encoded_inputs_and_any_other_is_run() -> None:
    contexts = [{"age": float(i)} for i in range(40)]
    assert len(contexts) >= TOGETHER
    spec = fit_spec(contexts, (Attribute("w", "age", "number"),))
    copy = Embedder(spec, export_graph(spec, None))
    assert np.array_equal(copy.embed(contexts), copy.run(np.stack([spec.encode_row(one) for one in contexts])))
    assert np.array_equal(copy.embed(contexts[:3]), copy.embed(contexts)[:3])
    graph = onnx.load_from_string(export_graph(spec, None))
    graph.graph.node[0].op_type = "Neg"
    del graph.graph.node[0].attribute[:]
    turned = Embedder(spec, graph.SerializeToString())
    assert np.array_equal(turned.embed(contexts), -copy.embed(contexts))
