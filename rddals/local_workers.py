"""Local Spark: whether a context is local, and the Python of its workers."""

from __future__ import annotations

import os
import sys
from functools import wraps
from typing import Any

from pyspark import SparkContext


def is_local(sc: SparkContext) -> bool:
    """Return whether the workers share the driver's machine and Python installation.

    The executors of a ``local-cluster`` master may use another Python, so that is not local.
    """
    master = sc.master or ""
    return master.startswith("local") and "cluster" not in master


def use_this_python() -> None:
    """Let the workers of local contexts run the Python of this process.

    PySpark runs the ``python3`` on the ``PATH``, which is another one if the virtual environment is
    not activated. It has no hook between the choice of a master and the first task, so the
    constructor of SparkContext is wrapped. Runs once, on import. A cluster's workers, and a Python
    that is chosen by ``PYSPARK_PYTHON`` or ``spark.pyspark.python``, stay as they are.
    """
    create = SparkContext.__init__

    @wraps(create)
    def __init__(self: SparkContext, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        _configure(self)

    SparkContext.__init__ = __init__
    if SparkContext._active_spark_context is not None:
        _configure(SparkContext._active_spark_context)


def _configure(sc: SparkContext) -> None:
    chosen = "PYSPARK_PYTHON" in os.environ or sc.getConf().contains("spark.pyspark.python")
    if is_local(sc) and not chosen:
        sc.pythonExec = sys.executable
