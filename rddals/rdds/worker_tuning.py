"""Removing needless work and delays from Python workers."""

from __future__ import annotations

import gc
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

#: Number of imported modules when this worker's objects were frozen.
_frozen_modules = 0


#: Whether this worker may have a TCP connection. Linux resets TCP_QUICKACK, so each task sets it.
_over_tcp = True


def tune_worker() -> None:
    """Remove two costs that PySpark adds to every task; called in a task.

    After each task PySpark collects garbage, which walks all objects of the imported modules: about
    10 ms for NumPy, SciPy and PySpark. So these objects are frozen, and later collections skip
    them. Modules that a task imports are frozen by the next task.

    The worker's TCP connection to the JVM has Nagle's algorithm and delayed acknowledgements on,
    which cost a small task about 40 ms of waiting on either side. So both are turned off. (PySpark
    4.1's ``spark.python.unix.domain.socket.enabled`` uses Unix domain sockets, which have neither.)
    """
    global _frozen_modules, _over_tcp
    if len(sys.modules) != _frozen_modules:
        gc.freeze()
        _frozen_modules = len(sys.modules)
    if _over_tcp:
        _over_tcp = _without_delays()


def _without_delays() -> bool:
    """Turn off the delays of this process's TCP connections; False if it has none."""
    over_tcp = False
    if not os.path.isdir("/proc/self/fd") or not hasattr(socket, "TCP_QUICKACK"):
        return over_tcp
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.stat(f"/proc/self/fd/{name}").st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                    over_tcp = True
        except OSError:  # closed in the meantime, or not a TCP socket
            continue
    return over_tcp


@contextmanager
def gc_paused() -> Iterator[None]:
    """Turn off garbage collection inside the block, while many small records are read.

    Python's collector runs whenever a few hundred objects more are alive, and looks for cycles
    among all of them. While tens of thousands of rows are unpickled and retained, that takes five
    times as long as the unpickling.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


P = ParamSpec("P")


R = TypeVar("R")


def spark_task(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that runs over a partition, so that it tunes its worker first.

    PySpark has no hook that runs at the start of a worker, so each task calls `tune_worker`.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        tune_worker()
        return function(*args, **kwargs)

    return run
