"""What each exchange moves, by arithmetic alone.

Bytes are those of the factor rows themselves (float32) and, for the join, of the ratings and ids
that travel with them; what a serialiser adds per record is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Choice", "HalfStepSizes", "bytes_moved", "choose", "readable_bytes"]

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
    """

    source_rows: int
    needed_rows: int
    ratings: int
    rank: int
    executors: int


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
    """
    row = FLOAT * sizes.rank
    return {
        "shuffle": row * sizes.needed_rows,
        "broadcast": row * sizes.source_rows * (1 + sizes.executors),
        "join": (row + RATING) * sizes.ratings,
    }


#: All rows of a side pass through the driver's memory, in Python and in the JVM.
BROADCAST_LIMIT = 256 << 20


def choose(users: HalfStepSizes, products: HalfStepSizes) -> Choice:
    """The exchange that moves the fewest bytes per iteration within the driver's memory.

    Parameters
    ----------
    users, products : HalfStepSizes
        The half-steps in which users, and products, send.
    """
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
