"""Load by ``wrk`` (Debian's package), the same for every route: each request asks about another recipient."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from optimizer.errors import ConfigError

_SCRIPT = """
local counter = 0
function setup(thread) thread:set("number", counter); counter = counter + 1 end
local asked = 0
function request()
  local i = FIRST + number + THREADS * asked
  asked = asked + 1
  local body = '{"campaign_id":"c","recipient_id":"p' .. i .. '","context":{"cart":12.5}}'
  return wrk.format("POST", "PATH", HEADERS, body)
end
DELAY
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"requests":%d,"micros":%d,"p50":%d,"p99":%d,"errors":%d}\\n', summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""
#: Recipients that no run has asked about yet.
_NEXT = count()
_RUN = 20_000


@dataclass(frozen=True)
class Load:
    """What a run of wrk saw: requests a second, median and 99th percentile of the latency in milliseconds."""

    rate: float
    p50: float
    p99: float


def available() -> bool:
    """Whether wrk is installed."""
    return shutil.which("wrk") is not None


def run(
    bind: str, path: str, headers: Mapping[str, str], *, clients: int, seconds: float = 5.0, rate: float | None = None
) -> Load:
    """Sends requests for ``seconds``.

    Args:
        bind: host and port. path: the route. headers: of every request.
        clients: connections.
        seconds: how long.
        rate: requests a second to keep to; None = as many as the clients get answers to.

    Raises:
        ConfigError: wrk is missing, or a request failed.
    """
    program = shutil.which("wrk")
    if program is None:
        raise ConfigError("the benchmark over HTTP needs wrk: apt-get install wrk")
    threads = min(2, clients)
    told = ", ".join(f'["{name}"]="{value}"' for name, value in headers.items())
    pause = "" if rate is None else f"function delay() return {1000.0 * clients / rate:.3f} * (0.5 + math.random()) end"
    script = _SCRIPT.replace("FIRST", str(next(_NEXT) * _RUN)).replace("THREADS", str(threads)).replace("PATH", path)
    script = script.replace("HEADERS", "{" + told + "}").replace("DELAY", pause)
    with tempfile.TemporaryDirectory(prefix="sendtide-wrk-") as folder:
        file = Path(folder) / "load.lua"
        file.write_text(script)
        command = [
            program,
            f"-t{threads}",
            f"-c{clients}",
            f"-d{seconds:g}s",
            "--timeout",
            "30s",
            "-s",
            str(file),
            f"http://{bind}",
        ]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))  # noqa: S603
    seen = json.loads(ended.stdout.strip().splitlines()[-1])
    if seen["errors"]:
        raise ConfigError(f"{seen['errors']} of {seen['requests']} requests to {path} failed:\n{ended.stdout}")
    return Load(seen["requests"] / seen["micros"] * 1e6, seen["p50"] / 1e3, seen["p99"] / 1e3)
