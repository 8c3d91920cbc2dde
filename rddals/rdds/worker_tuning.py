"""Python workers without needless work and waiting."""

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

__all__ = ["gc_paused", "spark_task", "tune_worker"]


#: How many modules were imported when this worker's objects were frozen.
_frozen_modules = 0


#: Whether this worker may talk to the JVM by TCP; acknowledgements have to be asked for every time.
_over_tcp = True


def tune_worker() -> None:
    """In a task: spare this Python worker what PySpark would have it do or wait for.

    After every task it collects garbage, which walks all that modules left in memory when they
    were imported: about 10 ms for NumPy, SciPy and PySpark. Frozen, that is left out from then on.
    What a task imports is frozen by the next.

    Its TCP connection to the JVM has Nagle's algorithm and delayed acknowledgements on, which
    cost a small task about 40 ms of waiting on either side. (With Unix domain sockets, PySpark
    4.1's ``spark.python.unix.domain.socket.enabled``, there is nothing to do.)
    """
    global _frozen_modules, _over_tcp
    if len(sys.modules) != _frozen_modules:
        gc.freeze()
        _frozen_modules = len(sys.modules)
    if _over_tcp:
        _over_tcp = _without_delays()


def _without_delays() -> bool:
    """Make this process's TCP connections send and acknowledge at once; False if it has none."""
    found = False
    if not os.path.isdir("/proc/self/fd") or not hasattr(socket, "TCP_QUICKACK"):
        return found
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.stat(f"/proc/self/fd/{name}").st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                    found = True
        except OSError:  # closed meanwhile, or no TCP socket after all
            continue
    return found


@contextmanager
def gc_paused() -> Iterator[None]:
    """In a task: collect no garbage meanwhile, for reading many small records.

    Python's collector looks for cycles among all that is alive whenever some hundred more objects
    are than were. While tens of thousands of rows are unpickled, and all are kept, that is five
    times the work of unpickling them.
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
    """A function that runs over a partition, and spares its worker first."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        tune_worker()
        return function(*args, **kwargs)

    return run
