import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_variants import VARIANTS, using
from rddals.kernels.items import Excluded, ItemIndex
from rddals.kernels.topk import pair_scores, top_k

KINDS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    # Few distinct scores, so that ties abound at every place.
    "integers": lambda rng, shape: rng.integers(-2, 3, size=shape),
    "nonnegative": lambda rng, shape: rng.integers(0, 2, size=shape),
    # Equal to about 7 digits: float32 scores cannot rank them.
    "close": lambda rng, shape: 1 + rng.integers(0, 4, size=shape) * 2.0**-23,
    # Norms far apart, so that whole tiles are out of reach.
    "spread": lambda rng, shape: rng.normal(size=shape) * 2.0 ** rng.integers(-9, 9, (shape[0], 1)),
    # Products underflow float32.
    "tiny": lambda rng, shape: rng.normal(size=shape) * 1e-22,
}


@st.composite
def problems(draw):
    n = draw(st.integers(0, 10))
    m = draw(st.integers(0, 150))
    rank = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    queries = KINDS[draw(st.sampled_from(sorted(KINDS)))](rng, (n, rank))
    rows = KINDS[draw(st.sampled_from(sorted(KINDS)))](rng, (m, rank))
    if m and draw(st.booleans()):
        rows = rows[rng.integers(0, m, m)]  # Duplicates.
    ids = rng.choice(np.arange(-m, m), m, replace=False) if m else np.empty(0)
    return queries.astype(np.float32), ids.astype(np.int32), rows.astype(np.float32)


each_variant = pytest.mark.parametrize("variant", VARIANTS)
ks = st.integers(0, 30) | st.integers(0, 160)
# From 24 items on, the peaks of a tile cover several items.
tiles = st.tuples(st.integers(1, 12), st.integers(1, 8) | st.sampled_from([24, 50, 100, 128, 200]))


def reference(queries, ids, rows, k):
    scores = pair_scores(queries[:, None], rows)
    order = np.lexsort((np.broadcast_to(ids, scores.shape), -scores))[:, :k]
    return ids[order], np.take_along_axis(scores, order, axis=1)


@each_variant
@given(problems(), ks, tiles)
def test_top_k_equals_the_full_sort_for_any_tiles(variant, problem, k, tile):
    with using(variant):
        queries, ids, rows = problem
        index = ItemIndex.build(ids, rows)
        got_ids, got_scores = top_k(queries, index, k, query_tile=tile[0], item_tile=tile[1])
        want_ids, want_scores = reference(queries, ids, rows, k)
        np.testing.assert_array_equal(got_ids, want_ids)
        np.testing.assert_array_equal(got_scores, want_scores)


@each_variant
@given(problems(), ks, tiles, st.integers(0, 2**32 - 1))
def test_order_of_items_does_not_matter(variant, problem, k, tile, seed):
    with using(variant):
        queries, ids, rows = problem
        shuffle = np.random.default_rng(seed).permutation(len(ids))
        ordered = top_k(queries, ItemIndex.build(ids, rows), k)
        shuffled = top_k(
            queries,
            ItemIndex.build(ids[shuffle], rows[shuffle]),
            k,
            query_tile=tile[0],
            item_tile=tile[1],
        )
        np.testing.assert_array_equal(ordered[0], shuffled[0])
        np.testing.assert_array_equal(ordered[1], shuffled[1])


@each_variant
@given(problems(), ks, st.integers(0, 20), tiles)
def test_smaller_k_is_a_prefix_of_larger_k(variant, problem, k, more, tile):
    with using(variant):
        queries, ids, rows = problem
        index = ItemIndex.build(ids, rows)
        few = top_k(queries, index, k, query_tile=tile[0], item_tile=tile[1])
        many = top_k(queries, index, k + more)
        np.testing.assert_array_equal(few[0], many[0][:, :k])
        np.testing.assert_array_equal(few[1], many[1][:, :k])


@each_variant
@given(problems(), ks)
def test_query_result_does_not_depend_on_other_queries(variant, problem, k):
    with using(variant):
        queries, ids, rows = problem
        index = ItemIndex.build(ids, rows)
        together = top_k(queries, index, k)
        for i in range(len(queries)):
            alone = top_k(queries[i : i + 1], index, k)
            np.testing.assert_array_equal(alone[0][0], together[0][i])
            np.testing.assert_array_equal(alone[1][0], together[1][i])


@each_variant
@given(problems(), ks, tiles, st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_excluded_pairs_are_ignored(variant, problem, k, tile, share, seed):
    with using(variant):
        queries, ids, rows = problem
        out = np.random.default_rng(seed).random((len(queries), len(ids))) < share
        pairs = out.nonzero()
        again = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(pairs[0])), 2))
        index = ItemIndex.build(ids, rows)
        unknown = np.array([2**40])
        excluded = Excluded.of(
            np.append(pairs[0][again], unknown * 0), np.append(ids[pairs[1][again]], unknown), index
        )
        got_ids, got_scores = top_k(
            queries, index, k, excluded=excluded, query_tile=tile[0], item_tile=tile[1]
        )
        for query, row_out, best, scores in zip(queries, out, got_ids, got_scores, strict=True):
            want_ids, want_scores = reference(query[None], ids[~row_out], rows[~row_out], k)
            count = want_ids.shape[1]
            np.testing.assert_array_equal(best[:count], want_ids[0])
            np.testing.assert_array_equal(scores[:count], want_scores[0])
            assert (scores[count:] == -np.inf).all()
