"""Placement of ids: the caller's request, and partitioners fitted to the ratings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from partitioners import (
    DegreeBalancedPartitioner,
    FunctionPartitioner,
    HashPartitioner,
    LocalityPartitioner,
    Partitioner,
    RangePartitioner,
)
from rddals.config import block_count
from rddals.errors import SettingError
from rddals.rdds.degrees import Degrees, collect_pairs, count_degrees

#: Data that a partitioner is fitted to: the number of ratings of each id, or all pairs of ids.
DEGREES, PAIRS = "degrees", "pairs"


def _range(degrees: Degrees, blocks: int) -> Partitioner:
    return RangePartitioner.fit(degrees.ids, blocks)


def _balanced(degrees: Degrees, blocks: int) -> Partitioner:
    return DegreeBalancedPartitioner.fit(degrees.ids, degrees.counts, blocks)


def _locality(pairs: tuple[NDArray[np.int32], NDArray[np.int32]], blocks: int) -> Partitioner:
    return LocalityPartitioner.fit(*pairs, blocks)


#: Names of the partitioners that are fitted to the ratings: the data they need, and the fit.
FITTED: dict[str, tuple[str, Callable[[Any, int], Partitioner]]] = {
    "range": (DEGREES, _range),
    "balanced": (DEGREES, _balanced),
    "locality": (PAIRS, _locality),
}
#: Names of all partitioners.
PARTITIONERS = ("hash", *FITTED)


@dataclass(frozen=True, slots=True)
class Placement:
    """Requested placement of the ids of one side.

    Attributes
    ----------
    requested : Partitioner, callable or str
        A partitioner, a function from id to block, or one of `PARTITIONERS`.
    blocks : int or None
        Number of blocks; None for the default.
    """

    requested: Any
    blocks: int | None

    @property
    def needs_degrees(self) -> bool:
        """Whether the partitioner is fitted to the number of ratings of each id."""
        return self._needs == DEGREES

    @property
    def needs_pairs(self) -> bool:
        """Whether the partitioner is fitted to the pairs of user and product."""
        return self._needs == PAIRS

    @property
    def _needs(self) -> str | None:
        return FITTED[self.requested][0] if self._is_fitted else None

    @property
    def _is_fitted(self) -> bool:
        return isinstance(self.requested, str) and self.requested in FITTED

    @property
    def name(self) -> str:
        """Name of the partitioner, for reports."""
        if isinstance(self.requested, str):
            return self.requested
        if isinstance(self.requested, Partitioner):
            return type(self.requested).__name__
        return str(getattr(self.requested, "__name__", type(self.requested).__name__))

    def partitioner(
        self,
        default: int,
        degrees: Degrees | None = None,
        pairs: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None,
    ) -> Partitioner:
        """Return the partitioner; those in `FITTED` are fitted to the ratings.

        Parameters
        ----------
        default : int
            Number of blocks if none is requested.
        degrees : Degrees, optional
            Degrees of this side's ids, if `needs_degrees`.
        pairs : pair of ndarray of int32, optional
            This side's and the other side's id of every rating, if `needs_pairs`.
        """
        blocks = self.blocks or default
        if isinstance(self.requested, Partitioner):
            return self.requested
        if callable(self.requested):
            return FunctionPartitioner(blocks, self.requested)
        if not self._is_fitted:
            return HashPartitioner(blocks)
        needs, fit = FITTED[self.requested]
        data = degrees if needs == DEGREES else pairs
        assert data is not None
        return fit(data, blocks)


def checked_placement(name: str, requested: Any, blocks: int | None, blocks_name: str) -> Placement:
    """Validate a caller's partitioner and number of blocks.

    Parameters
    ----------
    name, blocks_name : str
        Names of the caller's arguments, for the message.

    Raises
    ------
    SettingError
        If they are of the wrong type or contradict each other.
    """
    if isinstance(requested, Partitioner):
        if blocks is not None and blocks != requested.num_blocks:
            raise SettingError(
                f"{name} has {requested.num_blocks} blocks but {blocks} were requested. "
                f"Leave out {blocks_name}, or make them equal."
            )
        return Placement(requested, requested.num_blocks)
    if requested is None:
        return Placement("hash", blocks)
    if callable(requested) or (isinstance(requested, str) and requested in PARTITIONERS):
        return Placement(requested, blocks)
    raise SettingError(
        f"{name} must be a Partitioner, a function from id to block, or one of "
        f"{', '.join(PARTITIONERS)}, but got {requested!r}."
    )


class Placements:
    """Requested placement of the ids of both sides."""

    def __init__(
        self, blocks: Any, user_blocks: Any, product_blocks: Any, user: Any, product: Any
    ) -> None:
        both = block_count("Number of blocks", blocks)
        self.sides = (
            checked_placement(
                "userPartitioner",
                user,
                block_count("userBlocks", user_blocks) or both,
                "userBlocks and blocks",
            ),
            checked_placement(
                "productPartitioner",
                product,
                block_count("productBlocks", product_blocks) or both,
                "productBlocks and blocks",
            ),
        )

    def partitioners(self, source: RDD[Any]) -> tuple[Partitioner, Partitioner]:
        """Return both sides' partitioners, fitted to the ratings if necessary."""
        default = max(source.context.defaultParallelism, source.getNumPartitions() // 2)
        degrees: Sequence[Degrees | None] = (None, None)
        if any(placement.needs_degrees for placement in self.sides):
            degrees = count_degrees(source)
        pairs = None
        if any(placement.needs_pairs for placement in self.sides):
            pairs = collect_pairs(source)
        users, products = self.sides
        return (
            users.partitioner(default, degrees[0], pairs),
            products.partitioner(default, degrees[1], pairs and pairs[::-1]),
        )
