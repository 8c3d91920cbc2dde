"""Data movement and load of half-steps, computed from the footprints of both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partitioners import Partitioner
from rddals.blocks.sides import SIDE_NAMES
from rddals.errors import SettingError
from rddals.exchange.choice import Choice, HalfStepSizes, bytes_moved, half_step_sizes
from rddals.planning.footprint import Footprint
from rddals.planning.message_size import JOIN_ENVELOPE, shuffled_bytes

NAMES = ("shuffle", "broadcast", "join", "local")
FLOAT = 4


@dataclass(frozen=True, slots=True)
class Load:
    """Mean and maximum of a quantity over blocks."""

    mean: float
    most: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> Load:
        """Summarise the values of all blocks."""
        return cls(float(values.mean()), float(values.max()))


@dataclass(frozen=True, slots=True)
class PlannedHalfStep:
    """Data movement of one half-step under one exchange.

    Attributes
    ----------
    sender : {"users", "products"}
        Side whose rows move. The other side is solved.
    rows_held, rows_sent : int
        Rows of the sender, and rows received. A row that three blocks need is received three times.
    records : int
        Messages between blocks; 0 for a broadcast, and if all blocks are in one task.
    payload : int
        Bytes of rows, and of ratings if they move as well.
    least_bytes, most_bytes : int
        Bounds on the bytes that Spark moves, including its overhead per message, without
        compression. Equal and exact for the shuffle; equal to `payload` for a broadcast.
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
        """Mean number of times that a row is sent."""
        return self.rows_sent / max(self.rows_held, 1)


@dataclass(frozen=True, slots=True)
class PlannedSide:
    """Distribution of the work of solving one side over its blocks.

    Attributes
    ----------
    ratings, rows : Load
        Ratings of a block, and source rows that it needs.
    seconds : Load
        Estimated time of solving a block on one core of this machine.
    link_bytes : Load
        Size of the cached link block.
    task_bytes : Load
        Memory of a task: the link block, the rows that it needs and the rows that it solves.
    """

    ratings: Load
    rows: Load
    seconds: Load
    link_bytes: Load
    task_bytes: Load


@dataclass(frozen=True, slots=True)
class PlannedPlacement:
    """Plan of one placement of users and products, for every exchange.

    Attributes
    ----------
    partitioner : str
        Name of the partitioner, or of both partitioners if they differ.
    blocks : pair of int
        Blocks of users and of products.
    fit_seconds : float
        Time to fit the partitioners to the ratings.
    users, products : PlannedSide
        Distribution of the work of solving either side.
    half_steps : dict of str to pair of PlannedHalfStep
        Half-steps in which users, and products, send rows, by exchange.
    choice : Choice
        Exchange that ``exchange="auto"`` would choose, and the reason.
    footprints : pair of Footprint or None
        Counts of users and of products per block, or None for a plan without ratings.
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
        """Return the rows that each block sends to each block of the other side in a shuffle.

        Parameters
        ----------
        sender : {"users", "products"}
            Side whose rows move.

        Returns
        -------
        ndarray of int64, shape (own blocks, other blocks)

        Raises
        ------
        SettingError
            If `sender` is invalid, or the plan was made without ratings.
        """
        if sender not in SIDE_NAMES:
            raise SettingError(f"sender must be users or products but got {sender!r}.")
        if self.footprints is None:
            raise SettingError(
                "A plan without ratings has no rows by block. Make the plan from ratings."
            )
        side = self.footprints[SIDE_NAMES.index(sender)]
        rows = np.zeros(len(side.ids) * side.other_blocks, np.int64)
        rows[side.pairs] = side.rows
        return rows.reshape(len(side.ids), side.other_blocks)

    def bytes_per_iteration(self, exchange: str) -> int:
        """Return an upper bound on the bytes that both half-steps move."""
        return sum(half_step.most_bytes for half_step in self.half_steps[exchange])


@dataclass(frozen=True, slots=True)
class Plan:
    """Expected data movement of trainings on given ratings.

    Attributes
    ----------
    rank, ratings, users, products, executors : int
        Rank, and numbers of ratings, users, products and executors.
    placements : tuple of PlannedPlacement
        Every partitioner with every number of blocks, in the requested order.
    seconds : float
        Time that planning took.
    """

    rank: int
    ratings: int
    users: int
    products: int
    executors: int
    placements: tuple[PlannedPlacement, ...]
    seconds: float

    def document(self) -> dict[str, Any]:
        """Return the plan as a JSON document, without `footprints`."""
        summed = tuple(replace(placement, footprints=None) for placement in self.placements)
        document = asdict(replace(self, placements=summed))
        for placement in document["placements"]:
            del placement["footprints"]
        return document


def checked_exchanges(exchanges: Any) -> list[str]:
    """Return the names of exchanges as a list, or raise `SettingError`."""
    listed = as_list(exchanges)
    if not listed:
        raise SettingError(
            "There is nothing to plan: exchanges are empty. Pass at least one exchange."
        )
    for name in listed:
        if name not in NAMES:
            raise SettingError(
                f"exchanges must be of {', '.join(NAMES)}, but got {name!r}. Omit the argument to "
                "plan all of them."
            )
    return listed


def as_list(values: Any) -> list[Any]:
    """Return the values of an argument that may be a single value."""
    if isinstance(values, (str, Partitioner)) or callable(values) or not np.iterable(values):
        return [values]
    return list(values)


def sizes_of_footprints(
    pair: tuple[Footprint, Footprint], rank: int, executors: int
) -> tuple[HalfStepSizes, HalfStepSizes]:
    """Return the sizes of the half-steps in which users, and products, send rows."""
    return half_step_sizes(
        [side.ids.tolist() for side in pair],
        [side.ratings.tolist() for side in pair],
        [int(side.rows.sum()) for side in pair],
        rank,
        executors,
    )


def traffic_of_footprints(pair: tuple[Footprint, Footprint], rank: int) -> list[tuple[int, int]]:
    """Return the messages and bytes that a shuffle sends in each half-step."""
    return [(len(side.rows), int(shuffled_bytes(side.rows, rank).sum())) for side in pair]


def half_steps(
    exchange: str, sizes: Sequence[HalfStepSizes], traffic: Sequence[tuple[int, int]]
) -> tuple[PlannedHalfStep, PlannedHalfStep]:
    """Return the planned half-steps in which users, and products, send rows.

    `traffic` is, for each, the pairs of blocks that share a rating, and the bytes that a shuffle
    sends between them.
    """
    users, products = (
        _half_step(exchange, sender, own, *sent)
        for sender, own, sent in zip(SIDE_NAMES, sizes, traffic, strict=True)
    )
    return users, products


def _half_step(
    exchange: str, sender: str, sizes: HalfStepSizes, messages: int, shuffled: int
) -> PlannedHalfStep:
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
    """Return the distribution of the work of solving one side, while the source side sends rows."""
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
    """Return an upper bound on the bytes of a link block (`rddals.blocks.links`).

    `ids`, `ratings`, `received` and `sent` rows are numbers, or arrays with one number per block.
    """
    positions = np.where(received < 1 << 16, 2, 4)
    return (
        20 * ids  # ids, their order, pointers and counts of positive ratings
        + (positions + FLOAT) * ratings  # 3 bytes less if few values occur
        + 4 * received
        + 4 * sent
        + 12 * other_blocks
    )
