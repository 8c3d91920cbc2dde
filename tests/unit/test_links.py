import pickle

import numpy as np
import pytest

import small_matrix as small
from partitioners import FunctionPartitioner, HashPartitioner, RangePartitioner
from rddals.blocks.links import link, ratings_digest
from rddals.blocks.ratings import RatingBlock

SMALL = RatingBlock.from_rows(small.RATINGS)


def random_ratings(n, users, products, seed=0):
    rng = np.random.default_rng(seed)
    return RatingBlock.from_columns(
        (users * rng.random(n) ** 2).astype(np.int32) - users // 3,
        (products * rng.random(n) ** 2).astype(np.int32),
        rng.integers(-2, 6, n).astype(np.float32),
    )


def take(ratings, rows):
    return RatingBlock(ratings.users[rows], ratings.products[rows], ratings.ratings[rows])


def links_of(ratings, user_partitioner, product_partitioner):
    """Return the link blocks of both sides."""
    users, products = user_partitioner, product_partitioner
    return (
        [
            link(b, take(ratings, users.block_of(ratings.users) == b), 0, products)
            for b in range(users.num_blocks)
        ],
        [
            link(b, take(ratings, products.block_of(ratings.products) == b), 1, users)
            for b in range(products.num_blocks)
        ],
    )


def entries(in_block):
    """Return the ratings of a block as (own id, other id, rating), sorted."""
    own = in_block.ids[np.repeat(in_block.order, in_block.degrees)]
    other = in_block.source_ids[in_block.sources]
    return sorted(zip(own.tolist(), other.tolist(), in_block.ratings.tolist(), strict=True))


def arrays(link_block):
    i, o = link_block.in_block, link_block.out_block
    names = [
        "ids",
        "order",
        "pointers",
        "sources",
        "codes",
        "positives",
        "source_ids",
        "source_counts",
    ]
    scale = np.empty(0) if i.scale is None else i.scale
    fields = {n: getattr(i, n) for n in names}
    return {**fields, "scale": scale, "out": o.positions, "out_pointers": o.pointers}


PLACEMENTS = {
    "hash": (HashPartitioner(3), HashPartitioner(3)),
    "unequal": (HashPartitioner(2), RangePartitioner.fit(SMALL.products, 5)),
    "one": (HashPartitioner(1), HashPartitioner(1)),
    "more blocks than ids": (HashPartitioner(20), HashPartitioner(1)),
    "lopsided": (FunctionPartitioner(4, lambda id_: 2), FunctionPartitioner(3, lambda id_: 0)),
}
RATINGS = {
    "small": SMALL,
    "random": random_ratings(500, 40, 60),
    "duplicates": random_ratings(300, 5, 6),
    "one": RatingBlock.from_rows([(-7, 3, 2.0)]),
    "none": RatingBlock.empty(),
}


@pytest.fixture(params=PLACEMENTS)
def placement(request):
    return PLACEMENTS[request.param]


@pytest.fixture(params=RATINGS)
def some_ratings(request):
    return RATINGS[request.param]


def test_out_blocks_match_in_blocks(some_ratings, placement):
    sides = links_of(some_ratings, *placement)
    for senders, solvers in (sides, sides[::-1]):
        for source in senders:
            for solver in solvers:
                sent = source.in_block.ids[source.out_block.rows_for(solver.block)]
                stops = np.cumsum(solver.in_block.source_counts)
                start = stops[source.block] - solver.in_block.source_counts[source.block]
                expected = solver.in_block.source_ids[start : stops[source.block]]
                np.testing.assert_array_equal(sent, expected)
                assert (np.diff(sent) > 0).all()
        assert [len(s.out_block.counts) for s in senders] == [len(solvers)] * len(senders)


def test_only_needed_rows_are_sent(some_ratings, placement):
    users, products = links_of(some_ratings, *placement)
    for source in users:
        for solver in products:
            sent = set(source.in_block.ids[source.out_block.rows_for(solver.block)].tolist())
            rated = {
                u
                for u, p in zip(some_ratings.users, some_ratings.products, strict=True)
                if placement[0].block_of([u])[0] == source.block
                and placement[1].block_of([p])[0] == solver.block
            }
            assert sent == rated


def test_every_rating_is_in_one_in_block_of_each_side(some_ratings, placement):
    users, products = links_of(some_ratings, *placement)
    expected = sorted(zip(*(c.tolist() for c in columns(some_ratings)), strict=True))
    assert sorted(t for b in users for t in entries(b.in_block)) == expected
    flipped = [(u, p, r) for b in products for p, u, r in entries(b.in_block)]
    assert sorted(flipped) == expected


def columns(ratings):
    return ratings.users, ratings.products, ratings.ratings


def test_in_block_arrays_are_consistent(some_ratings, placement):
    for blocks in links_of(some_ratings, *placement):
        for block in blocks:
            b = block.in_block
            assert (np.diff(b.ids) > 0).all()
            assert sorted(b.order.tolist()) == list(range(len(b.ids)))
            assert b.pointers[0] == 0 and b.pointers[-1] == len(b.ratings) == len(b.sources)
            assert (b.degrees > 0).all() and (np.diff(b.degrees) >= 0).all()
            assert b.source_counts.sum() == len(b.source_ids)
            for row in range(len(b.ids)):
                own = slice(b.pointers[row], b.pointers[row + 1])
                assert b.positives[row] == (b.ratings[own] > 0).sum()
                assert (np.diff(b.sources[own].astype(int)) >= 0).all()


def test_groups_cover_the_rows_in_order(some_ratings, placement):
    for blocks in links_of(some_ratings, *placement):
        for block in blocks:
            b = block.in_block
            at = 0
            for group in b.groups:
                assert group.start == at < group.stop
                widths = b.degrees[group.start : group.stop]
                assert group.width == widths.max()
                assert widths.min() * 1.05 >= widths.max()
                at = group.stop
            assert at == len(b.ids)


def test_links_do_not_depend_on_the_order_of_ratings(some_ratings, placement):
    rng = np.random.default_rng(3)
    shuffled = take(some_ratings, rng.permutation(len(some_ratings)))
    for before, after in zip(
        links_of(some_ratings, *placement), links_of(shuffled, *placement), strict=True
    ):
        for a, b in zip(before, after, strict=True):
            assert a.digest == b.digest
            assert a.in_block.groups == b.in_block.groups
            for name, array in arrays(a).items():
                np.testing.assert_array_equal(array, arrays(b)[name], err_msg=name)


def test_small_matrix():
    # Users 2, 8, 12 and 40 are even, so in block 0; -3, 7 and 31 are in block 1.
    even, odd = links_of(SMALL, HashPartitioner(2), HashPartitioner(2))[0]
    assert even.in_block.ids.tolist() == [2, 8, 12, 40]
    assert odd.in_block.ids.tolist() == [-3, 7, 31]
    assert even.in_block.order.tolist() == [0, 1, 2, 3]  # degrees 2, 2, 3, 3
    assert odd.in_block.order.tolist() == [0, 2, 1]  # degrees 2, 3 and 6: -3, 31, then 7
    assert odd.in_block.pointers.tolist() == [0, 2, 5, 11]
    # Products 10, 42, 60 and 90 are even and come first; 11, 15, 23 and 57 are odd.
    assert odd.in_block.source_ids.tolist() == [10, 60, 90, 11, 15, 23, 57]
    assert odd.in_block.source_counts.tolist() == [3, 4]
    assert odd.in_block.sources.tolist() == [3, 5, 0, 2, 6, 0, 1, 3, 4, 5, 6]
    assert odd.in_block.ratings.tolist() == [5, 4, 3, 2, 5, 5, 3, 2, 4, 5, 1]
    # Of the odd users, 7 and 31 rate even products; all three rate odd ones.
    assert odd.out_block.rows_for(0).tolist() == [1, 2]
    assert odd.out_block.rows_for(1).tolist() == [0, 1, 2]


def test_duplicates_are_retained():
    ratings = RatingBlock.from_rows([(1, 5, 2.0), (1, 5, 2.0), (1, 5, 4.0), (2, 5, 1.0)])
    block = link(0, ratings, 0, HashPartitioner(1)).in_block
    assert entries(block) == [(1, 5, 2.0), (1, 5, 2.0), (1, 5, 4.0), (2, 5, 1.0)]
    assert block.degrees.tolist() == [1, 3]
    assert block.source_ids.tolist() == [5]


def test_empty_block():
    block = link(2, RatingBlock.empty(), 0, HashPartitioner(3))
    assert len(block.in_block.ids) == len(block.in_block.source_ids) == 0
    assert block.in_block.groups == ()
    assert block.in_block.pointers.tolist() == [0]
    assert block.in_block.source_counts.tolist() == [0, 0, 0]
    assert [len(block.out_block.rows_for(d)) for d in range(3)] == [0, 0, 0]


def test_ids_at_the_ends_of_int32():
    low, high = -(2**31), 2**31 - 1
    rows = [(low, high, 1.0), (high, low, 2.0), (0, low, 3.0)]
    block = link(0, RatingBlock.from_rows(rows), 0, HashPartitioner(2)).in_block
    assert entries(block) == sorted(rows)


@pytest.mark.parametrize("products", [2**16 - 2, 2**16 - 1, 2**16, 2**16 + 1])
def test_positions_take_two_bytes_while_they_fit(products):
    # One position more than there are source rows is needed: padding points past the last.
    ids = np.arange(products, dtype=np.int32)
    ratings = RatingBlock.from_columns(np.zeros_like(ids), ids, np.ones(products))
    block = link(0, ratings, 0, HashPartitioner(1)).in_block
    assert block.sources.dtype == (np.uint16 if products < 2**16 else np.int32)
    np.testing.assert_array_equal(block.sources, ids)


@pytest.mark.parametrize("products", [300, 200_000])
def test_link_block_size(products):
    # At most 8 bytes per rating; 32 for each id that is solved, received or sent to a block.
    ratings = random_ratings(50_000, 400, products, seed=1)
    partitioner = HashPartitioner(4)
    block = link(0, ratings, 0, partitioner)
    b = block.in_block
    assert b.sources.nbytes + b.codes.nbytes <= 8 * len(ratings)
    total = sum(array.nbytes for array in arrays(block).values())
    per_id = 24 * (len(b.ids) + 1) + 4 * len(b.source_ids) + 4 * len(block.out_block.positions)
    per_block = 4 * 4 + 8 * 5 + 4 * 256
    assert total <= 8 * len(ratings) + per_id + per_block
    assert len(pickle.dumps(block, protocol=5)) <= total + 200 * len(b.groups) + 4096


@pytest.mark.parametrize(
    ("values", "coded"),
    [
        (np.arange(0.5, 5.5, 0.5), True),
        (np.arange(256), True),
        (np.arange(257), False),
        ([0.0, -0.0, 1e-45, -3.0], True),
    ],
)
def test_up_to_256_rating_values_take_a_byte_each(values, coded):
    values = np.asarray(values, dtype=np.float32)
    # Rare values come last, so the first ratings do not reveal them.
    ratings = np.concatenate([np.repeat(values[:1], 10_000), values])
    own = RatingBlock(
        np.arange(len(ratings), dtype=np.int32), np.ones(len(ratings), np.int32), ratings
    )
    block = link(0, own, 0, HashPartitioner(1)).in_block
    assert block.codes.dtype == (np.uint8 if coded else np.float32)
    assert (block.scale is not None) == coded
    # Bit by bit: -0.0 stays -0.0.
    np.testing.assert_array_equal(block.ratings.view(np.uint32), ratings.view(np.uint32))
    np.testing.assert_array_equal(block.ratings_of(slice(9_999, 10_001)), ratings[9_999:10_001])


def test_digest_ignores_order_and_split():
    ratings = RATINGS["random"]
    shuffled = take(ratings, np.random.default_rng(0).permutation(len(ratings)))
    assert ratings_digest(ratings) == ratings_digest(shuffled)
    halves = [take(ratings, slice(None, 123)), take(ratings, slice(123, None))]
    assert ratings_digest(ratings) == sum(map(ratings_digest, halves)) % 2**64
    assert ratings_digest(RatingBlock.empty()) == 0


@pytest.mark.parametrize(
    "other",
    [
        [(1, 2, 3.0), (2, 1, 4.5)],  # a rating
        [(1, 2, 3.0), (3, 1, 4.0)],  # a user
        [(1, 2, 3.0), (2, -1, 4.0)],  # a product
        [(2, 1, 3.0), (2, 1, 4.0)],  # user and product exchanged
        [(1, 2, 4.0), (2, 1, 3.0)],  # ratings exchanged
        [(1, 1, 3.0), (2, 2, 4.0)],  # products exchanged
        [(1, 2, 3.0)],
        [(1, 2, 3.0), (2, 1, 4.0), (2, 1, 4.0)],
        [(1, 2, 3.0), (2, 1, -4.0)],
        [(0, 0, 0.0), (1, 2, 3.0), (2, 1, 4.0)],
    ],
)
def test_digest_detects_any_change(other):
    ratings = RatingBlock.from_rows([(1, 2, 3.0), (2, 1, 4.0)])
    assert ratings_digest(ratings) != ratings_digest(RatingBlock.from_rows(other))


def test_digests_of_similar_ratings_do_not_cancel():
    # All pairs of a grid, summed two by two: a weak mix would collide.
    users, products = (axis.ravel() for axis in np.mgrid[0:60, 0:60])
    singles = [
        ratings_digest(RatingBlock.from_columns([u], [p], [1]))
        for u, p in zip(users, products, strict=True)
    ]
    assert len(set(singles)) == 3600
    some = np.array(singles[:600], dtype=np.uint64)
    sums = (some[:, None] + some)[np.triu_indices(600)]
    assert len(np.unique(sums)) == len(sums)


def test_link_blocks_pickle():
    block = links_of(SMALL, *PLACEMENTS["hash"])[0][1]
    copy = pickle.loads(pickle.dumps(block))
    assert (copy.block, copy.digest) == (block.block, block.digest)
    for name, array in arrays(block).items():
        np.testing.assert_array_equal(array, arrays(copy)[name])


def test_sort_with_more_cells_than_32_bits():
    """Sorting takes another path then, which must give the same order."""
    rng = np.random.default_rng(3)
    size = 1 << 17
    users = rng.permutation(size).astype(np.int32)
    products = rng.permutation(size).astype(np.int32)
    ratings = rng.integers(1, 6, size).astype(np.float32)
    extra = rng.integers(0, size, (2, 500)).astype(np.int32)
    block = RatingBlock(
        np.append(users, extra[0]),
        np.append(products, extra[1]),
        np.append(ratings, ratings[:500]),
    )
    in_block = link(0, block, 0, HashPartitioner(3)).in_block
    slots = np.repeat(np.arange(len(in_block.ids)), in_block.degrees)
    entries = np.lexsort((in_block.ratings, in_block.sources, slots))
    assert (entries == np.arange(len(entries))).all()
    ids, sources = in_block.ids[in_block.order[slots]], in_block.source_ids[in_block.sources]
    actual = np.stack([ids, sources, in_block.ratings])
    expected = np.stack([block.users, block.products, block.ratings])
    actual, expected = (each[:, np.lexsort(each)] for each in (actual, expected))
    np.testing.assert_array_equal(actual, expected)
