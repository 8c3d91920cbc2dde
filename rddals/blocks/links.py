"""In-blocks and out-blocks: which block needs which factor rows, as flat arrays.

A half-step solves the *destination* side from the factors of the *source* side. Each block of
ids has an `InBlock`, used when it is solved, and an `OutBlock`, used when it sends rows. Each block
builds both from the ratings of its own ids, without communication. Source block s and destination
block d agree on the rows that move between them: those of the ids of s that share a rating with an
id of d.

Source rows are in canonical order: by source block, then by id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from partitioners import Partitioner
from partitioners.splitmix import GOLDEN_GAMMA, mix
from rddals.blocks.codes import encode_ratings
from rddals.blocks.ratings import RatingBlock

#: Largest relative difference between the degrees of a padded batch.
PADDING = 0.04
#: Ratings hashed at a time, so that they fit the CPU cache.
DIGEST_CHUNK = 1 << 15


class Group(NamedTuple):
    """Rows `start` to `stop`, with at most `width` ratings each, solved in batches."""

    # Not a dataclass: a block has dozens of groups, and a tuple unpickles ten times faster.

    start: int
    stop: int
    width: int


@dataclass(frozen=True, slots=True)
class InBlock:
    """Ratings of one block, laid out for solving.

    Rows are in ascending order of degree, so that rows of equal degree are contiguous and a reshape
    makes a batch of them. Row ``i`` belongs to ``ids[order[i]]`` and holds entries
    ``pointers[i]:pointers[i + 1]`` of `sources` and `ratings`.

    If a block has at most 256 distinct ratings, each is stored as one byte, its position in
    `scale`, because every half-step reads the ratings from Spark's cache.

    Attributes
    ----------
    ids : ndarray of int32, shape (n,)
        Ids of this block, in ascending order.
    order : ndarray of int32, shape (n,)
        Position in `ids` of the id of each row.
    pointers : ndarray of int64, shape (n + 1,)
        First entry of each row, and the number of entries.
    sources : ndarray of uint16 or int32, shape (nnz,)
        Positions in the source rows that this block receives.
    codes : ndarray of uint8 or float32, shape (nnz,)
        Positions in `scale`, or the ratings themselves if `scale` is None.
    scale : ndarray of float32, shape (at most 256,), or None
        Distinct ratings.
    positives : ndarray of int32, shape (n,)
        Ratings above zero per row, which weight the implicit penalty.
    source_ids : ndarray of int32, shape (m,)
        Ids whose rows this block receives, in canonical order.
    source_counts : ndarray of int32, shape (source blocks,)
        Rows received from each source block.
    groups : tuple of Group
        Rows solved together, determined by the degrees.
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
        """Ratings per row, in ascending order; shape (n,)."""
        return np.diff(self.pointers)

    @property
    def ratings(self) -> NDArray[np.float32]:
        """All ratings, row by row; shape (nnz,)."""
        return self.ratings_of(slice(None))

    def ratings_of(self, entries: slice) -> NDArray[np.float32]:
        """Return the ratings of a slice of entries."""
        codes: NDArray[Any] = self.codes[entries]
        return codes if self.scale is None else self.scale.take(codes)


@dataclass(frozen=True, slots=True)
class OutBlock:
    """Rows of a block that each destination block needs.

    Destination block ``d`` needs rows ``positions[pointers[d]:pointers[d + 1]]``, which ascend.
    """

    pointers: NDArray[np.int64]
    positions: NDArray[np.int32]

    def rows_for(self, destination: int) -> NDArray[np.int32]:
        """Return the local positions of the rows that block `destination` needs."""
        return self.positions[self.pointers[destination] : self.pointers[destination + 1]]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of rows that each destination block needs."""
        return np.diff(self.pointers)


@dataclass(frozen=True, slots=True)
class LinkBlock:
    """In-block, out-block and digest of one block.

    Attributes
    ----------
    block : int
        Block number.
    side : int
        0 for users, 1 for products.
    in_block : InBlock
    out_block : OutBlock
    digest : int
        Order-independent sum over the ratings of `in_block`.
    sending : InBlock, optional
        Ratings whose ids send rows, if they differ from those of `in_block`.
    """

    block: int
    side: int
    in_block: InBlock
    out_block: OutBlock
    digest: int
    sending: InBlock | None = None

    @property
    def sender(self) -> InBlock:
        """In-block of the ids whose rows are sent."""
        return self.in_block if self.sending is None else self.sending

    @property
    def ids(self) -> NDArray[np.int32]:
        """Ids whose rows are sent, in ascending order; `out_block` holds positions in them."""
        return self.sender.ids


def link(block: int, own: RatingBlock, side: int, other_partitioner: Partitioner) -> LinkBlock:
    """Build the links of one block from all ratings of its ids, in any order, and no others."""
    own_column, other_column = (own.users, own.products) if side == 0 else (own.products, own.users)
    ids, row_of = distinct(own_column)
    other_ids, other_of = distinct(other_column)
    other_blocks = other_partitioner.block_of(other_ids)

    canonical = np.argsort(other_blocks, kind="stable")  # ids already ascend within a block
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
    codes, scale = encode_ratings(ratings)
    in_block = InBlock(
        ids=ids,
        order=order.astype(np.int32),
        pointers=pointers,
        # The index after the last one is used for padding, so it must fit too.
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
    blocks = other_partitioner.num_blocks
    sent, needing = needed_rows(row_of, other_of, other_blocks, len(ids), blocks)
    sent_counts = np.bincount(needing, minlength=blocks)
    out_block = OutBlock(
        pointers=np.concatenate([[0], np.cumsum(sent_counts)]).astype(np.int64),
        positions=sent.astype(np.int32),
    )
    return LinkBlock(block, side, in_block, out_block, ratings_digest(own))


def ratings_digest(ratings: RatingBlock) -> int:
    """Return a 64-bit sum over the ratings, the same in any order and for any split.

    Each rating is mixed by the finaliser of SplitMix64, so two different multisets of ratings
    agree with probability 2^-64.
    """
    total = 0
    for start in range(0, len(ratings), DIGEST_CHUNK):
        part = slice(start, start + DIGEST_CHUNK)
        mixed = ratings.users[part].astype(np.int64).view(np.uint64) << np.uint64(32)
        mixed |= ratings.products[part].view(np.uint32)
        for word in (ratings.ratings[part].view(np.uint32), GOLDEN_GAMMA):
            mixed += word
            mix(mixed)
        total += int(mixed.sum(dtype=np.uint64))
    return total % 2**64


def distinct(ids: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the distinct ids in ascending order, and the position of every entry in them."""
    if not len(ids):
        return ids, np.empty(0, dtype=np.int64)
    low, high = int(ids.min()), int(ids.max())
    if high - low > 8 * len(ids):
        distinct, inverse = np.unique(ids, return_inverse=True)
        return distinct, inverse.astype(np.int64, copy=False)
    # Dense ids need no sort: a table over their range marks those that are present.
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
    """Return the positions and ratings of all entries, sorted by slot, position and rating.

    An entry has slot ``slot_of[row_of]`` and position ``position_of[other_of]``.
    """
    bits = ratings.view(np.uint32)
    width = max(len(position_of) - 1, 1).bit_length()
    if len(slot_of) <= 1 << (32 - width):
        # Sorting integers with the rating in their low half is about ten times faster than sorting
        # an index.
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
    """Return every distinct pair of a row and a block that needs it, by block and then by row.

    `row_of` and `other_of` have the row of every rating, and the position of its other id in
    `other_blocks`, the blocks of the other side's ids. `rows` and `blocks` are numbers of them.
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


def _groups(degrees: NDArray[Any]) -> tuple[Group, ...]:
    """Return the groups of rows that are solved together; `degrees` are ascending."""
    groups = []
    start = 0
    while start < len(degrees):
        widest = int(degrees[start] * (1 + PADDING))
        stop = int(np.searchsorted(degrees, widest, side="right"))
        groups.append(Group(start, stop, int(degrees[stop - 1])))
        start = stop
    return tuple(groups)
