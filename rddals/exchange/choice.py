"""Estimates of the bytes, memory and time of each exchange, and the choice among them.

Bytes are those of the float32 factor rows and, for the join, of the ratings and ids sent with them.
Serialisation overhead is not included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from math import ceil

from rddals.blocks.sides import PRODUCTS, USERS
from rddals.kernels.flops import flops_of_mean

FLOAT = 4
#: Bytes of a moved rating: user id, product id and value.
RATING = 12


@dataclass(frozen=True, slots=True)
class HalfStepSizes:
    """Sizes of one half-step. The source side sends rows; the destination side is solved.

    Attributes
    ----------
    source_rows : int
        Number of rows of the source side.
    needed_rows : int
        Number of rows that the destination blocks need, summed over the blocks: a row needed by
        three blocks counts three times.
    ratings : int
        Number of ratings.
    rank : int
    executors : int
        Number of processes that each need a copy of a broadcast.
    blocks : int
        Number of blocks of the destination side, one task each.
    flops : float
        Floating-point operations of solving the destination side.
    """

    source_rows: int
    needed_rows: int
    ratings: int
    rank: int
    executors: int
    blocks: int = 1
    flops: float = 0.0


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources available for training.

    Attributes
    ----------
    cores : int
        Cores of all executors: the number of tasks that run at the same time.
    threads : int
        Cores available to one task.
    task_bytes : int
        Memory available to one task.
    seconds_per_flop : float
        Seconds per operation of a half-step on one core.
    """

    cores: int
    threads: int
    task_bytes: int
    seconds_per_flop: float


@dataclass(frozen=True, slots=True)
class Choice:
    """Chosen exchange, with the reason."""

    exchange: str
    reason: str


def half_step_sizes(
    ids: Sequence[Sequence[int]],
    ratings: Sequence[Sequence[int]],
    rows: Sequence[int],
    rank: int,
    executors: int,
) -> tuple[HalfStepSizes, HalfStepSizes]:
    """Return the sizes of the half-step that solves products, and of the one that solves users.

    `ids` and `ratings` have the numbers of each block of users, and of products. `rows` has the
    rows that users send, and that products send; a row counts once for each block that needs it.
    """
    users, products = (
        HalfStepSizes(
            source_rows=sum(ids[side]),
            needed_rows=rows[side],
            ratings=sum(ratings[side]),
            rank=rank,
            executors=executors,
            blocks=len(ids[1 - side]),
            flops=sum(map(flops_of_mean, ids[1 - side], ratings[1 - side], repeat(rank))),
        )
        for side in (USERS, PRODUCTS)
    )
    return users, products


def bytes_moved(sizes: HalfStepSizes) -> Mapping[str, int]:
    """Estimate the bytes that one half-step moves with each exchange.

    - ``shuffle``: each needed row once per block that needs it.
    - ``broadcast``: all rows to the driver, then to every executor.
    - ``join``: every rating with its source row.
    - ``local``: nothing.
    """
    row = FLOAT * sizes.rank
    return {
        "shuffle": row * sizes.needed_rows,
        "broadcast": row * sizes.source_rows * (1 + sizes.executors),
        "join": (row + RATING) * sizes.ratings,
        "local": 0,
    }


#: Maximum bytes of a side to broadcast; it passes through the driver's Python and JVM memory.
BROADCAST_LIMIT = 256 << 20
#: Fraction of a task's memory that the local exchange may use.
MEMORY_SHARE = 0.5
#: Bytes of a Python worker with NumPy, SciPy and PySpark imported.
WORKER_BYTES = 160 << 20
#: Maximum bytes of a rating in the links of one side: a position and the rating itself.
LINK_BYTES = 8
#: Copies of a link block: pickled, unpickled, and merged with the others.
LINK_COPIES = 3
#: Bytes per id in the links: its id, order, pointer and count in its own block, and its id in the
#: blocks of the other side.
ID_BYTES = 24
#: Systems that a thread solves together. Its buffers hold their equations, a copy, and the inputs.
LANES = 16
#: Spark overhead of a half-step, and of each of its tasks.
JOB_SECONDS, TASK_SECONDS = 0.02, 0.005
#: Bytes per second between processes.
BANDWIDTH = 5e8


def local_bytes(users: HalfStepSizes, products: HalfStepSizes, threads: int) -> int:
    """Estimate the maximum memory of the local exchange's task, in double precision."""
    rank, ratings = users.rank, max(users.ratings, products.ratings)
    ids = users.source_rows + products.source_rows
    largest = max(users.source_rows, products.source_rows)
    padded = -(-rank // 16) * 16
    links = LINK_COPIES * 2 * (LINK_BYTES * ratings + ID_BYTES * ids)
    # Factors of both sides and their output copies; source rows and solutions of one side.
    rows = 4 * FLOAT * rank * ids + 2 * 8 * padded * largest
    buffers = threads * 8 * 3 * LANES * (padded + LANES) ** 2
    return WORKER_BYTES + links + rows + buffers


def seconds_per_iteration(
    users: HalfStepSizes, products: HalfStepSizes, resources: Resources
) -> Mapping[str, float]:
    """Estimate the seconds per iteration with each exchange that ``"auto"`` may choose.

    A shuffle or broadcast uses at most one core per block, and adds the overhead of a job, its
    tasks and the bytes they move. The local exchange uses the cores of one task.
    """
    seconds = dict.fromkeys(("shuffle", "broadcast", "local"), 0.0)
    for sizes in (users, products):
        work = sizes.flops * resources.seconds_per_flop
        turns = ceil(sizes.blocks / resources.cores)
        by_spark = work / min(sizes.blocks, resources.cores) + JOB_SECONDS + TASK_SECONDS * turns
        moved = bytes_moved(sizes)
        for name in ("shuffle", "broadcast"):
            seconds[name] += by_spark + moved[name] / BANDWIDTH
        seconds["local"] += work / resources.threads
    return seconds


def choose(
    users: HalfStepSizes, products: HalfStepSizes, resources: Resources | None = None
) -> Choice:
    """Choose the exchange to train with.

    The local exchange is chosen if its task has the memory and is the fastest. Otherwise shuffle or
    broadcast is chosen, whichever moves fewer bytes per iteration; a broadcast must fit into the
    driver's memory. Join is never chosen. Without resources, local is not considered. `users` are
    the sizes of the half-step in which users send.
    """
    not_local = ""
    if resources is not None:
        needed = local_bytes(users, products, resources.threads)
        limit = int(MEMORY_SHARE * resources.task_bytes)
        seconds = seconds_per_iteration(users, products, resources)
        memory = f"one task needs {readable_bytes(needed)} (limit {readable_bytes(limit)})"
        figures = "an iteration takes " + ", ".join(
            f"{seconds[name]:.2g} s by {name}" for name in ("local", "shuffle", "broadcast")
        )
        if needed <= limit and seconds["local"] <= min(seconds.values()):
            return Choice("local", f"{figures}; {memory}")
        not_local = f"; not local: {memory if needed > limit else figures}"
    choice = _fewest_bytes(users, products)
    return Choice(choice.exchange, choice.reason + not_local)


def _fewest_bytes(users: HalfStepSizes, products: HalfStepSizes) -> Choice:
    moved = {
        name: bytes_moved(users)[name] + bytes_moved(products)[name]
        for name in ("shuffle", "broadcast")
    }
    largest = FLOAT * max(users.source_rows * users.rank, products.source_rows * products.rank)
    figures = (
        f"{readable_bytes(moved['shuffle'])} per iteration by shuffle, "
        f"{readable_bytes(moved['broadcast'])} by broadcast"
    )
    if largest > BROADCAST_LIMIT:
        return Choice(
            "shuffle",
            f"{figures}, but a broadcast would take {readable_bytes(largest)} of the "
            f"driver's memory (limit {readable_bytes(BROADCAST_LIMIT)})",
        )
    if moved["shuffle"] == moved["broadcast"]:
        return Choice("shuffle", f"{figures}; a shuffle uses no memory of the driver")
    return Choice(min(moved, key=lambda exchange: moved[exchange]), figures)


def readable_bytes(count: float) -> str:
    """Format a number of bytes with a unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
