"""Spark session of one command: quiet, with workers that can import rddals."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyspark
from pyspark import SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

import partitioners
import rddals
from rddals.cli.failures import FAILED, InputError, describe
from rddals.errors import RddalsError
from rddals.local_workers import is_local
from rddals.rdds.failures import summary


class RunError(RddalsError, RuntimeError):
    """Failure of Spark; the message names the log file."""


@contextmanager
def spark_session(
    master: str | None = None, conf: Mapping[str, str] | None = None, verbose: bool = False
) -> Iterator[SparkSession]:
    """Start a session and stop it after the block; use a running session and leave it running.

    Unless `verbose`, Spark logs to a file instead of stderr, which is deleted if nothing fails.
    `RunError` is raised if Spark does not start, or for an error that the input did not cause.
    """
    # PySpark warns about pandas 3 at every use of Arrow; rddals does not use pandas.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"pyspark\.")
    if SparkContext._active_spark_context is not None:
        yield SparkSession.builder.getOrCreate()
        return
    handle, name = tempfile.mkstemp(prefix="rddals-", suffix=".log")
    os.close(handle)
    log = Path(name)
    try:
        session = _start(master, conf or {}, None if verbose else log)
        _handle_ctrl_c(quietly=not verbose)
        try:
            _configure_local_workers(session.sparkContext)
            yield session
        finally:
            session.stop()
    except Exception as error:
        code, message = describe(error)
        if verbose or code != FAILED:
            log.unlink(missing_ok=True)
            raise
        with log.open("a") as file:
            traceback.print_exc(file=file)
        raise RunError(f"{message}; details are in {log}") from error
    except BaseException:
        log.unlink(missing_ok=True)
        raise
    log.unlink(missing_ok=True)


def spark_is_configured() -> bool:
    """Return whether Spark is running, or is configured outside the command line."""
    environment = {
        "HADOOP_CONF_DIR",
        "MASTER",
        "PYSPARK_GATEWAY_PORT",
        "PYSPARK_SUBMIT_ARGS",
        "SPARK_API_MODE",
        "SPARK_CONF_DIR",
        "SPARK_CONNECT_MODE_ENABLED",
        "SPARK_DIST_CLASSPATH",
        "SPARK_REMOTE",
        "YARN_CONF_DIR",
    }
    files = ("spark-defaults.conf", "spark-env.sh", "core-site.xml")
    conf = Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent, "conf")
    return (
        SparkContext._active_spark_context is not None
        or not environment.isdisjoint(os.environ)
        or "-Dspark." in os.environ.get("SPARK_SUBMIT_OPTS", "")
        or any((conf / name).exists() for name in files)
    )


def _start(master: str | None, conf: Mapping[str, str], log: Path | None) -> SparkSession:
    builder = SparkSession.builder.appName("rddals").config("spark.ui.enabled", "false")
    builder = builder.config("spark.ui.showConsoleProgress", "false")
    if _version() >= (4, 1):
        # Avoids the delays of TCP between Spark and its Python workers on small tasks.
        builder = builder.config("spark.python.unix.domain.socket.enabled", "true")
    for name, value in conf.items():
        builder = builder.config(name, value)
    if master is not None:
        builder = builder.master(master)
    api = conf.get("spark.api.mode") or os.environ.get("SPARK_API_MODE")
    if "spark.remote" in conf or "SPARK_REMOTE" in os.environ or api == "connect":
        raise InputError(
            "rddals computes on RDDs, which Spark Connect does not have; unset SPARK_REMOTE and "
            "SPARK_API_MODE, omit spark.remote and spark.api.mode, and pass --master"
        )
    if log is None:
        return builder.getOrCreate()
    try:
        with _output_to(log):
            session = builder.getOrCreate()
    except PySparkRuntimeError as error:
        option = "" if master is None else f" with --master {master}"
        raise RunError(f"Spark did not start{option}: {_reason(log) or summary(error)}") from error
    session.sparkContext.setLogLevel("ERROR")
    return session


def _reason(log: Path) -> str:
    """Return why Spark did not start, from its log."""
    log_lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    lines = [line for line in log_lines if line and not line.startswith("at ")]
    if not lines:
        return ""
    exception = next((line for line in lines if line.startswith("Exception in thread")), None)
    if exception is not None and "UnsupportedClassVersionError" not in exception:
        return re.sub(r'^Exception in thread "\S+" (?:[\w.$]+: )?', "", exception)
    java = "17 or later" if _version() >= (4, 0) else "8, 11 or 17"
    return (
        f"{lines[-1] if exception is None else exception} (PySpark {pyspark.__version__} needs "
        f"Java {java}, on the PATH or in JAVA_HOME)"
    )


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Redirect stdout and stderr to `log`, for processes that start in the block as well.

    The JVM prints much of its output before Spark's log settings apply, and some of it (a warning
    about incubator modules) cannot be turned off.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    with log.open("a") as file:
        for descriptor in saved:
            os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, copy in saved.items():
            os.dup2(copy, descriptor)
            os.close(copy)


def _handle_ctrl_c(quietly: bool) -> None:
    """Make Ctrl-C raise `KeyboardInterrupt` only.

    PySpark's own handler calls the JVM in the middle of another call, which fails and logs an
    error. Stopping the session cancels the jobs.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if quietly:
        # Py4J logs the interrupted call; without any handler Python would print it.
        logging.getLogger().addHandler(logging.NullHandler())


def _configure_local_workers(sc: SparkContext) -> None:
    """Make the workers of a local master import this rddals."""
    if not is_local(sc):
        return
    roots = dict.fromkeys(
        str(Path(module.__file__ or "").parents[1]) for module in (rddals, partitioners)
    )
    inherited = os.environ.get("PYTHONPATH")
    sc.environment["PYTHONPATH"] = os.pathsep.join([*roots, *([inherited] if inherited else [])])


def _version() -> tuple[int, int]:
    major, minor = pyspark.__version__.split(".")[:2]
    return int(major), int(minor)
