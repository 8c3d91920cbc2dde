"""Footprints against the link blocks of the same ratings."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from partitioners import HashPartitioner, RangePartitioner
from rddals.blocks.links import link
from rddals.blocks.ratings import RatingBlock
from rddals.kernels.flops import flops
from rddals.planning.footprint import Footprint, footprints
from rddals.planning.forecast import half_steps, load_of, sizes_of_footprints, traffic_of_footprints

RANK = 3
ids = st.integers(-20, 20)
rated = st.lists(st.tuples(ids, ids), min_size=1, max_size=60)
partitioners = st.one_of(
    st.builds(HashPartitioner, st.integers(1, 5)),
    st.builds(RangePartitioner, st.lists(ids, max_size=4).map(sorted)),
)


def linked(pairs, own, other, side):
    """Return the link blocks of one side."""
    columns = np.array(pairs, dtype=np.int32).T
    blocks = own.block_of(columns[side])
    return [
        link(
            block,
            RatingBlock(
                *(column[blocks == block] for column in columns),
                np.ones((blocks == block).sum(), dtype=np.float32),
            ),
            side,
            other,
        )
        for block in range(own.num_blocks)
    ]


def array_bytes(block):
    """Return the bytes of a link block's arrays, without the scale and the first pointers."""
    inner, outer = block.in_block, block.out_block
    arrays = [inner.ids, inner.order, inner.pointers[1:], inner.sources, inner.codes]
    arrays += [inner.positives, inner.source_ids, inner.source_counts]
    arrays += [outer.pointers[1:], outer.positions]
    return sum(array.nbytes for array in arrays)


@given(pairs=rated, users=partitioners, products=partitioners, cut=ids)
def test_footprints_match_the_link_blocks(pairs, users, products, cut):
    columns = np.array(pairs, dtype=np.int32).T
    blocks = [linked(pairs, users, products, 0), linked(pairs, products, users, 1)]
    placements = [(users, products), (products, users)]
    sides = []
    for side in (0, 1):
        own, other = columns[side], columns[1 - side]
        # However the ids are spread, the parts add up.
        parts = [
            footprints(own[part], other[part], [placements[side]], RANK)[0]
            for part in (own < cut, own >= cut)
        ]
        whole = Footprint.total(parts)
        sides.append(whole)
        links = blocks[side]
        counts = np.concatenate([b.out_block.counts for b in links])
        assert whole.pairs.tolist() == np.flatnonzero(counts).tolist()
        assert whole.rows.tolist() == counts[counts > 0].tolist()
        assert whole.sent.tolist() == [b.out_block.counts.sum() for b in links]
        assert whole.ids.tolist() == [len(b.in_block.ids) for b in links]
        assert whole.ratings.tolist() == [len(b.in_block.codes) for b in links]
        np.testing.assert_allclose(
            whole.work, [flops(b.in_block.degrees, RANK).sum() for b in links]
        )
    received = [[len(b.in_block.source_ids) for b in links] for links in blocks]
    for solved in (0, 1):
        load = load_of(sides[solved], sides[1 - solved], RANK, 1e-9)
        assert load.rows.most == max(received[solved])
        # The upper bound: with many distinct ratings each takes the four bytes of a float.
        sizes = [array_bytes(block) + 3 * len(block.in_block.codes) for block in blocks[solved]]
        assert load.link_bytes.most == max(sizes)
        assert load.rows.mean * len(received[solved]) == np.float64(sum(received[solved]))
    for sender, step in enumerate(
        half_steps(
            "shuffle", sizes_of_footprints(sides, RANK, 2), traffic_of_footprints(sides, RANK)
        )
    ):
        assert step.rows_sent == sum(received[1 - sender])
        assert step.records == sum(
            int(np.count_nonzero(block.out_block.counts)) for block in blocks[sender]
        )
        assert step.payload == 4 * RANK * step.rows_sent < step.least_bytes == step.most_bytes
