"""Errors as one line, and exit codes that mean something."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark.errors import PySparkException

from rddals.errors import (
    EventLogError,
    ModelFormatError,
    OverflowingRatingsError,
    RatingError,
    RatingTypeError,
    RddalsError,
    SettingError,
    StudyError,
    UnknownIdError,
)

__all__ = ["BAD_INPUT", "FAILED", "INTERRUPTED", "InputError", "describe", "exit_codes", "summary"]

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


class InputError(RddalsError, ValueError):
    """What was passed on the command line cannot be used."""


_INPUT_ERRORS = (
    EventLogError,
    InputError,
    ModelFormatError,
    OverflowingRatingsError,
    RatingError,
    RatingTypeError,
    SettingError,
    StudyError,
    UnknownIdError,
)


@contextmanager
def exit_codes(verbose: bool) -> Iterator[None]:
    """Run a command; an error becomes one line on stderr and the process's exit code."""
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
    """Whether an error came of Ctrl-C: Py4J raises others while it handles that."""
    context = error.__context__
    return isinstance(error, KeyboardInterrupt) or (context is not None and _interrupted(context))


def describe(error: BaseException) -> tuple[int, str]:
    """The exit code for an error, and the error in one line."""
    code = BAD_INPUT if isinstance(error, _INPUT_ERRORS) else FAILED
    return code, " ".join(summary(error).split())


def summary(error: BaseException) -> str:
    """What an error says, without the stack traces that Spark wraps it in."""
    if isinstance(error, RddalsError):
        return str(error)
    if isinstance(error, (ConnectionRefusedError, Py4JNetworkError)):
        return (
            "Java has ended, killed perhaps or out of memory; its log or the system's may say why"
        )
    text = str(error)
    if not isinstance(error, (Py4JError, PySparkException)):
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    _, found, in_python = text.partition("Traceback (most recent call last):\n")
    if found:  # a Python worker's error, quoted by the JVM: its last line says it
        lines = in_python.split("\n\n")[0].splitlines()
        return next((line for line in reversed(lines) if line[:1].strip()), text)
    causes = re.findall(r"^Caused by: ([\w.$]+): (.+)$", text, re.MULTILINE)
    if causes:
        kind, message = causes[-1]
        return f"{message} ({kind.rpartition('.')[2]})"
    lines = [line for line in text.splitlines() if line.strip()]
    # The first line of a Py4JJavaError says only which call failed.
    chosen = lines[1] if len(lines) > 1 and lines[1].startswith(": ") else (lines or [text])[0]
    return re.sub(r"^: (?:[\w.$]+(?:Exception|Error): )?", "", chosen)
