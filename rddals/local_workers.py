"""Python of the workers of a local Spark."""

from __future__ import annotations

import os
import sys
from functools import wraps
from typing import Any

from pyspark import SparkContext


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
    local = sc.master == "local" or sc.master.startswith("local[")
    chosen = "PYSPARK_PYTHON" in os.environ or sc.getConf().contains("spark.pyspark.python")
    if local and not chosen:
        sc.pythonExec = sys.executable
