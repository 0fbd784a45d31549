"""The command line. Each command is a module that is imported when it is called, so that ``--help`` comes at once.

``optimizer.cli:main`` is the ``sendtide`` console script. Other packages add commands by entry points of the group
``sendtide.commands``; what they name must be a ``click.Command``.
"""

from __future__ import annotations

from optimizer.cli.group import main

__all__ = ["main"]
