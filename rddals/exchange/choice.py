"""What each exchange moves and takes, by arithmetic alone, and which one is chosen.

Bytes are those of the factor rows themselves (float32) and, for the join, of the ratings and ids
that travel with them; what a serialiser adds per record is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

__all__ = [
    "Choice",
    "HalfStepSizes",
    "Resources",
    "bytes_moved",
    "choose",
    "local_bytes",
    "readable_bytes",
    "seconds_per_iteration",
]

FLOAT = 4
#: user id, product id and rating of a rating that is moved.
RATING = 12


@dataclass(frozen=True, slots=True)
class HalfStepSizes:
    """Sizes of one half-step, seen from the side that sends.

    Attributes
    ----------
    source_rows : int
        Rows of the source side.
    needed_rows : int
        Rows that the destination blocks need, summed over the blocks: a row that three blocks
        need counts three times.
    ratings : int
    rank : int
    executors : int
        Processes that each need a copy of what is broadcast.
    blocks : int
        Blocks of the side that is solved: tasks of the half-step.
    flops : float
        Floating-point operations of solving it.
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
    """What there is to train with.

    Attributes
    ----------
    cores : int
        Of all executors together: tasks that run at the same time.
    threads : int
        Cores that one task can have.
    task_bytes : int
        Memory that one task can have.
    seconds_per_flop : float
        What an operation of a half-step takes on one core.
    """

    cores: int
    threads: int
    task_bytes: int
    seconds_per_flop: float


@dataclass(frozen=True, slots=True)
class Choice:
    """An exchange, and why."""

    exchange: str
    reason: str


def bytes_moved(sizes: HalfStepSizes) -> Mapping[str, int]:
    """Bytes that one half-step moves under each exchange.

    - ``shuffle``: each needed row once per block that needs it.
    - ``broadcast``: all rows to the driver, and from there to every executor.
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


#: All rows of a side pass through the driver's memory, in Python and in the JVM.
BROADCAST_LIMIT = 256 << 20
#: How much of a task's memory the local exchange may fill.
MEMORY_SHARE = 0.5
#: A Python worker with NumPy, SciPy and PySpark in it.
WORKER_BYTES = 160 << 20
#: A rating in the links of one side: a position and the rating itself, at most.
LINK_BYTES = 8
#: A link block as it arrives, unpickled, and as one with the others.
LINK_COPIES = 3
#: An id in the links: itself, its order, pointer and count, on its own side and on the other.
ID_BYTES = 24
#: Buffers of a thread: the equations of a group of rows, twice, and what they are made of.
LANES = 16
#: What Spark takes for a half-step, and for each task of it, beside the arithmetic.
JOB_SECONDS, TASK_SECONDS = 0.02, 0.005
#: Bytes a second that pass between processes.
BANDWIDTH = 5e8


def local_bytes(users: HalfStepSizes, products: HalfStepSizes, threads: int) -> int:
    """At most so much memory has the one task of the local exchange, in double precision."""
    rank, ratings = users.rank, max(users.ratings, products.ratings)
    ids = users.source_rows + products.source_rows
    largest = max(users.source_rows, products.source_rows)
    padded = -(-rank // 16) * 16
    links = LINK_COPIES * 2 * (LINK_BYTES * ratings + ID_BYTES * ids)
    # Both sides' factors, and their copies on the way out; source rows and solutions of one.
    rows = 4 * FLOAT * rank * ids + 2 * 8 * padded * largest
    buffers = threads * 8 * 3 * LANES * (padded + LANES) ** 2
    return WORKER_BYTES + links + rows + buffers


def seconds_per_iteration(
    users: HalfStepSizes, products: HalfStepSizes, resources: Resources
) -> Mapping[str, float]:
    """What an iteration takes under each exchange that may be chosen.

    The arithmetic is shared by as many cores as there are blocks, or by those of the one task;
    what goes through Spark adds a job, its tasks and the bytes they move.
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
    """The exchange to train with.

    One task alternates alone where it has the memory and is the fastest. Elsewhere it is the
    exchange that moves the fewest bytes per iteration within the driver's memory.

    Parameters
    ----------
    users, products : HalfStepSizes
        The half-steps in which users, and products, send.
    resources : Resources, optional
        What there is to train with; the local exchange is out of the question if left out.
    """
    against = ""
    if resources is not None:
        needed = local_bytes(users, products, resources.threads)
        limit = int(MEMORY_SHARE * resources.task_bytes)
        seconds = seconds_per_iteration(users, products, resources)
        memory = f"one task needs {readable_bytes(needed)} of {readable_bytes(limit)}"
        figures = "an iteration takes " + ", ".join(
            f"{seconds[name]:.2g} s by {name}" for name in ("local", "shuffle", "broadcast")
        )
        if needed <= limit and seconds["local"] <= min(seconds.values()):
            return Choice("local", f"{figures}; {memory}")
        against = f"; not local: {memory if needed > limit else figures}"
    choice = _fewest_bytes(users, products)
    return Choice(choice.exchange, choice.reason + against)


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
        return Choice("shuffle", f"{figures}; the driver is spared")
    return Choice(min(moved, key=lambda exchange: moved[exchange]), figures)


def readable_bytes(count: float) -> str:
    """A number of bytes, for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
