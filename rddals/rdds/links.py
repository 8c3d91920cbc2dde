"""Link blocks as RDDs: one pass over the ratings, one shuffle, two cached sides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from partitioners import Partitioner
from rddals.blocks.checked_blocks import check_placement, checked_blocks, sample_of
from rddals.blocks.links import LinkBlock, link
from rddals.blocks.popularity import Popularity
from rddals.blocks.sides import PRODUCTS, SIDE_NAMES, USERS
from rddals.errors import InconsistentRatingsError, RatingError, RddalsError
from rddals.rdds.lifetimes import materialise, storage_level, undo_on_failure
from rddals.rdds.scatter import Piece, own_ratings, scatter_ratings
from rddals.rdds.shuffles import Shuffle, co_partitioned, with_shuffle_serializer
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task

REMEDY = (
    "The RDD gives different ratings each time it is computed, as a random split or sample does "
    "(or a partitioner places the same id differently each time). Persist it, or better "
    "checkpoint() it or write it to files, and train on that."
)


class NoRatingsError(RatingError):
    """Raised if there are no ratings at all."""


@dataclass(frozen=True, slots=True)
class LinkSummary:
    """Summary of one link block, for the driver.

    Attributes
    ----------
    block, ids, ratings : int
        Number of the block, and its numbers of ids and ratings.
    receives : int
        Number of source rows that solving the block needs.
    sends : ndarray of int64, shape (destination blocks,)
        Number of its rows that each block of the other side needs.
    popular : Popularity
        The ids of the block with the most ratings.
    sample : ndarray of int32
        Some of its ids, from `sample_of`.
    digest : int
        Sum over its ratings, independent of their order.
    seconds : float
        Time to build the block.
    """

    block: int
    ids: int
    ratings: int
    receives: int
    sends: NDArray[np.int64]
    popular: Popularity
    sample: NDArray[np.int32]
    digest: int
    seconds: float

    @classmethod
    def of(cls, block: LinkBlock, seconds: float) -> LinkSummary:
        """Summarise a block."""
        in_block = block.in_block
        return cls(
            block=block.block,
            ids=len(in_block.ids),
            ratings=len(in_block.codes),
            receives=len(in_block.source_ids),
            sends=block.out_block.counts,
            popular=Popularity.of(in_block.ids[in_block.order], in_block.positives),
            sample=sample_of(in_block.ids),
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
        Maps the ids of this side to blocks.
    rdd : RDD of LinkBlock
        Persisted; partition b contains block b alone. Both sides have as many partitions as the
        larger number of blocks, so that rows sent to either side can be co-partitioned with it.
    summaries : tuple of LinkSummary
        One per block, in order.
    """

    side: int
    partitioner: Partitioner
    rdd: RDD[LinkBlock]
    summaries: tuple[LinkSummary, ...]

    @property
    def partitions(self) -> int:
        """Number of partitions of `rdd` and of any RDD co-partitioned with it."""
        return self.rdd.getNumPartitions()

    @property
    def name(self) -> str:
        """Either "users" or "products"."""
        return SIDE_NAMES[self.side]

    @property
    def popular(self) -> Popularity:
        """The ids of this side with the most ratings."""
        return Popularity.merged([summary.popular for summary in self.summaries])

    @property
    def digests(self) -> tuple[int, ...]:
        """Digest of every block, to check a block that is rebuilt."""
        return tuple(summary.digest for summary in self.summaries)


class LinkedRatings(NamedTuple):
    """Links of both sides, and the shuffle from which they are built, if there is one.

    Spark rebuilds a lost block from its lineage, which reaches back to the ratings' own source. The
    shuffle is stored as long as the links, so a lost block is rebuilt from it instead.
    """

    users: Links
    products: Links
    shuffle: Shuffle | None = None

    def release(self) -> None:
        """Free the links and the shuffle."""
        for links in (self.users, self.products):
            links.rdd.unpersist()
        if self.shuffle is not None:
            self.shuffle.release()


def build_links(
    source: RDD[Any],
    user_partitioner: Partitioner,
    product_partitioner: Partitioner,
    duplicates: str = "keep",
) -> LinkedRatings:
    """Read the ratings once and build both sides' link blocks from them.

    One shuffle sends every rating twice: to the block of its user and to the block of its product.
    Each side combines `duplicates` (several ratings for one user and product) by itself, in the
    same order. Raise `NoRatingsError`, `InconsistentRatingsError` if the sides have different
    ratings, `SettingError` if the driver places ids elsewhere than the workers, or the error of the
    first invalid rating.
    """
    sc = source.context
    partitioners = (user_partitioner, product_partitioner)
    sides: list[Links] = []
    with undo_on_failure() as undo, closing(TaskReports(sc)) as task_reports:
        shuffle = scatter_ratings(source, partitioners, task_reports)
        undo.callback(shuffle.release)
        for side in (USERS, PRODUCTS):
            rdd = with_shuffle_serializer(
                shuffle.rdd.mapPartitionsWithIndex(
                    partial(_link_partition, side, partitioners, duplicates, task_reports),
                    preservesPartitioning=True,
                )
            ).persist(storage_level(sc))
            undo.callback(rdd.unpersist)
            sides.append(Links(side, partitioners[side], rdd, ()))
        materialise(co_partitioned([links.rdd for links in sides]))
        for error in task_reports.take("error"):
            raise error
        for side in (USERS, PRODUCTS):
            summaries = one_per_block(task_reports.take(side), partitioners[side])
            sides[side] = Links(side, partitioners[side], sides[side].rdd, summaries)
        if sum(s.ratings for s in sides[USERS].summaries) == 0:
            raise NoRatingsError("RDD is empty: there is nothing to train on.")
        for links in sides:
            check_placement(
                links.partitioner, [(each.block, each.sample) for each in links.summaries]
            )
        same_ratings(*sides)
    return LinkedRatings(sides[USERS], sides[PRODUCTS], shuffle)


def one_per_block(reports: list[Any], partitioner: Partitioner) -> tuple[Any, ...]:
    """Return the reports as a tuple; raise RuntimeError unless there is one for each block.

    Spark can lose accumulator updates, which carry the reports, without an error.
    """
    if len(reports) != partitioner.num_blocks:
        raise RuntimeError(
            f"{len(reports)} of {partitioner.num_blocks} blocks sent a report: Spark lost "
            "accumulator updates. Start a new SparkContext."
        )
    return tuple(reports)


def same_ratings(users: Links, products: Links) -> None:
    """Raise `InconsistentRatingsError` unless both sides have the same ratings.

    Spark recomputes a source that is not persisted, and a random sample then differs.
    """
    counts = [sum(s.ratings for s in side.summaries) for side in (users, products)]
    sums = [sum(side.digests) % 2**64 for side in (users, products)]
    if counts[0] != counts[1] or sums[0] != sums[1]:
        raise InconsistentRatingsError(
            f"The user blocks have {counts[0]} ratings and the product blocks {counts[1]}"
            f"{' different ones' if counts[0] == counts[1] else ''}. {REMEDY}"
        )


def check_digest(block: LinkBlock, digest: int) -> None:
    """Raise `InconsistentRatingsError` if the digest of a block has changed.

    Spark rebuilds a lost block without notice, and its source may yield other ratings then.
    """
    if block.digest != digest:
        raise InconsistentRatingsError(
            f"Link block {block.block} was lost and rebuilt from different ratings. {REMEDY}"
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
            # This raises a clearer error if the other side's partitioner is at fault.
            checked_blocks(partitioners[1 - side], own.products if side == USERS else own.users)
            raise
    except RddalsError as error:
        task_reports.add("error", partition, error)
        return
    task_reports.add(side, partition, LinkSummary.of(block, perf_counter() - start))
    yield block
