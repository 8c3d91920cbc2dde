"""``python -m rddals.cli`` does what ``rddals`` does."""

from rddals.cli import main

main()
