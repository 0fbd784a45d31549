"""``python -m optimizer.cli``: the command line where no console script is at hand, as in child processes."""

from optimizer.cli import main

main()
