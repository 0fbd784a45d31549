"""The files of metrics, where there is room and where there is none."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict

from optimizer.web.metric_files import MetricFile


def stored(path: Path) -> dict[str, float]:
    """What a scrape reads."""
    read = MmapedDict.read_all_values_from_file(path)  # type: ignore[no-untyped-call]  # it has no types
    return {key: value for key, value, _, _ in read}


@contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    """Files can't grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_prometheus_client_reads_what_is_written_and_a_process_goes_on_with_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "counter_1.db"
    names = [f"{'ä' * length}:{length}" for length in range(200)]  # longer than the page that is read first
    file = MetricFile(str(path))
    for number, name in enumerate(names):
        assert file.read_value(name) == (0.0, 0.0)
        file.write_value(name, float(number), 0.0)
    file.close()
    assert stored(path) == {name: float(number) for number, name in enumerate(names)}
    again = MetricFile(str(path))
    assert again.read_value(names[7]) == (7.0, 0.0)
    again.write_value(names[7], 8.0, 5.0)
    again.write_value("new", 1.0, 0.0)
    assert again.read_value(names[7]) == (8.0, 5.0)
    again.close()
    theirs = MmapedDict(str(path))  # type: ignore[no-untyped-call]
    assert theirs.read_value(names[7]) == (8.0, 5.0)  # type: ignore[no-untyped-call]
    assert theirs.read_value("new") == (1.0, 0.0)  # type: ignore[no-untyped-call]
    theirs.close()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("size", [0, 4, 8, 20, 100])
def test_what_found_no_room_is_told_once_and_is_there_after_the_next_count(
    size: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "counter_1.db"
    file = MetricFile(str(path))
    with no_room_beyond(size):
        for count in (1.0, 2.0):
            for name in ("first", "second", "third"):
                file.read_value(name)
                file.write_value(name, count, 0.0)
        if path.exists():
            assert set(stored(path)) < {"first", "second", "third"}
    assert len(caplog.records) <= 3
    assert "metrics can't be written; they wait until they can" in caplog.text
    for name in ("first", "second", "third"):
        file.write_value(name, 3.0, 0.0)
    assert stored(path) == {"first": 3.0, "second": 3.0, "third": 3.0}
    file.close()


_COUNTING = """
import sys
from pathlib import Path
from optimizer.web.metrics import Metrics
metrics = Metrics()
with open(sys.argv[1], "wb", buffering=0) as filler:
    for size in (4096, 1):
        try:
            while True:
                filler.write(bytes(size))
        except OSError:
            continue
for number in range(5000):
    metrics.observe("GET", f"/v1/route-{number}", 200, 0.1)
Path(sys.argv[1]).unlink()
for number in range(5000):
    metrics.observe("GET", f"/v1/route-{number}", 200, 0.1)
print(metrics.text(None).decode().count('status="200"} 2.0'))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system of a size of its own")
def test_a_full_disk_does_not_end_the_process_that_counts_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=True)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _COUNTING, str(folder / "filler")],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    assert (done.returncode, done.stdout) == (0, "5000\n"), done.stderr[-500:]
