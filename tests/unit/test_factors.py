import itertools

import numpy as np
import pytest

from rddals.blocks.factors import FactorBlock
from rddals.blocks.philox import philox4x32
from rddals.blocks.start import id_start

IDS = np.array([-(2**31), -7, -1, 0, 1, 2, 40, 2**31 - 1], dtype=np.int32)

# Known answers of the authors' Random123 library for philox4x32 with 10 rounds.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(counter, key, expected):
    drawn = philox4x32(np.array(words(counter), dtype=np.uint32), tuple(words(key)))
    assert drawn.dtype == np.uint32
    assert drawn.tolist() == words(expected)


def test_philox_draws_each_counter_independently():
    counters = np.random.default_rng(0).integers(0, 2**32, (4, 3, 5), dtype=np.uint32)
    drawn = philox4x32(counters, (1, 2))
    assert drawn.shape == counters.shape
    for i, j in itertools.product(range(3), range(5)):
        np.testing.assert_array_equal(drawn[:, i, j], philox4x32(counters[:, i, j], (1, 2)))


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5, 10, 127])
def test_rows_have_unit_length(rank):
    rows = id_start(IDS, rank=rank, seed=3, side=0)
    assert rows.shape == (len(IDS), rank)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, rtol=1e-6)


def test_rows_do_not_depend_on_the_split_of_ids():
    together = id_start(IDS, rank=7, seed=3, side=1)
    order = np.array([4, 0, 7, 1, 6, 2, 5, 3])
    np.testing.assert_array_equal(id_start(IDS[order], rank=7, seed=3, side=1), together[order])
    for i in range(len(IDS)):
        np.testing.assert_array_equal(
            id_start(IDS[i : i + 1], rank=7, seed=3, side=1)[0], together[i]
        )


def test_no_ids_give_no_rows():
    assert id_start(IDS[:0], rank=5, seed=3, side=0).shape == (0, 5)


def test_rows_depend_on_seed_side_and_id():
    seeds = [0, 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1]
    rows = np.concatenate(
        [id_start(IDS, rank=4, seed=s, side=side) for s in seeds for side in (0, 1)]
    )
    closest = np.abs(rows[:, None] - rows).max(axis=2)
    np.fill_diagonal(closest, 1)
    assert closest.min() > 1e-4


def test_seeds_are_taken_modulo_2_to_the_64():
    np.testing.assert_array_equal(
        id_start(IDS, rank=4, seed=-1, side=0), id_start(IDS, rank=4, seed=2**64 - 1, side=0)
    )
    np.testing.assert_array_equal(
        id_start(IDS, rank=4, seed=5, side=0), id_start(IDS, rank=4, seed=2**64 + 5, side=0)
    )


def test_rows_are_uniform_on_the_sphere():
    # Unit vectors of independent normals: each component has mean 0, variance 1/k, and fourth
    # moment 3 / (k (k + 2)); components are uncorrelated, within a row and across ids.
    n, k = 40_000, 6
    rows = id_start(np.arange(n, dtype=np.int32), rank=k, seed=11, side=0).astype(np.float64)
    deviations = 5 / np.sqrt(n)
    assert np.abs(rows.mean(axis=0)).max() < deviations
    np.testing.assert_allclose(rows.T @ rows / n, np.eye(k) / k, atol=deviations / k * 2)
    np.testing.assert_allclose((rows**4).mean(axis=0), 3 / (k * (k + 2)), rtol=0.05)
    neighbours = np.einsum("ij,ij->i", rows[1:], rows[:-1])
    assert abs(neighbours.mean()) < deviations
    other_side = id_start(np.arange(n, dtype=np.int32), rank=k, seed=11, side=1)
    assert abs(np.einsum("ij,ij->i", rows, other_side).mean()) < deviations


def test_rank_one_rows_are_plus_or_minus_one():
    rows = id_start(np.arange(1000, dtype=np.int32), rank=1, seed=0, side=0)
    assert set(rows.ravel().tolist()) == {-1.0, 1.0}
    assert 400 < (rows > 0).sum() < 600


def test_find_gives_positions_of_known_ids():
    block = FactorBlock(np.array([-5, 2, 9], np.int32), np.eye(3, dtype=np.float32))
    requested = np.array([9, 3, -5, -6, 2**40, 9], dtype=np.int64)
    positions, known = block.find(requested)
    assert known.tolist() == [True, False, True, False, False, True]
    assert positions[known].tolist() == [2, 0, 2]
    empty = FactorBlock(block.ids[:0], block.rows[:0])
    assert not empty.find(requested)[1].any()


def test_factor_block_needs_one_row_per_id():
    with pytest.raises(ValueError, match="3 ids do not fit rows of shape"):
        FactorBlock(np.arange(3, dtype=np.int32), np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match="do not fit"):
        FactorBlock(np.arange(3, dtype=np.int32), np.zeros(3, np.float32))
