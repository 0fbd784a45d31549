"""The version that a write expects to find: tested inside its transaction, so that nobody can write in between."""

from __future__ import annotations

from optimizer.errors import PreconditionFailed


def check_version(what: str, name: str, version: int, if_match: int | None) -> None:
    """Whether the stored ``version`` (0 = none) is the one that the caller expects (None = whichever).

    Raises:
        PreconditionFailed: it is another one.
    """
    if if_match is not None and if_match != version:
        raise PreconditionFailed(f"{what} {name!r} is at version {version}, not {if_match}: read it again and retry")
