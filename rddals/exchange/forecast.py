"""What a half-step will move and hold, from the footprints of both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rddals.exchange.footprint import Footprint
from rddals.exchange.messages import JOIN_ENVELOPE, shuffled_bytes
from rddals.exchange.plan import HalfStepSizes, bytes_moved

__all__ = ["Load", "PlannedHalfStep", "PlannedSide", "half_step_sizes", "half_steps", "load_of"]

SIDES = ("users", "products")
FLOAT = 4


class Load(NamedTuple):
    """Something that every block has, on average and at most."""

    mean: float
    most: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> Load:
        """That of some blocks."""
        return cls(float(values.mean()), float(values.max()))


@dataclass(frozen=True, slots=True)
class PlannedHalfStep:
    """What one half-step moves under one exchange.

    Attributes
    ----------
    sender : {"users", "products"}
        The side whose rows move; the other one is solved.
    rows_held, rows_sent : int
        Rows that the sender has, and rows that arrive: one that three blocks need, three times.
    records : int
        Messages from block to block; 0 for a broadcast.
    payload : int
        Bytes of rows, and of ratings where they move as well.
    least_bytes, most_bytes : int
        Bytes that Spark will move, what it adds to a message included, compression off. The same
        for the shuffle, of which they are exact; a broadcast's are its payload.
    """

    sender: str
    rows_held: int
    rows_sent: int
    records: int
    payload: int
    least_bytes: int
    most_bytes: int

    @property
    def replication(self) -> float:
        """How many times a row is sent, on average."""
        return self.rows_sent / max(self.rows_held, 1)


@dataclass(frozen=True, slots=True)
class PlannedSide:
    """How evenly the solving of one side is spread over its blocks.

    Attributes
    ----------
    ratings, rows : Load
        A block's ratings, and the source rows that it needs.
    seconds : Load
        Estimated time of solving it, on one core of this machine.
    link_bytes : Load
        Its link block, which is cached.
    task_bytes : Load
        What its task holds: the link block, the rows that it needs and those that it makes.
    """

    ratings: Load
    rows: Load
    seconds: Load
    link_bytes: Load
    task_bytes: Load


def half_step_sizes(
    pair: tuple[Footprint, Footprint], rank: int, executors: int
) -> tuple[HalfStepSizes, HalfStepSizes]:
    """Sizes of the half-steps in which users, and products, send."""
    users, products = (
        HalfStepSizes(
            source_rows=int(side.ids.sum()),
            needed_rows=int(side.sent.sum()),
            ratings=int(side.ratings.sum()),
            rank=rank,
            executors=executors,
        )
        for side in pair
    )
    return users, products


def half_steps(
    exchange: str, pair: tuple[Footprint, Footprint], sizes: Sequence[HalfStepSizes]
) -> tuple[PlannedHalfStep, PlannedHalfStep]:
    """The half-steps in which users, and products, send."""
    users, products = (
        _half_step(exchange, sender, side, own)
        for sender, side, own in zip(SIDES, pair, sizes, strict=True)
    )
    return users, products


def _half_step(
    exchange: str, sender: str, side: Footprint, sizes: HalfStepSizes
) -> PlannedHalfStep:
    payload = least = most = bytes_moved(sizes)[exchange]
    messages = side.sent.data
    records = len(messages)
    if exchange == "shuffle":
        sent = sizes.needed_rows
        least = most = int(shuffled_bytes(messages, sizes.rank).sum())
    elif exchange == "broadcast":
        sent, records = sizes.source_rows * (1 + sizes.executors), 0
    else:
        sent = sizes.ratings
        most = payload + JOIN_ENVELOPE * records
    return PlannedHalfStep(sender, sizes.source_rows, sent, records, payload, least, most)


def load_of(
    solved: Footprint, source: Footprint, rank: int, seconds_per_flop: float
) -> PlannedSide:
    """How the work of solving a side is spread.

    Parameters
    ----------
    solved, source : Footprint
        The side that is solved, and the one that sends.
    rank : int
    seconds_per_flop : float
    """
    received = np.asarray(source.sent.sum(axis=0)).ravel()
    sent = np.asarray(solved.sent.sum(axis=1)).ravel()
    other_blocks = solved.sent.shape[1]
    positions = np.where(received < 1 << 16, 2, 4)
    links = (
        20 * solved.ids  # ids, their order, pointers and counts of positive ratings
        + (positions + FLOAT) * solved.ratings  # or 3 bytes less, where few values occur
        + 4 * received
        + 4 * sent
        + 12 * other_blocks
    )
    rows = FLOAT * rank * (received + solved.ids)
    return PlannedSide(
        ratings=Load.of(solved.ratings),
        rows=Load.of(received),
        seconds=Load.of(solved.work * seconds_per_flop),
        link_bytes=Load.of(links),
        task_bytes=Load.of(links + rows),
    )
