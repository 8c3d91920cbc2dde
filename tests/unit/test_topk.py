import pickle
import re

import numpy as np
import pytest

from kernel_variants import VARIANTS, using
from rddals.errors import OverflowingRatingsError
from rddals.kernels import native, scan, topk
from rddals.kernels.items import Excluded, ItemIndex
from rddals.kernels.topk import pair_scores, top_k


@pytest.fixture(params=VARIANTS, autouse=True)
def variant(request):
    with using(request.param):
        yield request.param


def as_rows(values):
    return np.array(values, dtype=np.float32)


def as_ids(values):
    return np.array(values, dtype=np.int32)


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def reference(queries, ids, rows, k):
    """Score every pair and sort each row by falling score, then by rising id."""
    scores = [pair_scores(query, rows) for query in queries]
    order = [np.lexsort((ids, -s))[:k] for s in scores]
    top_ids = [ids[o] for o in order]
    top_scores = [s[o] for s, o in zip(scores, order, strict=True)]
    return top_ids, top_scores


def check(queries, ids, rows, k, **tiles):
    got_ids, got_scores = top_k(queries, ItemIndex.build(ids, rows), k, **tiles)
    shape = (len(queries), min(k, len(ids)))
    assert (got_ids.shape, got_ids.dtype) == (shape, np.int32)
    assert (got_scores.shape, got_scores.dtype) == (shape, np.float64)
    want_ids, want_scores = reference(queries, ids, rows, k)
    np.testing.assert_array_equal(got_ids, np.reshape(want_ids, shape))
    np.testing.assert_array_equal(got_scores, np.reshape(want_scores, shape))
    columns = ItemIndex.build(ids, rows, columns=True)
    for row, query in enumerate(queries):
        alone_ids, alone_scores = top_k(query[None], columns, k, **tiles)
        np.testing.assert_array_equal(alone_ids[0], want_ids[row])
        np.testing.assert_array_equal(alone_scores[0], want_scores[row])


# Items 7 and 3 tie for the first query; all scores of the second query are negative.
QUERIES = as_rows([[1, 1], [-1, -2]])
IDS = as_ids([7, 3, 5])
ROWS = as_rows([[2, 1], [1, 2], [1, 0]])


def test_known_answer():
    ids, scores = top_k(QUERIES, ItemIndex.build(IDS, ROWS), 2)
    assert ids.tolist() == [[3, 7], [5, 7]]
    assert scores.tolist() == [[3.0, 3.0], [-1.0, -4.0]]


@pytest.mark.parametrize("k", [3, 4, 100])
def test_k_of_all_items_or_more_sorts_all(k):
    ids, scores = top_k(QUERIES, ItemIndex.build(IDS, ROWS), k)
    assert ids.tolist() == [[3, 7, 5], [5, 7, 3]]
    assert scores.tolist() == [[3.0, 3.0, 1.0], [-1.0, -4.0, -5.0]]


@pytest.mark.parametrize(
    ("n", "m", "k", "shape"),
    [(4, 6, 0, (4, 0)), (0, 6, 3, (0, 3)), (4, 0, 3, (4, 0)), (0, 0, 0, (0, 0))],
)
def test_empty_input(n, m, k, shape):
    index = ItemIndex.build(np.arange(m, dtype=np.int32), normal((m, 2)))
    ids, scores = top_k(normal((n, 2)), index, k)
    assert (ids.shape, ids.dtype) == (shape, np.int32)
    assert (scores.shape, scores.dtype) == (shape, np.float64)


@pytest.mark.parametrize("rank", [1, 2, 17])
@pytest.mark.parametrize("k", [1, 10, 100, 399, 400])
@pytest.mark.parametrize("tiles", [(512, 2048), (7, 128), (20, 100), (1, 9)])
def test_top_k_equals_the_full_sort(rank, k, tiles):
    ids = np.random.default_rng(1).permutation(400).astype(np.int32) - 200
    query_tile, item_tile = tiles
    check(
        normal((20, rank)),
        ids,
        normal((400, rank), seed=2),
        k,
        query_tile=query_tile,
        item_tile=item_tile,
    )


@pytest.mark.parametrize("n", [1, 3, 4, 16, 17, 33, 48, 49, 100])
@pytest.mark.parametrize("m", [17, 700])
def test_any_number_of_queries(n, m):
    check(normal((n, 5)), np.arange(m, dtype=np.int32), normal((m, 5), seed=1), 7, item_tile=300)


def test_large_k_of_several_tiles():
    check(normal((3, 8)), np.arange(5000, dtype=np.int32), normal((5000, 8), seed=1), 1000)


def test_pair_scores_are_float64_dot_products():
    left, right = normal((6, 50)), normal((6, 50), seed=1)
    want = [np.dot(a.astype(float), b.astype(float)) for a, b in zip(left, right, strict=True)]
    np.testing.assert_allclose(pair_scores(left, right), want, rtol=1e-13)


@pytest.mark.parametrize("rank", [1, 3, 50, 301])
def test_a_pair_scores_the_same_in_any_batch(rank):
    query, rows = normal(rank), normal((5000, rank), seed=1)
    alone = [pair_scores(query, row) for row in rows]
    repeated = pair_scores(np.tile(query, (5000, 1)), rows)
    folded = pair_scores(query, rows.reshape(50, 100, rank)).ravel()
    by_column = pair_scores(query, np.asfortranarray(rows))
    np.testing.assert_array_equal(repeated, alone)
    np.testing.assert_array_equal(folded, alone)
    np.testing.assert_array_equal(by_column, alone)


@pytest.mark.parametrize("item_tile", [1, 5, 64, 2048])
def test_all_scores_equal_gives_the_smallest_ids(item_tile):
    ids = np.random.default_rng(0).permutation(200).astype(np.int32) - 100
    index = ItemIndex.build(ids, np.ones((200, 3), np.float32))
    got, scores = top_k(np.ones((4, 3), np.float32), index, 5, item_tile=item_tile)
    assert got.tolist() == [[-100, -99, -98, -97, -96]] * 4
    assert (scores == 3.0).all()


@pytest.mark.parametrize("item_tile", [5, 2048])
def test_a_zero_query_gets_the_smallest_ids(item_tile):
    ids = np.random.default_rng(0).permutation(200).astype(np.int32)
    check(as_rows([[0, 0], [1, 0]]), ids, normal((200, 2)), 7, item_tile=item_tile)


@pytest.mark.parametrize("item_tile", [1, 7, 64, 2048])
def test_equal_items_are_ordered_by_id(item_tile):
    """Twenty copies each of five items: the k-th place falls inside a run of equal scores."""
    rows = np.tile(normal((5, 50)), (20, 1))
    ids = np.random.default_rng(1).permutation(100).astype(np.int32)
    check(normal((9, 50), seed=2), ids, rows, 10, item_tile=item_tile)


def test_scores_that_differ_only_in_float64():
    """In float32 all items score 1; in float64 the later ones score a little more."""
    rows = np.ones((300, 2), np.float32)
    rows[:, 1] = np.arange(300) * 2.0**-40
    index = ItemIndex.build(np.arange(300, dtype=np.int32), rows)
    ids, scores = top_k(as_rows([[1, 1]]), index, 4)
    assert ids.tolist() == [[299, 298, 297, 296]]
    assert scores[0, 0] == 1 + 299 * 2.0**-40


def test_products_that_underflow_float32():
    rows = as_rows([[i * 1e-30] for i in range(1, 100)])
    check(as_rows([[1e-30]]), np.arange(99, dtype=np.int32), rows, 5)


def test_products_near_float32_underflow():
    """Float32 scores are small multiples of 1e-45 here, each term off by up to a half of that."""
    rows = normal((500, 6), seed=1) * np.float32(2e-23)
    queries = normal((50, 6)) * np.float32(2e-23)
    check(queries, np.arange(500, dtype=np.int32), rows, 5)


def test_rescoring_in_several_steps(monkeypatch):
    monkeypatch.setattr(topk, "RESCORE", 100)
    check(normal((20, 4)), np.arange(90, dtype=np.int32), normal((90, 4), seed=1), 5)


def test_few_candidates_are_merged(monkeypatch):
    """Of scores in random order, about k (1 + ln(tiles)) pass current thresholds."""
    if native.library() is not None:
        pytest.skip("the library merges them one by one")
    merged, merge = [], scan.merge

    def spy(best, thresholds, owners, keys):
        merged.append(len(keys))
        merge(best, thresholds, owners, keys)

    monkeypatch.setattr(scan, "merge", spy)
    rows = normal((20_000, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    index = ItemIndex.build(np.arange(20_000, dtype=np.int32), rows)
    top_k(normal((100, 8), seed=1), index, 10, item_tile=1000)
    assert sum(merged) / 100 < 10 * (1 + np.log(20)) * 2
    assert max(merged) / 100 < 10 * 2


def test_well_separated_scores_are_computed_once(monkeypatch):
    def never(*_):
        raise AssertionError("rescanned a query whose top k was clear")

    monkeypatch.setattr(topk, "rescan", never)
    rows = as_rows([[i] for i in range(1000)])
    check(as_rows([[1], [2]]), np.arange(1000, dtype=np.int32), rows, 10, item_tile=64)


@pytest.mark.parametrize("columns", [False, True])
def test_items_with_small_norms_are_not_scored(columns):
    """Items with larger rows than their stated norms would win if they were scored."""
    rows = as_rows([[9], [8], [7], [6]] + [[100]] * 4)
    norms = np.array([9.0] * 4 + [1] * 4)
    index = ItemIndex(as_ids(range(8)), rows, norms, np.arange(8), rows.T if columns else None)
    query = as_rows([[1]])
    assert top_k(query, index, 1, item_tile=4)[0].tolist() == [[0]]
    assert top_k(query, index, 1, item_tile=8)[0].tolist() == [[4]]


def test_index_is_ordered_by_norm_then_id():
    index = ItemIndex.build(as_ids([4, 2, 9]), as_rows([[3, 4], [-5, 0], [0, 6]]))
    assert index.ids.tolist() == [9, 2, 4]
    assert index.rows.tolist() == [[0, 6], [-5, 0], [3, 4]]
    assert index.norms.tolist() == [6.0, 5.0, 5.0]
    assert index.rows.flags.c_contiguous


def test_index_copies_its_input():
    ids, rows = IDS.copy(), ROWS.copy()
    index = ItemIndex.build(ids, rows)
    ids[:], rows[:] = 0, np.nan
    assert top_k(QUERIES, index, 2)[0].tolist() == [[3, 7], [5, 7]]


def test_index_pickles():
    index = pickle.loads(pickle.dumps(ItemIndex.build(IDS, ROWS)))
    assert top_k(QUERIES, index, 2)[0].tolist() == [[3, 7], [5, 7]]


def test_strided_and_read_only_input():
    queries = np.asfortranarray(normal((20, 6)))[::2]
    rows = normal((80, 12), seed=1)[:, ::2]
    queries.flags.writeable = rows.flags.writeable = False
    check(queries, np.arange(80, dtype=np.int32), rows, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IDS, ROWS.astype(np.float64)), "a 2-dimensional float32 array but got float64"),
        ((IDS, ROWS[0]), "must be a 2-dimensional float32 array but got float32 of shape (2,)"),
        ((IDS.astype(np.int64), ROWS), "ids must be a 1-dimensional int32 array but got int64"),
        ((IDS[None], ROWS), "must be a 1-dimensional int32 array but got int32 of shape (1, 3)"),
        ((IDS[:2], ROWS), "ids and rows must pair up, got 2 ids and 3 rows"),
        ((IDS, as_rows([[1, 1], [1, np.nan], [np.inf, 1]])), "2 of 3 are not; the first is row 1"),
    ],
)
def test_index_with_invalid_input_raises(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ItemIndex.build(*arguments)


@pytest.mark.parametrize(
    ("queries", "k", "tiles", "message"),
    [
        (QUERIES, -1, {}, "k must be nonnegative but got -1"),
        (QUERIES[0], 1, {}, "queries must be a 2-dimensional float32 array"),
        (QUERIES.astype(np.float64), 1, {}, "got float64 of shape (2, 2)"),
        (QUERIES[:, :1], 1, {}, "queries have rank 1 but items have rank 2"),
        (QUERIES, 1, {"query_tile": 0}, "tiles must be at least 1 but got 0 x 2048"),
        (QUERIES, 1, {"item_tile": -3}, "tiles must be at least 1 but got 512 x -3"),
        (as_rows([[1, 1], [np.inf, 0]]), 1, {}, "1 of 2 are not; the first is row 1: [inf  0.]"),
        (as_rows([[0, np.nan]]), 0, {}, "queries must be finite"),
    ],
)
def test_top_k_with_invalid_input_raises(queries, k, tiles, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        top_k(queries, ItemIndex.build(IDS, ROWS), k, **tiles)


def test_scores_beyond_float32_raise():
    with pytest.raises(OverflowingRatingsError, match=r"overflow float32: .* 3e\+38 and .*Scale"):
        top_k(as_rows([[3e38, 0]]), ItemIndex.build(IDS, ROWS), 1)


@pytest.mark.parametrize("item_tile", [3, 2048])
def test_excluded_items_of_one_query_with_columns(item_tile):
    ids, rows = np.arange(100, dtype=np.int32), normal((100, 4), seed=1)
    query, out = normal((1, 4)), np.arange(0, 100, 2)
    index = ItemIndex.build(ids, rows, columns=True)
    excluded = Excluded.of(np.zeros(50, np.intp), out, index)
    got = top_k(query, index, 7, excluded=excluded, item_tile=item_tile)
    want = reference(query, ids[1::2], rows[1::2], 7)
    np.testing.assert_array_equal(got, want)


def test_excluded_items():
    index = ItemIndex.build(IDS, ROWS)
    excluded = Excluded.of(np.array([1, 0, 1, 1]), np.array([7, 3, 5, 99]), index)
    ids, scores = top_k(QUERIES, index, 2, excluded=excluded)
    assert ids[0].tolist() == [7, 5]
    assert scores.tolist() == [[3.0, 1.0], [-5.0, -np.inf]]
    assert ids[1, 0] == 3


def test_exclusion_from_an_empty_index():
    index = ItemIndex.build(as_ids([]), as_rows(np.empty((0, 2))))
    excluded = Excluded.of(np.array([0]), np.array([3]), index)
    assert top_k(QUERIES, index, 2, excluded=excluded)[0].shape == (2, 0)


def test_ties_at_the_last_place_ignore_excluded_items():
    rows = as_rows(np.ones((400, 3)))
    index = ItemIndex.build(np.arange(400, dtype=np.int32), rows)
    excluded = Excluded.of(np.zeros(5, np.intp), np.array([0, 1, 2, 5, 6]), index)
    ids, _ = top_k(as_rows([[1, 1, 1]]), index, 4, excluded=excluded)
    assert ids.tolist() == [[3, 4, 7, 8]]
