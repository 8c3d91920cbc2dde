"""Link blocks as RDDs: one pass over the ratings, one shuffle, two cached sides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from partitioners import Partitioner
from rddals.blocks.checked_placement import checked_blocks
from rddals.blocks.links import LinkBlock, link
from rddals.blocks.popularity import Popularity
from rddals.blocks.sides import PRODUCTS, SIDE_NAMES, USERS
from rddals.errors import InconsistentRatingsError, RatingError, RddalsError
from rddals.rdds.lifetimes import materialise, storage_level
from rddals.rdds.scatter import Piece, own_ratings, scatter_ratings
from rddals.rdds.shuffles import Shuffle, co_partitioned, with_shuffle_serializer
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task

__all__ = [
    "REMEDY",
    "LinkSummary",
    "LinkedRatings",
    "Links",
    "NoRatingsError",
    "build_links",
    "check_digest",
    "one_per_block",
    "same_ratings",
]

REMEDY = (
    "The RDD gives different ratings when it is computed again, as one made by a random split or "
    "sample does (or a partitioner places the same id differently each time). Persist it, or "
    "better checkpoint() it or write it to files, and train on that."
)


class NoRatingsError(RatingError):
    """There is not a single rating."""


@dataclass(frozen=True, slots=True)
class LinkSummary:
    """What the driver knows of one link block.

    Attributes
    ----------
    block, ids, ratings : int
        The block's number, how many ids it holds and how many ratings they have.
    receives : int
        Source rows that it needs when it is solved.
    sends : ndarray of int64, shape (destination blocks,)
        Rows of its own that each block of the other side needs.
    popular : Popularity
        Which of its ids have the most ratings.
    digest : int
        A sum over its ratings that does not depend on their order.
    seconds : float
        What its building took.
    """

    block: int
    ids: int
    ratings: int
    receives: int
    sends: NDArray[np.int64]
    popular: Popularity
    digest: int
    seconds: float

    @classmethod
    def of(cls, block: LinkBlock, seconds: float) -> LinkSummary:
        """Sum up a block."""
        in_block = block.in_block
        return cls(
            block=block.block,
            ids=len(in_block.ids),
            ratings=len(in_block.codes),
            receives=len(in_block.source_ids),
            sends=block.out_block.counts,
            popular=Popularity.of(in_block.ids[in_block.order], in_block.positives),
            digest=block.digest,
            seconds=seconds,
        )


@dataclass(frozen=True, slots=True)
class Links:
    """The link blocks of one side.

    Attributes
    ----------
    side : int
        `USERS` or `PRODUCTS`.
    partitioner : Partitioner
        Places the ids of this side.
    rdd : RDD of LinkBlock
        Persisted; block b is all that partition b holds. Both sides have as many partitions as
        the side with more blocks has blocks, so that what is sent to either can be co-partitioned
        with it.
    summaries : tuple of LinkSummary
        One per block, in order.
    """

    side: int
    partitioner: Partitioner
    rdd: RDD[LinkBlock]
    summaries: tuple[LinkSummary, ...]

    @property
    def partitions(self) -> int:
        """Partitions of `rdd` and of anything co-partitioned with it."""
        return self.rdd.getNumPartitions()

    @property
    def name(self) -> str:
        """Either "users" or "products"."""
        return SIDE_NAMES[self.side]

    @property
    def popular(self) -> Popularity:
        """Which ids of this side have the most ratings."""
        return Popularity.merged([summary.popular for summary in self.summaries])

    @property
    def digests(self) -> tuple[int, ...]:
        """What every block's ratings must add up to, should it be rebuilt."""
        return tuple(summary.digest for summary in self.summaries)


class LinkedRatings(NamedTuple):
    """Both sides' links, and the shuffle they were built from.

    The shuffle stays as long as the links do: a link block that is lost is rebuilt from it, not
    from the ratings' own source.
    """

    users: Links
    products: Links
    shuffle: Shuffle

    def release(self) -> None:
        """Free all of it."""
        for links in (self.users, self.products):
            links.rdd.unpersist()
        self.shuffle.release()


def build_links(
    source: RDD[Any],
    user_partitioner: Partitioner,
    product_partitioner: Partitioner,
    duplicates: str = "keep",
) -> LinkedRatings:
    """Read the ratings once and build both sides' link blocks from them.

    Every rating is shuffled twice, once to the block of its user and once to the block of its
    product, in one shuffle. The two sides that are cached are the only copies of the ratings.
    What `duplicates` makes of several ratings for one user and product, both sides make of them
    for themselves, in the same order.

    Raises
    ------
    RatingError, RatingTypeError
        For the first rating that cannot be trained on, or where there is none.
    InconsistentRatingsError
        If the two sides do not describe the same ratings.
    """
    sc = source.context
    partitioners = (user_partitioner, product_partitioner)
    task_reports = TaskReports(sc)
    shuffle = scatter_ratings(source, partitioners, task_reports)
    built: list[Links] = []
    try:
        for side in (USERS, PRODUCTS):
            rdd = with_shuffle_serializer(
                shuffle.rdd.mapPartitionsWithIndex(
                    partial(_link_partition, side, partitioners, duplicates, task_reports),
                    preservesPartitioning=True,
                )
            ).persist(storage_level(sc))
            built.append(Links(side, partitioners[side], rdd, ()))
        materialise(co_partitioned([links.rdd for links in built]))
        for error in task_reports.take("error"):
            raise error
        for side in (USERS, PRODUCTS):
            summaries = one_per_block(task_reports.take(side), partitioners[side])
            built[side] = Links(side, partitioners[side], built[side].rdd, summaries)
        if sum(s.ratings for s in built[USERS].summaries) == 0:
            raise NoRatingsError("RDD is empty: there is nothing to train on.")
        same_ratings(*built)
    except BaseException:
        for links in built:
            links.rdd.unpersist()
        shuffle.release()
        raise
    finally:
        task_reports.close()
    return LinkedRatings(built[USERS], built[PRODUCTS], shuffle)


def one_per_block(reports: list[Any], partitioner: Partitioner) -> tuple[Any, ...]:
    """The reports, of which there must be one for each block."""
    if len(reports) != partitioner.num_blocks:
        raise RuntimeError(
            f"{len(reports)} of {partitioner.num_blocks} blocks have reported; Spark lost "
            "accumulator updates. Start a new SparkContext."
        )
    return tuple(reports)


def same_ratings(users: Links, products: Links) -> None:
    """Raise `InconsistentRatingsError` unless both sides hold the same ratings."""
    counts = [sum(s.ratings for s in side.summaries) for side in (users, products)]
    sums = [sum(side.digests) % 2**64 for side in (users, products)]
    if counts[0] != counts[1] or sums[0] != sums[1]:
        raise InconsistentRatingsError(
            f"The user blocks hold {counts[0]} ratings and the product blocks {counts[1]}"
            f"{' others' if counts[0] == counts[1] else ''}. {REMEDY}"
        )


def check_digest(block: LinkBlock, digest: int) -> None:
    """Raise `InconsistentRatingsError` if a block that was rebuilt is not what it was."""
    if block.digest != digest:
        raise InconsistentRatingsError(
            f"Link block {block.block} was lost and rebuilt from other ratings than before. "
            f"{REMEDY}"
        )


@spark_task
def _link_partition(
    side: int,
    partitioners: tuple[Partitioner, Partitioner],
    duplicates: str,
    task_reports: TaskReports,
    partition: int,
    pieces: Iterable[tuple[int, Piece]],
) -> Iterator[LinkBlock]:
    start = perf_counter()
    try:
        own = own_ratings(pieces, side, duplicates)
        if partition >= partitioners[side].num_blocks:  # the other side has more blocks
            return
        try:
            block = link(partition, own, side, partitioners[1 - side])
        except Exception:
            # If the other side's partitioner is at fault, this says how.
            checked_blocks(partitioners[1 - side], own.products if side == USERS else own.users)
            raise
    except RddalsError as error:
        task_reports.add("error", partition, error)
        return
    task_reports.add(side, partition, LinkSummary.of(block, perf_counter() - start))
    yield block
