"""What exceptions of Spark and Java say, without their stack traces."""

from __future__ import annotations

import re

from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark.errors import PySparkException

from rddals.errors import RddalsError

__all__ = ["cause", "summary"]


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


def cause(error: BaseException) -> str:
    """What an exception, Java's or Python's, comes from, in a line of its own words."""
    cause = getattr(error, "java_exception", None)
    if cause is None:
        return (str(error).strip() or repr(error)).splitlines()[0]
    while cause.getCause() is not None:
        cause = cause.getCause()
    name = cause.getClass().getSimpleName()
    return f"{name}: {cause.getMessage()}".split("\n")[0].rstrip(".")
