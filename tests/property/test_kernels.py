"""Branches of the kernels: chunks, dual form, singular systems, and the solvers."""

from functools import partial
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

import dense_reference as dense
from kernel_variants import VARIANTS, using
from partitioners import HashPartitioner
from rddals.blocks.links import link
from rddals.blocks.ratings import RatingBlock
from rddals.config import Objective
from rddals.errors import SingularSystemError
from rddals.kernels import batched, solvers
from rddals.kernels.half_step import gram, half_step
from rddals.kernels.native import rows
from rddals.kernels.solvers import VECTORISED_ORDER, solve_nonnegative, solve_spd

#: Largest orders of systems that are factorised together, and the largest of these.
ORDERS = sorted(VECTORISED_ORDER.values())
LARGE = ORDERS[-1]

PRECISIONS = ["double", "single"]
KINDS = {
    "explicit": {},
    "implicit": {"implicit": True, "alpha": 2.0},
    "nonnegative": {"nonnegative": True},
    "implicit nonnegative": {"implicit": True, "alpha": 2.0, "nonnegative": True},
}
TOLERANCE = {"double": 1e-5, "single": 2e-3}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(params=PRECISIONS)
def precision(request):
    return request.param


def ratings_of(degrees, columns, seed=0):
    """Draw ratings of rows 0, 1, ... with these degrees; columns repeat only if they must."""
    rng = np.random.default_rng(seed)
    rated = [rng.choice(columns, degree, replace=degree > columns) for degree in degrees]
    rows = np.repeat(np.arange(len(degrees)), degrees)
    return RatingBlock.from_columns(
        rows, np.concatenate([np.empty(0, int), *rated]), rng.integers(-2, 6, len(rows))
    )


def factors(n, rank, seed=1):
    return (np.random.default_rng(seed).normal(size=(n, rank)) / np.sqrt(rank)).astype(np.float32)


@pytest.fixture(params=VARIANTS)
def solve(request):
    """Function that solves ratings with one implementation of the half-step."""
    return partial(solve_by, request.param)


def solve_by(variant, ratings, Y, objective):
    block = link(0, ratings, 0, HashPartitioner(3)).in_block
    source_gram = gram(Y) if objective.implicit else None
    with using(variant) as kernels:
        return half_step(block, Y[block.source_ids], objective, source_gram, kernels=kernels)


def reference_rows(ratings, Y, objective):
    return dense.half_step(
        ratings.users,
        ratings.products,
        ratings.ratings.astype(np.float64),
        Y.astype(np.float64),
        int(ratings.users.max()) + 1,
        lambda_=objective.lambda_,
        alpha=objective.alpha if objective.implicit else None,
        nonnegative=objective.nonnegative,
    )


@pytest.mark.parametrize("tile", [1, 600, 4096])
def test_heavy_rows_are_summed_in_pieces(monkeypatch, kind, precision, tile):
    solve = partial(solve_by, ("numpy", 0))
    degrees = [2, 400, 3, 3, 57, 400, 16, 16, 16]
    ratings, Y = ratings_of(degrees, 300), factors(300, 12)
    objective = Objective(12, 0.1, precision=precision, **kind)
    whole = solve(ratings, Y, objective)
    monkeypatch.setattr(batched, "TILE_BYTES", tile)
    pieces = solve(ratings, Y, objective)
    tolerance = TOLERANCE[precision]
    expected = reference_rows(ratings, Y, objective)
    np.testing.assert_allclose(
        pieces.rows, expected, rtol=0, atol=tolerance * np.abs(expected).max()
    )
    np.testing.assert_allclose(pieces.rows, whole.rows, rtol=0, atol=tolerance)
    assert pieces.loss == pytest.approx(whole.loss, rel=tolerance)
    assert pieces.penalty == pytest.approx(whole.penalty, rel=tolerance)


@pytest.mark.parametrize("equations", [1, 3_000])
def test_equations_are_solved_in_chunks(monkeypatch, kind, precision, equations):
    solve = partial(solve_by, ("numpy", 0))
    ratings, Y = ratings_of([1, 2, 2, 2, 5, 5, 9, 14, 14, 14, 14, 30], 40), factors(40, 6)
    objective = Objective(6, 0.1, precision=precision, **kind)
    monkeypatch.setattr(batched, "EQUATION_BYTES", equations)
    expected = reference_rows(ratings, Y, objective)
    np.testing.assert_allclose(
        solve(ratings, Y, objective).rows, expected, rtol=0, atol=TOLERANCE[precision]
    )


def test_empty_block(solve, kind, precision):
    objective = Objective(5, 0.1, precision=precision, **kind)
    solution = solve(RatingBlock.empty(), factors(4, 5), objective)
    assert solution.rows.shape == (0, 5)
    assert solution.rows.dtype == np.float32
    assert (solution.loss, solution.penalty) == (0.0, 0.0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("implicit", [False, True])
@given(
    degrees=st.lists(st.integers(1, 24), min_size=1, max_size=10),
    rank=st.integers(1, 20),
    lambda_=st.sampled_from([0.01, 0.1, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=30, deadline=None)
def test_dual_and_primal_agree(variant, implicit, degrees, rank, lambda_, seed):
    module = batched if variant[0] == "numpy" else rows
    solve = partial(solve_by, variant)
    ratings, Y = ratings_of(degrees, 30, seed), factors(30, rank, seed)
    objective = Objective(rank, lambda_, implicit=implicit, alpha=3.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DUAL_SHARE", 0)
        primal = solve(ratings, Y, objective)
        patch.setattr(module, "DUAL_SHARE", 1e3)
        dual = solve(ratings, Y, objective)
    scale = max(1.0, np.abs(primal.rows).max())
    np.testing.assert_allclose(dual.rows, primal.rows, rtol=0, atol=1e-5 * scale)
    assert dual.loss == pytest.approx(primal.loss, rel=1e-6, abs=1e-6)


# ------------------------------------------------------------------ lambda = 0


@pytest.mark.parametrize("nonnegative", [False, True])
def test_without_a_penalty_regular_systems_are_solved(solve, precision, nonnegative):
    ratings, Y = ratings_of([30, 60, 45], 80), factors(80, 6)
    objective = Objective(6, 0.0, precision=precision, nonnegative=nonnegative)
    solution = solve(ratings, Y, objective)
    expected = reference_rows(ratings, Y, objective)
    np.testing.assert_allclose(solution.rows, expected, rtol=0, atol=10 * TOLERANCE[precision])
    assert solution.penalty == 0.0


@pytest.mark.parametrize("rank", [4, LARGE + 4])  # both factorisations
@pytest.mark.parametrize("nonnegative", [False, True])
def test_without_a_penalty_singular_systems_raise(solve, precision, nonnegative, rank):
    # Ids 10 and -7 have fewer ratings than the rank; 13 has enough, all of one product; 5 and 8
    # are regular.
    enough = 3 * rank
    Y = np.abs(factors(enough, rank))
    rows = [(id_, p, 1.0 + p % 3) for id_ in (5, 8) for p in range(enough)]
    rows += [(10, p, 2.0) for p in range(rank - 1)] + [(-7, 0, 3.0)] + [(13, 1, 2.0)] * enough
    objective = Objective(rank, 0.0, precision=precision, nonnegative=nonnegative)
    with pytest.raises(SingularSystemError) as caught:
        solve(RatingBlock.from_rows(rows), Y, objective)
    assert caught.value.ids == (-7, 10, 13)
    assert (caught.value.rank, caught.value.lambda_) == (rank, 0.0)
    regular = [row for row in rows if row[0] in (5, 8)]
    assert np.isfinite(solve(RatingBlock.from_rows(regular), Y, objective).rows).all()


@pytest.mark.parametrize("rank", [4, 12, LARGE + 4])
def test_fewer_ratings_than_the_rank_are_singular(solve, precision, rank):
    # A hundred ids, each one rating short: rounding leaves some with a plausible pivot.
    ratings, Y = ratings_of([rank - 1] * 100, 5 * rank), factors(5 * rank, rank)
    with pytest.raises(SingularSystemError) as caught:
        solve(ratings, Y, Objective(rank, 0.0, precision=precision))
    assert caught.value.ids == tuple(range(100))


def test_implicit_feedback_without_a_penalty_may_be_regular(solve, precision):
    # The Gram matrix of all products makes up for missing ratings.
    ratings, Y = ratings_of([1, 2, 3], 50), factors(50, 6)
    objective = Objective(6, 0.0, implicit=True, alpha=1.0, precision=precision)
    expected = reference_rows(ratings, Y, objective)
    np.testing.assert_allclose(
        solve(ratings, Y, objective).rows, expected, rtol=0, atol=TOLERANCE[precision]
    )


def test_implicit_feedback_without_a_penalty_may_be_singular(solve, precision):
    Y = np.zeros((4, 3), dtype=np.float32)
    Y[:, 0] = 1
    ratings = RatingBlock.from_rows([(6, 0, 1.0), (9, 1, 2.0), (9, 2, 1.0)])
    with pytest.raises(SingularSystemError) as caught:
        solve(ratings, Y, Objective(3, 0.0, implicit=True, alpha=1.0, precision=precision))
    assert caught.value.ids == (6, 9)


def test_rows_without_positive_ratings_are_zero(solve, precision):
    ratings = RatingBlock.from_rows([(1, 0, -2.0), (1, 1, 0.0), (2, 2, 0.0), (3, 0, 1.0)])
    for lambda_ in (0.0, 0.5):
        objective = Objective(2, lambda_, implicit=True, alpha=1.0, precision=precision)
        rows = solve(ratings, factors(3, 2), objective).rows
        assert not rows[:2].any()
        assert rows[2].all()


@pytest.mark.parametrize("nonnegative", [False, True])
def test_rows_without_positive_ratings_are_not_singular(solve, precision, nonnegative):
    # The minimum is at 0, though neither the ratings nor the Gram matrix determine it alone.
    Y = np.zeros((4, 3), dtype=np.float32)
    ratings = RatingBlock.from_rows([(6, 0, -1.0), (9, 1, 0.0)])
    settings = {"implicit": True, "alpha": 1.0, "nonnegative": nonnegative}
    solution = solve(ratings, Y, Objective(3, 0.0, precision=precision, **settings))
    assert not solution.rows.any()


# ------------------------------------------------------------------ invalid arguments


def test_wrong_source_rows_raise():
    block = link(0, RatingBlock.from_rows([(1, 0, 1.0), (2, 1, 1.0)]), 0, HashPartitioner(1))
    for shape in [(1, 3), (3, 3), (2, 4)]:
        with pytest.raises(ValueError, match=r"source_rows must have shape \(2, 3\)"):
            half_step(block.in_block, np.ones(shape, np.float32), Objective(3, 0.1))


def test_implicit_feedback_needs_the_gram_matrix():
    block = link(0, RatingBlock.from_rows([(1, 0, 1.0)]), 0, HashPartitioner(1)).in_block
    with pytest.raises(ValueError, match="source_gram"):
        half_step(block, np.ones((1, 3), np.float32), Objective(3, 0.1, implicit=True))


# ------------------------------------------------------------------ the solvers


def spd(n, k, condition, seed, dtype=np.float64):
    """Return matrices (n, k, k) of this condition number, and right-hand sides (n, k)."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(n, k, k)))[0]
    eigenvalues = np.logspace(0, -np.log10(condition), k)
    a = (q * eigenvalues) @ q.transpose(0, 2, 1)
    a = (a + a.transpose(0, 2, 1)) / 2
    return a.astype(dtype), rng.normal(size=(n, k)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@given(
    n=st.integers(0, 7),
    k=st.sampled_from([1, 2, 5, 60, *(order + more for order in ORDERS for more in (0, 1))]),
    digits=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_spd_systems_are_solved(dtype, n, k, digits, seed):
    # Condition numbers up to a tenth of those that the precision counts as singular.
    eps = float(np.finfo(dtype).eps)
    a, b = spd(n, k, (0.1 / (k * eps)) ** digits, seed, dtype)
    x, singular = solve_spd(a.copy(), b.copy())
    assert x.shape == (n, k) and x.dtype == dtype
    assert not singular.any()
    # Cholesky is backward stable: the residual is small whatever the condition.
    residual = np.linalg.norm(np.einsum("nij,nj->ni", a.astype(float), x) - b, axis=1)
    size = np.linalg.norm(a, axis=(1, 2)) * np.linalg.norm(x, axis=1) + np.linalg.norm(b, axis=1)
    assert (residual <= 10 * k * eps * size).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("k", [3, LARGE + 3])
def test_singular_systems_are_detected(dtype, k):
    a, b = spd(5, k, 10, 3, dtype)
    q = np.linalg.qr(np.random.default_rng(4).normal(size=(k, k)))[0][:-1]
    a[1] = q.T @ q  # one rank short
    a[3] = 0
    regular = [0, 2, 4]
    expected = np.linalg.solve(a[regular].astype(float), b[regular][:, :, None].astype(float))[
        :, :, 0
    ]
    x, singular = solve_spd(a.copy(), b.copy())
    assert singular.tolist() == [False, True, False, True, False]
    np.testing.assert_allclose(x[regular], expected, rtol=0, atol=200 * k * np.finfo(dtype).eps)


@pytest.mark.parametrize("k", [3, LARGE + 3])
def test_small_and_large_systems_are_regular(k):
    # Each system has its own scale: ids with tiny and with huge ratings share a batch.
    a, b = spd(3, k, 100, 5)
    scales = np.array([1e-12, 1.0, 1e12])
    x, singular = solve_spd(a * scales[:, None, None], b * scales[:, None])
    assert not singular.any()
    np.testing.assert_allclose(x, np.linalg.solve(a, b[:, :, None])[:, :, 0], rtol=1e-9, atol=1e-9)


def assert_kkt(a, b, x, tolerance):
    """Assert the KKT conditions: x >= 0, gradient >= 0, and gradient = 0 where x > 0."""
    a, b, x = (array.astype(np.float64) for array in (a, b, x))
    gradient = np.einsum("nij,nj->ni", a, x) - b
    size = np.linalg.norm(a, axis=(1, 2)) * np.linalg.norm(x, axis=1) + np.linalg.norm(b, axis=1)
    slack = tolerance * size[:, None]
    assert (x >= 0).all()
    assert (gradient >= -slack).all()
    assert (np.abs(gradient) <= slack)[x > tolerance * np.abs(x).max(initial=0)].all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@given(
    n=st.integers(0, 7),
    k=st.integers(1, 40),
    digits=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=100, deadline=None)
def test_nonnegative_solutions_meet_the_kkt_conditions(dtype, n, k, digits, seed):
    eps = float(np.finfo(dtype).eps)
    a, b = spd(n, k, (0.1 / (k * eps)) ** digits, seed, dtype)
    x, singular = solve_nonnegative(a.copy(), b.copy())
    assert x.shape == (n, k) and x.dtype == dtype
    assert not singular.any()
    assert_kkt(a, b, x, 50 * k * eps)


@given(k=st.integers(1, 25), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_nonnegative_solutions_match_scipy_nnls(k, seed):
    a, b = spd(3, k, 100, seed)
    x, _ = solve_nonnegative(a.copy(), b.copy())
    for matrix, target, row in zip(a, b, x, strict=True):
        r = np.linalg.cholesky(matrix).T
        np.testing.assert_allclose(row, nnls(r, np.linalg.solve(r.T, target))[0], atol=1e-8)


@pytest.mark.parametrize(
    "limits",
    [{"MAX_STALLED_ROUNDS": -1}, {"ROUNDS_PER_COMPONENT": 0}],
    ids=["one at a time", "active set"],
)
@given(n=st.integers(1, 5), k=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_fallbacks_of_block_pivoting_reach_the_minimum(limits, n, k, seed):
    a, b = spd(n, k, 100, seed)
    expected, _ = solve_nonnegative(a.copy(), b.copy())
    with mock.patch.multiple(solvers, **limits):
        x, singular = solve_nonnegative(a.copy(), b.copy())
    assert not singular.any()
    np.testing.assert_allclose(x, expected, atol=1e-8)


@pytest.mark.parametrize("rounds", [0, 10])
def test_singular_nonnegative_system_is_detected(rounds):
    a = np.stack([np.eye(3), np.zeros((3, 3)), 2 * np.eye(3)])
    with mock.patch.object(solvers, "ROUNDS_PER_COMPONENT", rounds):
        x, singular = solve_nonnegative(a, np.ones((3, 3)))
    assert singular.tolist() == [False, True, False]
    np.testing.assert_allclose(x[[0, 2]], [[1, 1, 1], [0.5, 0.5, 0.5]])


def test_ties_at_the_bound_terminate():
    # Zero gradients and zero components at once: many active sets are optimal.
    k = 8
    g = np.kron(np.eye(4), np.ones((3, 2)))
    a = (g.T @ g + 1e-9 * np.eye(k))[None].repeat(3, axis=0)
    b = np.stack([np.zeros(k), -np.ones(k), np.tile([1.0, -1.0], 4)])
    x, singular = solve_nonnegative(a.copy(), b.copy())
    assert not singular.any()
    assert not x[:2].any()
    assert_kkt(a, b, x, 1e-9)


def test_inactive_bounds_give_the_unconstrained_solution():
    a, _ = spd(4, 9, 50, 6)
    expected = np.random.default_rng(7).uniform(0.5, 2, size=(4, 9))
    b = np.einsum("nij,nj->ni", a, expected)
    np.testing.assert_allclose(solve_nonnegative(a, b)[0], expected, rtol=1e-9)
