"""Programs that are started without what they need say what that is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("arguments", [[], ["8090"]])
@pytest.mark.parametrize("program", ["mautic_events.py", "sendgrid_sender.py"])
def test_a_program_without_its_arguments_or_variables_says_how_it_is_used(program: str, arguments: list[str]) -> None:
    env = {"PATH": os.environ["PATH"]}
    call = [sys.executable, str(EXAMPLES / program), *arguments]
    done = subprocess.run(call, env=env, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert done.stderr.startswith("usage: DECIDE_URL=… DECIDE_KEY=… ")
