"""The drills pass on the service as it is, and fail on a service with a fault."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from optimizer.config import Settings
from optimizer.service.wiring import open_services
from simulations.audit import Breach, Report
from simulations.drills import checks, command, kill, racers
from simulations.drills.load import Acknowledged, Client, same_decision
from simulations.drills.race import Size, run
from simulations.drills.scene import UNIFORM, WORKSPACE, prepare
from simulations.drills.victims import Kill, Probe
from simulations.drills.witness import WitnessStore
from optimizer.service.requests import DecisionRequest
from storage.log import Message

SMALL = Size(processes=2, threads=12, decisions=1500, recipients=30, cap=3, seed=1)
NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def raced() -> dict[str, Any]:
    """One race over the command line: as it is, and with each fault."""
    flags = ["--processes", "2", "--threads", "12", "--decisions", "1500", "--recipients", "30", "--json"]
    faults = ["--mutant", "action-keyed", "--mutant", "no-recheck"]
    told = CliRunner().invoke(command, ["race", *flags, *faults])
    assert told.exit_code == 0, told.output
    return {result["mutant"] or "none": result for result in json.loads(told.stdout)}
