"""Overflow is reported as such, not as ids with too few ratings."""

from functools import partial

import numpy as np
import pytest

from kernel_variants import VARIANTS, using
from partitioners import HashPartitioner
from rddals.blocks.links import link
from rddals.blocks.ratings import RatingBlock
from rddals.config import Objective
from rddals.errors import OverflowingRatingsError
from rddals.kernels.half_step import gram, half_step

ROWS = np.linspace(0.1, 1, 12, dtype=np.float32).reshape(6, 2) ** 2


@pytest.fixture(params=VARIANTS)
def solve(request):
    return partial(solve_by, request.param)


def solve_by(variant, ratings=1.0, **objective):
    """Solve four ids with six ratings each."""
    ids, sources = (side.ravel() for side in np.mgrid[:4, :6])
    block = RatingBlock.from_columns(ids, sources, np.full(24, ratings))
    objective = Objective(**{"rank": 2, "lambda_": 0.1, **objective})
    source_gram = gram(ROWS) if objective.implicit else None
    in_block = link(0, block, 0, HashPartitioner(1)).in_block
    with using(variant) as kernels:
        return half_step(in_block, ROWS, objective, source_gram, kernels=kernels)


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (
            {"lambda_": 1e300, "precision": "single"},
            "lambda_=1e.300 .* overflows float32.* smaller",
        ),
        ({"lambda_": 1e308}, "lambda_=1e.308 .* overflows float64.* smaller"),
        ({"ratings": 1e38, "precision": "single", "implicit": True, "alpha": 100.0}, "times alpha"),
        ({"ratings": 1e38, "implicit": True, "alpha": 1e300}, "times alpha"),
        ({"ratings": 1e30, "precision": "single"}, "squared errors overflow float32: .* 1e.30"),
    ],
)
def test_overflow_raises(solve, objective, words):
    with np.errstate(all="ignore"), pytest.raises(OverflowingRatingsError, match=words):
        solve(**objective)


@pytest.mark.parametrize("precision", ["single", "double"])
def test_large_numbers_that_fit_are_solved(solve, precision):
    once, scaled = (solve(size, precision=precision).rows for size in (1.0, 1e12))
    np.testing.assert_allclose(scaled, once * 1e12, rtol=1e-5)
