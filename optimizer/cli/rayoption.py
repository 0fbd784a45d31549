"""The flag ``--ray [ADDRESS]``; it imports no Ray."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from optimizer.cli.call import option

_ADDRESS = re.compile(r"auto|local|(?!.*//)[^\s/]+:(\d{1,5})")
_LAST_PORT = 65_535
#: What the flag alone stands for: whatever Ray finds.
ANY = ""


class RayAddress(click.ParamType[Any]):
    """Where a Ray cluster is: HOST:PORT of its head, auto, local, or nothing."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The address as it was given."""
        found = _ADDRESS.fullmatch(value)
        if value != ANY and (found is None or int(found[1] or 0) > _LAST_PORT):
            self.fail(
                f"{value!r} is no address of a Ray cluster; allowed: HOST:PORT of its head, auto (the one on this "
                "machine), local (one for this call). Without an address, let another flag follow.",
                param,
                ctx,
            )
        return value


def ray_option(about: str) -> Callable[[Any], Any]:
    """The flag, with what it does for a command."""
    told = f"{about} ADDRESS: HOST:PORT, auto or local; left out, what Ray finds, else local."
    return option("--ray", type=RayAddress(), is_flag=False, flag_value=ANY, metavar="[ADDRESS]", help=told)
