"""Run the ``rddals`` command with ``python -m rddals.cli``."""

from rddals.cli import main

main()
