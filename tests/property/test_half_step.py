"""The half-step against plain dense algebra, one row at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dense_reference as dense
from kernel_variants import VARIANTS, using
from partitioners import HashPartitioner
from rddals.blocks.links import link
from rddals.blocks.ratings import RatingBlock
from rddals.config import Objective
from rddals.kernels.half_step import gram, half_step, penalty


class Problem:
    """Ratings of n rows and m columns, with a half-step on the rows and its reference."""

    def __init__(self, degrees, columns, rank, seed, *, spread=None, duplicates=False):
        self.rng = rng = np.random.default_rng(seed)
        rows, self.columns = [], []
        for row, degree in enumerate(degrees):
            distinct = not duplicates and degree <= columns
            self.columns += rng.choice(columns, degree, replace=not distinct).tolist()
            rows += [row] * degree
        self.rows = np.array(rows, dtype=np.int32)
        self.columns = np.array(self.columns, dtype=np.int32)
        low, high = spread or (-2, 6)
        self.ratings = rng.integers(low, high, len(rows)).astype(np.float32)
        self.Y = (rng.normal(size=(columns, rank)) / np.sqrt(rank)).astype(np.float32)
        self.n_rows, self.rank = len(degrees), rank

    def block(self):
        ids = 3 * self.rows - 5  # ids do not start at 0 and have gaps
        ratings = RatingBlock.from_columns(ids, self.columns, self.ratings)
        return link(0, ratings, 0, HashPartitioner(2)).in_block

    def solve(self, objective, variant):
        block = self.block()
        with using(variant) as kernels:
            return half_step(
                block,
                self.Y[block.source_ids],
                objective,
                gram(self.Y) if objective.implicit else None,
                kernels=kernels,
            )

    def expected(self, objective):
        rated = np.unique(self.rows)
        X = dense.half_step(
            self.rows,
            self.columns,
            self.ratings.astype(np.float64),
            self.Y.astype(np.float64),
            self.n_rows,
            lambda_=objective.lambda_,
            alpha=objective.alpha if objective.implicit else None,
            nonnegative=objective.nonnegative,
        )
        return X[rated]

    def conditions(self, objective):
        """Return each row's condition number: its largest eigenvalue over the ridge."""
        conditions = []
        for row in np.unique(self.rows):
            entries = self.rows == row
            sources, ratings = self.Y[self.columns[entries]], self.ratings[entries]
            confidence = objective.alpha * np.abs(ratings) if objective.implicit else 1.0
            largest = np.linalg.norm(np.sqrt(confidence) * sources.T, 2) ** 2
            if objective.implicit:
                largest += np.linalg.norm(self.Y, 2) ** 2
            count = (ratings > 0).sum() if objective.implicit else len(ratings)
            conditions.append(1 + largest / (objective.lambda_ * max(count, 1)))
        return np.array(conditions)

    def loss(self, objective, rows):
        """Return the dense objective without the penalty of the fixed side."""
        X = np.zeros((self.n_rows, self.rank))
        X[np.unique(self.rows)] = rows
        alpha = objective.alpha if objective.implicit else None
        terms = (self.rows, self.columns, self.ratings.astype(np.float64))
        Y = self.Y.astype(np.float64)
        weight = {"lambda_": objective.lambda_, "alpha": alpha}
        fixed_penalty = dense.objective(*terms, np.zeros_like(X), Y, **weight)
        fixed_penalty -= dense.objective(*terms, np.zeros_like(X), Y, lambda_=0, alpha=alpha)
        return dense.objective(*terms, X, Y, **weight) - fixed_penalty


#: Relative to the largest entry, as long as the condition of a row's system allows it.
TOLERANCE = {"double": 1e-5, "single": 2e-3}


def check(problem, objective, variant, tolerance=None):
    tolerance = tolerance or TOLERANCE[objective.precision]
    expected = problem.expected(objective)
    solution = problem.solve(objective, variant)
    assert solution.rows.dtype == np.float32
    scale = max(1.0, np.abs(expected).max(initial=0))
    rounding = 4 * problem.rank * np.finfo(objective.dtype).eps * problem.conditions(objective)
    allowed = scale * np.maximum(tolerance, rounding)
    assert (np.abs(solution.rows - expected).max(axis=1, initial=0) <= allowed).all()
    loss = problem.loss(objective, expected)
    size = problem.loss(objective, np.zeros_like(expected)) + abs(loss)
    assert solution.loss == pytest.approx(loss, abs=tolerance * size + 1e-12)
    # Even if ill-conditioned, the rows must be near the minimum.
    assert problem.loss(objective, solution.rows) <= loss + tolerance * size + 1e-12
    np.testing.assert_allclose(
        solution.penalty, penalty(problem.block(), solution.rows, objective), rtol=1e-12
    )
    if objective.nonnegative:
        assert (solution.rows >= 0).all()


objectives = st.builds(
    Objective,
    rank=st.just(0),
    lambda_=st.sampled_from([0.01, 0.1, 1.0]),
    implicit=st.booleans(),
    alpha=st.sampled_from([0.01, 1.0, 40.0]),
    nonnegative=st.booleans(),
    precision=st.sampled_from(["double", "single"]),
)


def with_rank(objective, rank, **changes):
    names = ("lambda_", "implicit", "alpha", "nonnegative", "precision")
    return Objective(rank, **{name: getattr(objective, name) for name in names} | changes)


@pytest.mark.parametrize("variant", VARIANTS)
@given(
    degrees=st.lists(st.integers(1, 40), max_size=40),
    columns=st.integers(1, 50),
    rank=st.integers(1, 40),
    objective=objectives,
    seed=st.integers(0, 2**32 - 1),
    duplicates=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_ratings(variant, degrees, columns, rank, objective, seed, duplicates):
    problem = Problem(degrees, columns, rank, seed, duplicates=duplicates)
    check(problem, with_rank(objective, rank), variant)


@pytest.mark.parametrize("variant", VARIANTS)
@given(
    degrees=st.lists(st.integers(1, 300), min_size=1, max_size=8),
    rank=st.integers(60, 256),
    objective=objectives,
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=15, deadline=None)
def test_high_ranks(variant, degrees, rank, objective, seed):
    check(Problem(degrees, 400, rank, seed), with_rank(objective, rank), variant)
