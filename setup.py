"""What ``setup.cfg`` can't say: the compiled loops. Where they can't be compiled, NumPy does the same."""

from pathlib import Path

from setuptools import Extension, setup

KERNEL = Path("optimizer/bandit/kernel")

setup(
    ext_modules=[
        Extension(
            "optimizer.bandit.kernel._compiled",
            sources=sorted(map(str, KERNEL.glob("*.c"))),
            depends=sorted(map(str, KERNEL.glob("*.h"))),
            # A product and a sum that are rounded once would differ from one loop, and one processor, to another.
            extra_compile_args=["-O3", "-ffp-contract=off"],
            optional=True,
        )
    ]
)
