"""A Spark session for one command: quiet, and with workers that can import what they need."""

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
from rddals.cli.failures import FAILED, describe
from rddals.errors import RddalsError
from rddals.rdds.failures import summary

__all__ = ["RunError", "spark_is_configured", "spark_session"]


class RunError(RddalsError, RuntimeError):
    """Spark failed; the message names the file that holds its log."""


@contextmanager
def spark_session(
    master: str | None = None, conf: Mapping[str, str] | None = None, verbose: bool = False
) -> Iterator[SparkSession]:
    """A session that ends with the block; one that runs already is used and left running.

    Parameters
    ----------
    master : str, optional
        The cluster. By default what Spark's own configuration says, which is ``local[*]`` where
        it says nothing.
    conf : mapping, optional
        Further settings of Spark.
    verbose : bool
        Let Spark write its log to stderr. Otherwise the log goes to a file that is deleted,
        unless something fails.

    Raises
    ------
    RunError
        If Spark does not start, or in place of what fails in the block and isn't the fault of
        the input.
    """
    # PySpark warns of pandas 3 at every use of Arrow; rddals does not use pandas.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"pyspark\.")
    if SparkContext._active_spark_context is not None:
        yield SparkSession.builder.getOrCreate()
        return
    handle, name = tempfile.mkstemp(prefix="rddals-", suffix=".log")
    os.close(handle)
    log = Path(name)
    try:
        session = _start(master, conf or {}, None if verbose else log)
        _take_ctrl_c(quietly=not verbose)
        try:
            _equip_local_workers(session.sparkContext)
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
    """Whether Spark runs already, or is configured by anything but options."""
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
        # Spares small tasks the delays of TCP between Spark and its Python workers.
        builder = builder.config("spark.python.unix.domain.socket.enabled", "true")
    for name, value in conf.items():
        builder = builder.config(name, value)
    if master is not None:
        builder = builder.master(master)
    if log is None:
        return builder.getOrCreate()
    try:
        with _output_to(log):
            session = builder.getOrCreate()
    except PySparkRuntimeError as error:
        where = "" if master is None else f" with --master {master}"
        raise RunError(f"Spark did not start{where}: {_reason(log) or summary(error)}") from error
    session.sparkContext.setLogLevel("ERROR")
    return session


def _reason(log: Path) -> str:
    """Why Spark did not start, from what it said."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    told = [line for line in lines if line and not line.startswith("at ")]
    if not told:
        return ""
    thrown = next((line for line in told if line.startswith("Exception in thread")), None)
    if thrown is not None and "UnsupportedClassVersionError" not in thrown:
        return re.sub(r'^Exception in thread "\S+" (?:[\w.$]+: )?', "", thrown)
    java = "17 or later" if _version() >= (4, 0) else "8, 11 or 17"
    return (
        f"{told[-1] if thrown is None else thrown} (PySpark {pyspark.__version__} needs Java "
        f"{java}, on the PATH or in JAVA_HOME)"
    )


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Let processes that are started meanwhile write to `log` what they would write to ours.

    Much of what the JVM says when it starts comes before any of Spark's own settings of its log
    are in force, and some of it (a warning of incubator modules) cannot be turned off.
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


def _take_ctrl_c(quietly: bool) -> None:
    """Let Ctrl-C raise `KeyboardInterrupt` here, and nothing else.

    PySpark's own handler calls into the JVM in the middle of whatever call is going on, which
    fails, and logs so. The jobs are cancelled when the session stops.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if quietly:
        # Py4J logs the call that was interrupted; without any handler Python would print that.
        logging.getLogger().addHandler(logging.NullHandler())


def _equip_local_workers(sc: SparkContext) -> None:
    """See to it that the workers of a local master run this interpreter and this rddals."""
    if sc.master != "local" and not sc.master.startswith("local["):
        return
    if "PYSPARK_PYTHON" not in os.environ:  # PySpark would run whatever python3 is on the PATH
        sc.pythonExec = sys.executable
    roots = dict.fromkeys(
        str(Path(module.__file__ or "").parents[1]) for module in (rddals, partitioners)
    )
    inherited = os.environ.get("PYTHONPATH")
    sc.environment["PYTHONPATH"] = os.pathsep.join([*roots, *([inherited] if inherited else [])])


def _version() -> tuple[int, int]:
    major, minor = pyspark.__version__.split(".")[:2]
    return int(major), int(minor)
