"""One-line errors and exit codes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from rddals.errors import OverflowingRatingsError, RddalsError
from rddals.rdds.failures import summary

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


class InputError(RddalsError, ValueError):
    """Command-line argument that cannot be used."""


#: Bases of the rddals errors that the input causes. Overflowing ratings are named alone, since a
#: singular system is an ArithmeticError, too, but a failure.
_INPUT_ERRORS = (ValueError, TypeError, LookupError, OverflowingRatingsError)


@contextmanager
def exit_codes(verbose: bool) -> Iterator[None]:
    """Run a command; on an error, print one line on stderr and exit with its code."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if _interrupted(error):
            print("rddals: interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        if verbose:
            traceback.print_exc()
        code, message = describe(error)
        print(f"rddals: error: {message}", file=sys.stderr)
        raise typer.Exit(code) from None


def _interrupted(error: BaseException) -> bool:
    """Return whether Ctrl-C caused an error, which Py4J may hide behind another one."""
    context = error.__context__
    return isinstance(error, KeyboardInterrupt) or (context is not None and _interrupted(context))


def describe(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the one-line message of an error."""
    is_input = isinstance(error, RddalsError) and isinstance(error, _INPUT_ERRORS)
    code = BAD_INPUT if is_input else FAILED
    return code, " ".join(summary(error).split())
