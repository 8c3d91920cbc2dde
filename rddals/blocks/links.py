"""In- and out-links: who needs which factor row, as flat arrays.

A half-step solves the *destination* side from the factors of the *source* side. Each block of
ids has an `InBlock` for when it is solved and an `OutBlock` for when it sends. Both follow from
the ratings of the block's own ids alone, so two blocks agree on what travels between them
without ever talking to each other: what block s holds for block d is "the ids of s that rate, or
are rated by, an id of d", seen from either end.

Rows arrive in one canonical order: by source block, and by id within it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from partitioners import Partitioner
from rddals.blocks.codes import coded
from rddals.blocks.ratings import RatingBlock

__all__ = [
    "Group",
    "InBlock",
    "LinkBlock",
    "OutBlock",
    "distinct",
    "link",
    "needed_rows",
    "ratings_digest",
]

#: Rows whose degrees lie this close together are solved as one padded batch.
PADDING = 0.04
#: Ratings whose digest is made at a time: they stay in a cache.
DIGESTED = 1 << 15


class Group(NamedTuple):
    """Rows `start` to `stop`, of at most `width` ratings each, to be solved in batches."""

    # No dataclass: a block has dozens, and a tuple is unpickled in a tenth of the time.

    start: int
    stop: int
    width: int


@dataclass(frozen=True, slots=True)
class InBlock:
    """What one block solves.

    Rows are kept by rising degree, so that rows of equal degree are neighbours and batch by a
    reshape. Row ``i`` belongs to ``ids[order[i]]`` and holds entries
    ``pointers[i]:pointers[i + 1]`` of `sources` and `ratings`.

    Ratings are mostly stars or counts: where a block has no more than 256 different ones, each
    takes a byte, its place in `scale`. Every half-step reads them from Spark's cache again.

    Attributes
    ----------
    ids : ndarray of int32, shape (n,)
        The ids of this block, ascending.
    order : ndarray of int32, shape (n,)
    pointers : ndarray of int64, shape (n + 1,)
    sources : ndarray of uint16 or int32, shape (nnz,)
        Positions into the source rows this block receives.
    codes : ndarray of uint8 or float32, shape (nnz,)
        Positions into `scale`, or the ratings themselves if there is none.
    scale : ndarray of float32, shape (at most 256,), or None
    positives : ndarray of int32, shape (n,)
        How many ratings of row ``i`` are above zero: the count that weighs the implicit penalty.
    source_ids : ndarray of int32, shape (m,)
        The ids whose rows this block receives, in canonical order.
    source_counts : ndarray of int32, shape (source blocks,)
        How many of them come from each source block.
    groups : tuple of Group
        The batches' boundaries; they depend on the degrees alone.
    """

    ids: NDArray[np.int32]
    order: NDArray[np.int32]
    pointers: NDArray[np.int64]
    sources: NDArray[Any]
    codes: NDArray[Any]
    scale: NDArray[np.float32] | None
    positives: NDArray[np.int32]
    source_ids: NDArray[np.int32]
    source_counts: NDArray[np.int32]
    groups: tuple[Group, ...]

    @property
    def degrees(self) -> NDArray[np.int64]:
        """Ratings per row, ascending; shape (n,)."""
        return np.diff(self.pointers)

    @property
    def ratings(self) -> NDArray[np.float32]:
        """All ratings, row by row; shape (nnz,)."""
        return self.ratings_of(slice(None))

    def ratings_of(self, entries: slice) -> NDArray[np.float32]:
        """The ratings of some entries."""
        codes: NDArray[Any] = self.codes[entries]
        return codes if self.scale is None else self.scale.take(codes)


@dataclass(frozen=True, slots=True)
class OutBlock:
    """Which rows of a block each destination block needs.

    Destination block ``d`` needs rows ``positions[pointers[d]:pointers[d + 1]]``, ascending.
    """

    pointers: NDArray[np.int64]
    positions: NDArray[np.int32]

    def rows_for(self, destination: int) -> NDArray[np.int32]:
        """Local positions of the rows that block `destination` needs."""
        return self.positions[self.pointers[destination] : self.pointers[destination + 1]]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows needed by each destination block."""
        return np.diff(self.pointers)


@dataclass(frozen=True, slots=True)
class LinkBlock:
    """All that one block knows.

    Attributes
    ----------
    block : int
        Its number.
    side : int
        0 if its ids are users, 1 if products.
    in_block : InBlock
    out_block : OutBlock
    digest : int
        A sum over the ratings that are solved, whatever their order.
    sending : InBlock, optional
        The ratings that are sent for, by id, where these are not those that are solved.
    """

    block: int
    side: int
    in_block: InBlock
    out_block: OutBlock
    digest: int
    sending: InBlock | None = None

    @property
    def sender(self) -> InBlock:
        """The ratings whose ids' rows are sent."""
        return self.in_block if self.sending is None else self.sending

    @property
    def ids(self) -> NDArray[np.int32]:
        """The ids whose rows are sent, ascending; `out_block` counts among them."""
        return self.sender.ids


def link(block: int, own: RatingBlock, side: int, other_partitioner: Partitioner) -> LinkBlock:
    """The links of one block, from the ratings of its ids.

    The result does not depend on the order of the ratings.

    Parameters
    ----------
    block : int
    own : RatingBlock
        Every rating of every id of this block, and no other.
    side : int
        0 if the block holds users, 1 if products.
    other_partitioner : Partitioner
        Places the ids of the other side.
    """
    mine, others = (own.users, own.products) if side == 0 else (own.products, own.users)
    ids, row_of = distinct(mine)
    other_ids, other_of = distinct(others)
    other_blocks = other_partitioner.block_of(other_ids)

    canonical = np.argsort(other_blocks, kind="stable")  # ids ascend within a block already
    position_of = np.empty(len(canonical), dtype=np.int64)
    position_of[canonical] = np.arange(len(canonical))

    degrees = np.bincount(row_of, minlength=len(ids))
    order = np.argsort(degrees, kind="stable")
    slot_of = np.empty(len(ids), dtype=np.int64)
    slot_of[order] = np.arange(len(ids))

    sources, ratings = _sorted_entries(slot_of, row_of, position_of, other_of, own.ratings)
    pointers = np.concatenate([[0], np.cumsum(degrees[order])]).astype(np.int64)
    positives = np.zeros(len(ids), dtype=np.int32)
    if (ratings > 0).all():
        positives[:] = degrees[order]
    else:
        positives[:] = np.add.reduceat(ratings > 0, pointers[:-1], dtype=np.int32)
    codes, scale = coded(ratings)
    in_block = InBlock(
        ids=ids,
        order=order.astype(np.int32),
        pointers=pointers,
        # An index one past the last stands for padding, so that must fit too.
        sources=sources.astype(np.uint16 if len(other_ids) < 2**16 else np.int32),
        codes=codes,
        scale=scale,
        positives=positives,
        source_ids=other_ids[canonical],
        source_counts=np.bincount(other_blocks, minlength=other_partitioner.num_blocks).astype(
            np.int32
        ),
        groups=_groups(degrees[order]),
    )
    out_block = _out_block(row_of, other_of, other_blocks, len(ids), other_partitioner.num_blocks)
    return LinkBlock(block, side, in_block, out_block, ratings_digest(own))


def ratings_digest(ratings: RatingBlock) -> int:
    """A 64-bit sum over the ratings that is the same in any order and for any split.

    Each rating is mixed by the finaliser of splitmix64 (Steele, Lea and Flood, 2014), so that
    two different multisets of ratings agree only by a chance of 2^-64.
    """
    total = 0
    for start in range(0, len(ratings), DIGESTED):
        part = slice(start, start + DIGESTED)
        mixed = ratings.users[part].astype(np.int64).view(np.uint64) << np.uint64(32)
        mixed |= ratings.products[part].view(np.uint32)
        for word in (ratings.ratings[part].view(np.uint32), np.uint64(0x9E3779B97F4A7C15)):
            mixed += word
            mixed ^= mixed >> np.uint64(30)
            mixed *= np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(27)
            mixed *= np.uint64(0x94D049BB133111EB)
            mixed ^= mixed >> np.uint64(31)
        total += int(mixed.sum(dtype=np.uint64))
    return total % 2**64


def distinct(ids: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Distinct ids, ascending, and the position of every entry among them."""
    if not len(ids):
        return ids, np.empty(0, dtype=np.int64)
    low, high = int(ids.min()), int(ids.max())
    if high - low > 8 * len(ids):
        distinct, inverse = np.unique(ids, return_inverse=True)
        return distinct, inverse.astype(np.int64, copy=False)
    # Ids that lie close together need no sort: a table of the range tells which there are.
    offsets = ids.astype(np.int64) - low
    present = np.zeros(high - low + 1, dtype=bool)
    present[offsets] = True
    distinct = (np.flatnonzero(present) + low).astype(np.int32)
    return distinct, (np.cumsum(present) - 1)[offsets]


def _sorted_entries(
    slot_of: NDArray[np.int64],
    row_of: NDArray[np.int64],
    position_of: NDArray[np.int64],
    other_of: NDArray[np.int64],
    ratings: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Positions and ratings of all entries, sorted by slot, position and rating.

    An entry has slot ``slot_of[row_of]`` and position ``position_of[other_of]``.
    """
    bits = ratings.view(np.uint32)
    width = max(len(position_of) - 1, 1).bit_length()
    if len(slot_of) <= 1 << (32 - width):
        # One sort of plain integers carries the rating along in the low half: about ten times
        # faster than sorting an index.
        packed = (slot_of.astype(np.uint64) << np.uint64(32 + width)).take(row_of)
        packed |= (position_of.astype(np.uint64) << np.uint64(32)).take(other_of)
        packed |= bits
        packed.sort()
        ratings = packed.astype(np.uint32).view(np.float32)
        packed >>= np.uint64(32)
        packed &= np.uint64((1 << width) - 1)
        return packed.view(np.int64), ratings
    positions = position_of[other_of]
    entries = np.lexsort((bits, positions, slot_of[row_of]))
    return positions[entries], ratings[entries]


def needed_rows(
    row_of: NDArray[np.int64],
    other_of: NDArray[np.int64],
    other_blocks: NDArray[Any],
    rows: int,
    blocks: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which rows which blocks need: every such pair once, by block and then by row.

    Parameters
    ----------
    row_of, other_of : ndarray of int64, shape (nnz,)
        The row of every rating, and where its other id is among `other_blocks`.
    other_blocks : ndarray of int, shape (ids of the other side,)
        The block of each.
    rows, blocks : int
        How many there are.

    Returns
    -------
    tuple of ndarray of int64
        Rows, and the blocks that need them.
    """
    pairs = (other_blocks.astype(np.int64) * rows).take(other_of)
    pairs += row_of
    if blocks * rows <= 8 * len(pairs):
        needed = np.zeros(blocks * rows, dtype=bool)
        needed[pairs] = True
        pairs = np.flatnonzero(needed)
    else:
        pairs = np.unique(pairs)
    return pairs % max(rows, 1), pairs // max(rows, 1)


def _out_block(
    row_of: NDArray[np.int64],
    other_of: NDArray[np.int64],
    other_blocks: NDArray[Any],
    rows: int,
    blocks: int,
) -> OutBlock:
    positions, needing = needed_rows(row_of, other_of, other_blocks, rows, blocks)
    counts = np.bincount(needing, minlength=blocks)
    return OutBlock(
        pointers=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        positions=positions.astype(np.int32),
    )


def _groups(degrees: NDArray[Any]) -> tuple[Group, ...]:
    """Boundaries of rows that batch together; `degrees` ascend."""
    groups = []
    start = 0
    while start < len(degrees):
        widest = int(degrees[start] * (1 + PADDING))
        stop = int(np.searchsorted(degrees, widest, side="right"))
        groups.append(Group(start, stop, int(degrees[stop - 1])))
        start = stop
    return tuple(groups)
