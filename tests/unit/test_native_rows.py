"""Compiled kernels: agreement with NumPy's, and inconsistent arrays."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from kernel_variants import NO_LIBRARY, VARIANTS, using
from partitioners import HashPartitioner
from rddals.blocks.links import Group, link
from rddals.blocks.ratings import RatingBlock
from rddals.config import Objective
from rddals.errors import OverflowingRatingsError, SettingError, SingularSystemError
from rddals.kernels import half_step as module
from rddals.kernels import native
from rddals.kernels.half_step import chosen_kernels, gram, half_step

KINDS = {
    "explicit": {},
    "implicit": {"implicit": True, "alpha": 2.0},
    "nonnegative": {"nonnegative": True},
}


def problem(rank=7, users=90, products=40, seed=0):
    rng = np.random.default_rng(seed)
    degrees = rng.integers(1, 30, users)
    ids = np.repeat(np.arange(users), degrees)
    rated = rng.integers(0, products, len(ids))
    ratings = RatingBlock.from_columns(ids, rated, rng.integers(1, 6, len(ids)))
    block = link(0, ratings, 0, HashPartitioner(1)).in_block
    rows = rng.normal(size=(len(block.source_ids), rank)).astype(np.float32)
    return block, rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_threads_share_the_rows_of_a_block(variant, kind):
    block, rows = problem()
    objective = Objective(7, 0.1, **KINDS[kind])
    shared = gram(rows) if objective.implicit else None
    with using(variant) as kernels, mock.patch.object(module, "PIECE_FLOPS", 1e3):
        alone = half_step(block, rows, objective, shared, kernels=kernels)
        with ThreadPoolExecutor(3) as threads:
            together = half_step(block, rows, objective, shared, kernels=kernels, threads=threads)
    assert together.kernels == alone.kernels == kernels
    # Batches end at other rows, so sums may round differently.
    np.testing.assert_allclose(together.rows, alone.rows, rtol=1e-5, atol=1e-6)
    assert together.loss == pytest.approx(alone.loss)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_without_ratings_are_zero(variant, implicit):
    block, rows = problem(users=5)
    empty = replace(
        block,
        ids=np.append(block.ids, np.array([1000, 1001], np.int32)),
        order=np.concatenate([[5, 6], block.order]).astype(np.int32),
        pointers=np.concatenate([[0, 0], block.pointers]),
        positives=np.concatenate([[0, 0], block.positives]).astype(np.int32),
        groups=(
            Group(0, 2, 0),
            *(Group(g.start + 2, g.stop + 2, g.width) for g in block.groups),
        ),
    )
    objective = Objective(7, 0.1, implicit=implicit, alpha=1.0)
    shared = gram(rows) if implicit else None
    with using(variant) as kernels:
        solved = half_step(empty, rows, objective, shared, kernels=kernels).rows
        expected = half_step(block, rows, objective, shared, kernels=kernels).rows
    assert not solved[5:].any()
    np.testing.assert_allclose(solved[:5], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("variant", VARIANTS)
def test_non_finite_source_rows_raise(variant, value):
    block, rows = problem()
    rows[3, 2] = value
    error_expected = pytest.raises((OverflowingRatingsError, SingularSystemError))
    with using(variant) as kernels, np.errstate(all="ignore"), error_expected:
        half_step(block, rows, Objective(7, 0.1), kernels=kernels)


@NO_LIBRARY
@pytest.mark.parametrize(
    "broken",
    [
        lambda block: {"sources": np.where(block.sources == 3, 40, block.sources)},
        lambda block: {"sources": block.sources.astype(np.int32) - 1},
        lambda block: {"sources": block.sources[:-1]},
        lambda block: {"pointers": block.pointers[:-1]},
        lambda block: {"pointers": block.pointers + 1},
        lambda block: {"pointers": np.concatenate([block.pointers[1::-1], block.pointers[2:]])},
        lambda block: {"codes": block.codes[:-1]},
        lambda block: {"scale": block.scale[:-1]},
        lambda block: {"codes": block.codes.astype(np.float32)},
    ],
)
def test_inconsistent_arrays_raise(broken):
    block, rows = problem()
    bad = replace(block, **broken(block))
    with pytest.raises(ValueError, match="are inconsistent"):
        half_step(bad, rows, Objective(7, 0.1), kernels="native")


def test_requested_kernels_run():
    block, rows = problem(users=3)
    assert half_step(block, rows, Objective(7, 0.1), kernels="numpy").kernels == "numpy"
    assert chosen_kernels("numpy") == "numpy"
    no_library = {"library": lambda: None, "unavailable": lambda: "no library was built"}
    with mock.patch.multiple(native, **no_library):
        assert chosen_kernels("auto") == "numpy"
        assert half_step(block, rows, Objective(7, 0.1)).kernels == "numpy"
        with pytest.raises(SettingError, match=r"kernels='native' but .* no library was built"):
            half_step(block, rows, Objective(7, 0.1), kernels="native")


@NO_LIBRARY
def test_compiled_kernels_run_if_present():
    block, rows = problem(users=3)
    assert chosen_kernels("auto") == chosen_kernels("native") == "native"
    assert half_step(block, rows, Objective(7, 0.1)).kernels == "native"
