"""What a half-step will move and hold, from the footprints of both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partitioners import Partitioner
from rddals.blocks.sides import SIDE_NAMES
from rddals.errors import SettingError
from rddals.exchange.choice import Choice, HalfStepSizes, bytes_moved
from rddals.kernels.flops import flops_of_mean
from rddals.planning.footprint import Footprint
from rddals.planning.message_size import JOIN_ENVELOPE, shuffled_bytes

__all__ = [
    "Load",
    "Plan",
    "PlannedHalfStep",
    "PlannedPlacement",
    "PlannedSide",
    "checked_exchanges",
    "half_step",
    "half_step_sizes",
    "half_steps",
    "link_bytes",
    "load_of",
    "several",
]

NAMES = ("shuffle", "broadcast", "join", "local")
FLOAT = 4


@dataclass(frozen=True, slots=True)
class Load:
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
        Messages from block to block; 0 for a broadcast, and where all is in one task.
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


@dataclass(frozen=True, slots=True)
class PlannedPlacement:
    """One way to place users and products, and what every exchange would make of it.

    Attributes
    ----------
    partitioner : str
        The partitioner's name, or both sides' where they differ.
    blocks : pair of int
        Of users and of products.
    fit_seconds : float
        What it took to fit the partitioners to the ratings.
    users, products : PlannedSide
        How evenly the work of solving either side is spread.
    half_steps : dict of str to pair of PlannedHalfStep
        By exchange: those in which users, and products, send.
    choice : Choice
        What ``exchange="auto"`` would take, and why.
    footprints : pair of Footprint or None
        Users' and products' counts, block by block, from which all this is; none if there were no
        ratings to count.
    """

    partitioner: str
    blocks: tuple[int, int]
    fit_seconds: float
    users: PlannedSide
    products: PlannedSide
    half_steps: dict[str, tuple[PlannedHalfStep, PlannedHalfStep]]
    choice: Choice
    footprints: tuple[Footprint, Footprint] | None = field(default=None, repr=False, compare=False)

    def rows_between(self, sender: str) -> NDArray[np.int64]:
        """How many rows each block sends to each block of the other side, by the shuffle.

        Parameters
        ----------
        sender : {"users", "products"}

        Returns
        -------
        ndarray of int64, shape (own blocks, other blocks)

        Raises
        ------
        SettingError
            For another sender, or if the plan was made without ratings.
        """
        if sender not in SIDE_NAMES:
            raise SettingError(f"sender must be users or products but got {sender!r}.")
        if self.footprints is None:
            raise SettingError("A plan made without ratings has no blocks; plan with ratings.")
        side = self.footprints[SIDE_NAMES.index(sender)]
        rows = np.zeros(len(side.ids) * side.other_blocks, np.int64)
        rows[side.pairs] = side.rows
        return rows.reshape(len(side.ids), side.other_blocks)

    def bytes_per_iteration(self, exchange: str) -> int:
        """At most so many bytes are moved by both half-steps together."""
        return sum(half_step.most_bytes for half_step in self.half_steps[exchange])


@dataclass(frozen=True, slots=True)
class Plan:
    """What trainings on some ratings would move.

    Attributes
    ----------
    rank, ratings, users, products, executors : int
    placements : tuple of PlannedPlacement
        Every partitioner with every number of blocks, in the order in which they were asked for.
    seconds : float
        What planning took.
    """

    rank: int
    ratings: int
    users: int
    products: int
    executors: int
    placements: tuple[PlannedPlacement, ...]
    seconds: float

    def document(self) -> dict[str, Any]:
        """All of it as JSON has it, but for the counts block by block."""
        summed = tuple(replace(placement, footprints=None) for placement in self.placements)
        document = asdict(replace(self, placements=summed))
        for placement in document["placements"]:
            del placement["footprints"]
        return document


def checked_exchanges(exchanges: Any) -> list[str]:
    """Names of exchanges, checked."""
    listed = several(exchanges)
    if not listed:
        raise SettingError("There is nothing to plan: exchanges are empty.")
    for name in listed:
        if name not in NAMES:
            raise SettingError(
                f"exchanges must be of {', '.join(NAMES)}, but got {name!r}; leave it out for all "
                "of them."
            )
    return listed


def several(values: Any) -> list[Any]:
    """The values of an argument that may be one."""
    if isinstance(values, (str, Partitioner)) or callable(values) or not np.iterable(values):
        return [values]
    return list(values)


def half_step_sizes(
    pair: tuple[Footprint, Footprint], rank: int, executors: int
) -> tuple[HalfStepSizes, HalfStepSizes]:
    """Sizes of the half-steps in which users, and products, send."""
    users, products = (
        HalfStepSizes(
            source_rows=int(side.ids.sum()),
            needed_rows=int(side.rows.sum()),
            ratings=int(side.ratings.sum()),
            rank=rank,
            executors=executors,
            blocks=len(other.ids),
            flops=sum(map(flops_of_mean, other.ids, other.ratings, repeat(rank))),
        )
        for side, other in zip(pair, pair[::-1], strict=True)
    )
    return users, products


def half_steps(
    exchange: str, pair: tuple[Footprint, Footprint], sizes: Sequence[HalfStepSizes]
) -> tuple[PlannedHalfStep, PlannedHalfStep]:
    """The half-steps in which users, and products, send."""
    users, products = (
        half_step(
            exchange,
            sender,
            own,
            len(side.rows),
            int(shuffled_bytes(side.rows, own.rank).sum()),
        )
        for sender, side, own in zip(SIDE_NAMES, pair, sizes, strict=True)
    )
    return users, products


def half_step(
    exchange: str, sender: str, sizes: HalfStepSizes, messages: int, shuffled: int
) -> PlannedHalfStep:
    """One half-step.

    Parameters
    ----------
    exchange, sender : str
    sizes : HalfStepSizes
    messages, shuffled : int
        Pairs of blocks that share a rating, and the bytes of what the shuffle sends between them.
    """
    payload = least = most = bytes_moved(sizes)[exchange]
    if exchange == "shuffle":
        sent, least, most = sizes.needed_rows, shuffled, shuffled
    elif exchange == "broadcast":
        sent, messages = sizes.source_rows * (1 + sizes.executors), 0
    elif exchange == "local":
        sent = messages = 0
    else:
        sent, most = sizes.ratings, payload + JOIN_ENVELOPE * messages
    return PlannedHalfStep(sender, sizes.source_rows, sent, messages, payload, least, most)


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
    received = source.received
    links = link_bytes(solved.ids, solved.ratings, received, solved.sent, solved.other_blocks)
    rows = FLOAT * rank * (received + solved.ids)
    return PlannedSide(
        ratings=Load.of(solved.ratings),
        rows=Load.of(received),
        seconds=Load.of(solved.work * seconds_per_flop),
        link_bytes=Load.of(links),
        task_bytes=Load.of(links + rows),
    )


def link_bytes(ids: Any, ratings: Any, received: Any, sent: Any, other_blocks: int) -> Any:
    """At most so many bytes has the link block (`rddals.blocks.links`) of a block with so many.

    Parameters
    ----------
    ids, ratings, received, sent : int or ndarray
        Ids, their ratings, rows that the block needs, and rows that it sends.
    other_blocks : int
    """
    positions = np.where(received < 1 << 16, 2, 4)
    return (
        20 * ids  # ids, their order, pointers and counts of positive ratings
        + (positions + FLOAT) * ratings  # or 3 bytes less, where few values occur
        + 4 * received
        + 4 * sent
        + 12 * other_blocks
    )
