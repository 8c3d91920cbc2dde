"""Properties of link blocks for any ratings and partitioners."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from partitioners import (
    DegreeBalancedPartitioner,
    FunctionPartitioner,
    HashPartitioner,
    Partitioner,
    RangePartitioner,
)
from rddals.blocks.links import link, ratings_digest
from rddals.blocks.ratings import RatingBlock

INT32 = st.integers(-(2**31), 2**31 - 1)
ids = st.one_of(st.integers(-6, 6), INT32)
stars = st.floats(-100, 100, width=32)
rating_lists = st.lists(st.tuples(ids, ids, stars), max_size=50)


class ParityPartitioner(Partitioner):
    """A custom partitioner: even ids in the last block, odd ids in the first."""

    def _place(self, ids):
        return np.where(ids & 1, 0, self.num_blocks - 1).astype(np.int32)


class TablePartitioner(Partitioner):
    """An arbitrary placement from a table of random blocks."""

    def __init__(self, num_blocks, table):
        super().__init__(num_blocks)
        self.table = np.array(table, dtype=np.int32) % num_blocks

    def _place(self, ids):
        return self.table[ids % len(self.table)]


@st.composite
def partitioners(draw, placed):
    """Draw a partitioner of any kind for these ids."""
    blocks = draw(st.integers(1, 9))
    distinct, counts = np.unique(np.array(placed, dtype=np.int64), return_counts=True)
    kinds = {
        "hash": lambda: HashPartitioner(blocks),
        "function": lambda: FunctionPartitioner(blocks, lambda id_: id_ // 2 % blocks),
        "own": lambda: ParityPartitioner(blocks),
        "any": lambda: TablePartitioner(
            blocks, draw(st.lists(st.integers(0, 8), min_size=1, max_size=30))
        ),
        "range": lambda: RangePartitioner.fit(distinct, blocks),
        "balanced": lambda: DegreeBalancedPartitioner.fit(distinct, counts, blocks),
    }
    if not placed:  # nothing to fit to
        del kinds["range"], kinds["balanced"]
    return kinds[draw(st.sampled_from(sorted(kinds)))]()


@st.composite
def problems(draw):
    """Draw ratings and the partitioners of users and products."""
    rows = draw(rating_lists)
    if draw(st.booleans()):
        rows = rows + rows[: len(rows) // 2]  # duplicates
    users, products, _ = zip(*rows, strict=True) if rows else ((), (), ())
    return RatingBlock.from_rows(rows), draw(partitioners(users)), draw(partitioners(products))


def triples(users, products, ratings):
    return sorted(zip(users.tolist(), products.tolist(), ratings.tolist(), strict=True))


def side_of(ratings, side, own_partitioner, other_partitioner):
    """Return the link blocks of one side and the ratings of each."""
    placed = own_partitioner.block_of((ratings.users, ratings.products)[side])
    parts = [
        RatingBlock(ratings.users[at], ratings.products[at], ratings.ratings[at])
        for at in (np.flatnonzero(placed == b) for b in range(own_partitioner.num_blocks))
    ]
    return [link(b, part, side, other_partitioner) for b, part in enumerate(parts)], parts


def sides(problem):
    ratings, users, products = problem
    return side_of(ratings, 0, users, products)[0], side_of(ratings, 1, products, users)[0]


def entries(in_block):
    """Return own ids, other ids and ratings of every entry."""
    own = in_block.ids[np.repeat(in_block.order, in_block.degrees)]
    return own, in_block.source_ids[in_block.sources], in_block.ratings


quick = settings(max_examples=150, deadline=None)


@given(problems())
@quick
def test_every_rating_is_in_exactly_one_in_block_of_each_side(problem):
    ratings = problem[0]
    whole = triples(ratings.users, ratings.products, ratings.ratings)
    for side, partitioner in enumerate(problem[1:]):
        collected = []
        for block in sides(problem)[side]:
            own, other, stars = entries(block.in_block)
            assert (partitioner.block_of(own) == block.block).all()
            collected += triples(own, other, stars) if side == 0 else triples(other, own, stars)
        assert sorted(collected) == whole


@given(problems())
@quick
def test_every_id_is_in_exactly_one_block(problem):
    ratings = problem[0]
    for blocks, column in zip(sides(problem), (ratings.users, ratings.products), strict=True):
        block_ids = np.concatenate([block.in_block.ids for block in blocks])
        assert sorted(block_ids.tolist()) == np.unique(column).tolist()


@given(problems())
@quick
def test_out_blocks_and_in_blocks_agree(problem):
    users, products = sides(problem)
    for senders, solvers in ((users, products), (products, users)):
        for solver in solvers:
            sent = [s.in_block.ids[s.out_block.rows_for(solver.block)] for s in senders]
            assert [len(rows) for rows in sent] == solver.in_block.source_counts.tolist()
            np.testing.assert_array_equal(np.concatenate(sent), solver.in_block.source_ids)
        for sender in senders:
            assert len(sender.out_block.counts) == len(solvers)
            assert sender.out_block.pointers[-1] == len(sender.out_block.positions)


@given(problems())
@quick
def test_every_sent_row_is_read(problem):
    for blocks in sides(problem):
        for block in blocks:
            read = np.unique(block.in_block.sources)
            np.testing.assert_array_equal(read, np.arange(len(block.in_block.source_ids)))


@given(problems(), st.randoms(use_true_random=False))
@quick
def test_block_digests_add_up_to_the_ratings_digest(problem, random):
    ratings = problem[0]
    order = list(range(len(ratings)))
    random.shuffle(order)
    shuffled = RatingBlock(
        *(column[order] for column in (ratings.users, ratings.products, ratings.ratings))
    )
    for blocks in sides((shuffled, *problem[1:])):
        total = sum(block.digest for block in blocks) % 2**64
        assert total == ratings_digest(ratings)


@given(problems())
@quick
def test_groups_hold_rows_of_similar_degree(problem):
    for blocks in sides(problem):
        for block in blocks:
            degrees = block.in_block.degrees
            covered = []
            for group in block.in_block.groups:
                covered += range(group.start, group.stop)
                assert group.width == degrees[group.stop - 1]
                assert degrees[group.start] * 1.05 >= group.width
            assert covered == list(range(len(degrees)))
