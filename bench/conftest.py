"""The Spark session that all contestants share, and the synthetic ratings."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bench.data import ratings
from rddals import RatingBlock

CORES = 2


#: Versions used, written to the JSON file and printed above the tables.
versions: dict[str, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--blas-threads",
        default="1",
        help="threads of MLlib's native BLAS; 'default' keeps the default of the library",
    )


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info["versions"] = versions


@pytest.fixture(scope="session")
def session(request: pytest.FixtureRequest) -> Iterator[Any]:
    spark = start_spark(request.config)
    yield spark
    spark.stop()


def start_spark(config: pytest.Config, **settings: str) -> Any:
    """Start a Spark session. Setting names have underscores in place of dots."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    # Spark's guide recommends one BLAS thread per task, since the tasks already use all cores.
    threads = config.getoption("--blas-threads")
    if threads != "default":
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = threads
    from pyspark.sql import SparkSession

    builder = (
        SparkSession.builder.master(f"local[{CORES}]")
        .appName("rddals bench")
        .config("spark.driver.memory", "8g")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        # PySpark 4.1 and later. rddals.rdds.worker_tuning.tune_worker documents the cost of TCP.
        .config("spark.python.unix.domain.socket.enabled", "true")
    )
    for name, value in settings.items():
        builder = builder.config(name.replace("_", "."), value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    versions["PySpark"] = spark.version
    versions["MLlib's BLAS"] = f"{mllib_blas(spark)}, threads: {threads}"
    return spark


def mllib_blas(spark: Any) -> str:
    """Return the class of MLlib's native BLAS, or a note if there is none."""
    jvm = spark.sparkContext._jvm
    try:
        native = jvm.dev.ludovic.netlib.blas.NativeBLAS.getInstance()
    except Exception:
        return "no native BLAS (install libopenblas0-pthread and liblapack3 for a fair comparison)"
    return str(native.getClass().getName())


@pytest.fixture(scope="session")
def columns() -> RatingBlock:
    return ratings()


@pytest.fixture(scope="session")
def frame(session: Any, columns: RatingBlock) -> Any:
    """Return the ratings as a cached DataFrame, the input of MLlib."""
    import pandas as pd

    session.conf.set("spark.sql.execution.arrow.pyspark.enabled", "true")
    data = session.createDataFrame(
        pd.DataFrame({"user": columns.users, "item": columns.products, "rating": columns.ratings})
    )
    cached = data.repartition(2 * CORES).cache()
    cached.count()
    return cached


@pytest.fixture(scope="session")
def batches(session: Any, columns: RatingBlock) -> Any:
    """Return the ratings as a cached RDD of columnar batches."""
    parts = np.array_split(np.arange(len(columns)), 2 * CORES)
    slices = [(columns.users[p], columns.products[p], columns.ratings[p]) for p in parts]
    rdd = session.sparkContext.parallelize(slices, len(slices)).cache()
    rdd.count()
    return rdd
