"""The compiled loops of a decision, and the same in NumPy, for tests that hold one to the other."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from optimizer.bandit import kernel

T = TypeVar("T")


def require_compiled() -> None:
    """Skips where nothing could be compiled; where it could and wasn't, that is a failure."""
    if kernel.available:
        return
    if shutil.which("cc") is None or not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        pytest.skip("no C compiler here, or no headers of Python: the loops are not compiled")
    pytest.fail("the loops are not compiled though there is a C compiler: make install")


def in_numpy(work: Callable[[], T]) -> T:
    """What ``work`` gives without the compiled loops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "available", False)
        return work()
