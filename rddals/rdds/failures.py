"""Messages of Spark's and Java's exceptions, without their stack traces."""

from __future__ import annotations

import re

from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark.errors import PySparkException

from rddals.errors import RddalsError


def summary(error: BaseException) -> str:
    """Return an error's message, without stack traces.

    Spark's message of a failed job contains Java's stack trace, the causes' messages, and a Python
    worker's traceback. This returns the line that a Python error or else the last cause ends with.
    """
    if isinstance(error, RddalsError):
        return str(error)
    if isinstance(error, (ConnectionRefusedError, Py4JNetworkError)):
        return "Java has ended, perhaps killed or out of memory. Read its log and the system's log."
    text = str(error)
    if not isinstance(error, (Py4JError, PySparkException)):
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    _, marker, traceback = text.partition("Traceback (most recent call last):\n")
    if marker:  # a Python worker's error, quoted by the JVM: the last line has the message
        lines = traceback.split("\n\n")[0].splitlines()
        return next((line for line in reversed(lines) if line[:1].strip()), text)
    causes = re.findall(r"^Caused by: ([\w.$]+): (.+)$", text, re.MULTILINE)
    if causes:
        kind, message = causes[-1]
        return f"{message} ({kind.rpartition('.')[2]})"
    lines = [line for line in text.splitlines() if line.strip()]
    # The first line of a Py4JJavaError only names the call that failed.
    chosen = lines[1] if len(lines) > 1 and lines[1].startswith(": ") else (lines or [text])[0]
    return re.sub(r"^: (?:[\w.$]+(?:Exception|Error): )?", "", chosen)


def cause(error: BaseException) -> str:
    """Return the class and message of the root cause, in one line.

    Py4J raises the outermost Java exception, which often only says that a job failed.
    """
    java_error = getattr(error, "java_exception", None)
    if java_error is None:
        return (str(error).strip() or repr(error)).splitlines()[0]
    while java_error.getCause() is not None:
        java_error = java_error.getCause()
    name = java_error.getClass().getSimpleName()
    return f"{name}: {java_error.getMessage()}".split("\n")[0].rstrip(".")
