"""The ``rddals`` command line; requires the extra ``rddals[cli]``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line: the entry point of the ``rddals`` script."""
    try:
        from rddals.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.exit(
            f"rddals: error: the command line needs {error.name}; "
            "install it with: pip install 'rddals[cli]'"
        )
    except KeyboardInterrupt:
        sys.exit(130)
    app(prog_name="rddals")
