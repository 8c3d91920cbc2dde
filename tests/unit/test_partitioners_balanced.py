"""The degree-balanced partitioner: its table, cuts, bound and errors."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pytest

from partitioners import DegreeBalancedPartitioner
from partitioners.levelling import level_cuts, longest_first, scramble

fit = DegreeBalancedPartitioner.fit


def cuts_of(ids, counts, num_blocks):
    """Return the cuts of the hash that `fit` chooses for ascending ids."""
    heavy = counts > 0.05 * counts.sum() / num_blocks
    _, loads = longest_first(counts[heavy].astype(float), num_blocks)
    return level_cuts(scramble(ids[~heavy]), counts[~heavy].astype(float), loads)


def ids_in_table(partitioner, ids, cuts):
    """Return the ids that the hash alone would place elsewhere: the table holds exactly these."""
    blocks = partitioner.block_of(ids)
    misplaced = blocks != DegreeBalancedPartitioner([], [], cuts).block_of(ids)
    assert partitioner == DegreeBalancedPartitioner(ids[misplaced], blocks[misplaced], cuts)
    return ids[misplaced]


def loads_of(partitioner, ids, counts):
    return np.bincount(partitioner.block_of(ids), counts, minlength=partitioner.num_blocks)


def test_scramble_is_splitmix64():
    # The first outputs of SplitMix64 from seed 0: its finaliser over multiples of the golden gamma.
    gamma = 0x9E3779B97F4A7C15
    states = np.array([gamma, 2 * gamma % 2**64, 3 * gamma % 2**64], dtype=np.uint64)
    assert scramble(states.view(np.int64)).view(np.uint64).tolist() == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


def test_longest_first_is_grahams_rule():
    # 7 | 6 | 5, then 4 on 5, 3 on 6, 2 on 7: three blocks of 9, ties to the lower number.
    blocks, loads = longest_first(np.array([2.0, 3, 4, 5, 6, 7]), 3)
    assert loads.tolist() == [9, 9, 9]
    assert blocks.tolist() == [0, 1, 2, 2, 1, 0]


def test_longest_first_numbers_blocks_by_falling_load():
    # 5 | 4, 3 -> 5 | 7: the fuller one becomes block 0.
    blocks, loads = longest_first(np.array([5.0, 4, 3]), 2)
    assert loads.tolist() == [7, 5]
    assert blocks.tolist() == [1, 0, 0]


def test_cuts_fill_the_emptier_blocks():
    values, weights = np.arange(10), np.ones(10)
    # Loads 6, 4, 0 and ten units to spread: the level is 20/3, the room 2/3, 8/3 and 20/3.
    assert level_cuts(values, weights, np.array([6.0, 4, 0])).tolist() == [0, 3]
    # A block above the level gets nothing; the other two meet at 6.
    assert level_cuts(values, weights, np.array([50.0, 2, 0])).tolist() == [0, 4]


def test_cuts_without_light_ids_are_even():
    no_ids = np.array([], dtype=np.int64), np.array([])
    assert level_cuts(*no_ids, np.array([3.0, 2, 1, 1])).tolist() == [-(2**62), 0, 2**62]


@pytest.mark.parametrize(
    ("id_", "outlier"), [(-6086893701949170222, 2**63 - 1), (-3592346752865808038, -(2**63))]
)
def test_cuts_hold_at_the_ends_of_int64(id_, outlier):
    assert scramble(np.array([id_])).tolist() == [outlier]
    # Block 0 is full: the light id, wherever its scrambled value lies, goes to the other block.
    cuts = level_cuts(np.array([outlier]), np.array([0.04]), np.array([1.0, 0.9]))
    partitioner = DegreeBalancedPartitioner([], [], cuts)
    assert partitioner.block_of([id_]).tolist() == [1]


def test_heavy_ids_are_placed_and_the_tail_fills_the_rest():
    ids = np.arange(1_000)
    counts = np.ones(1_000, dtype=np.int64)
    counts[:3] = [900, 500, 300]  # mean load 674: the first outweighs a block
    loads = loads_of(fit(ids, counts, 4), ids, counts)
    assert loads.max() == 900
    np.testing.assert_allclose(np.sort(loads)[:3], (counts.sum() - 900) / 3, rtol=0.002)


def test_equal_remainders_are_balanced():
    ids = np.arange(10_000) * 8  # every id has remainder 0
    counts = np.full(10_000, 20)
    loads = loads_of(fit(ids, counts, 8), ids, counts)
    assert loads.max() / loads.mean() < 1.001


def test_the_table_holds_only_heavy_ids():
    rng = np.random.default_rng(3)
    ids = rng.permutation(60_000) - 30_000
    counts = rng.zipf(1.6, 60_000).clip(max=4_000)
    for num_blocks in (1, 2, 16, 200):
        partitioner = fit(ids, counts, num_blocks)
        order = np.argsort(ids)
        table = ids_in_table(partitioner, ids, cuts_of(ids[order], counts[order], num_blocks))
        assert table.size < 20 * num_blocks
        assert np.isin(table, ids[counts > 0.05 * counts.sum() / num_blocks]).all()
        loads = loads_of(partitioner, ids, counts)
        if counts.max() <= loads.mean():
            assert loads.max() <= 1.05 * loads.mean()
        assert len(pickle.dumps(partitioner)) < 2_000 + 12 * 20 * num_blocks + 8 * num_blocks


@pytest.mark.parametrize(
    ("counts", "num_blocks", "fullest"),
    [
        ([1, 1, 1], 2, 2),  # no placement does better: the bound would be 1.575
        ([3, 3, 2, 2, 2], 2, 7),  # Graham's own example: 6 is possible
        ([4, 4, 4, 4], 4, 4),
        ([8], 3, 8),
        ([5, 0, 0, 5], 2, 5),
    ],
)
def test_few_ids_are_placed_longest_first(counts, num_blocks, fullest):
    ids = np.arange(len(counts))
    assert loads_of(fit(ids, counts, num_blocks), ids, counts).max() == fullest


def test_ids_placed_right_by_the_hash_need_no_row():
    assert fit([1, 2, 3], [5, 6, 7], 1) == DegreeBalancedPartitioner([], [], [])
    ids, counts = np.arange(100), np.full(100, 7)  # every id heavy
    table = ids_in_table(fit(ids, counts, 10), ids, cuts_of(ids, counts, 10))
    assert 0 < table.size < 100


def test_zero_counts_still_place_every_id():
    blocks = fit(np.arange(4_000), np.zeros(4_000), 4).block_of(np.arange(4_000))
    assert np.bincount(blocks, minlength=4).min() > 900


def test_unseen_ids_are_spread():
    partitioner = fit(np.arange(5_000), np.full(5_000, 3), 5)
    assert np.bincount(partitioner.block_of(np.arange(10**6, 10**6 + 5_000))).min() > 850


def test_counts_may_be_fractions():
    ids, counts = np.arange(5_000), np.random.default_rng(1).random(5_000)
    loads = loads_of(fit(ids, counts, 10), ids, counts)
    assert loads.max() <= 1.05 * loads.mean()


def test_the_table_overrides_the_hash():
    cuts = [0]
    plain = DegreeBalancedPartitioner([], [], cuts)
    table = np.array([11, -4, 7])
    swapped = DegreeBalancedPartitioner(table, 1 - plain.block_of(table), cuts)
    ids = np.arange(-20, 20)
    differ = ids[plain.block_of(ids) != swapped.block_of(ids)]
    assert differ.tolist() == [-4, 7, 11]
    assert swapped == DegreeBalancedPartitioner(table[::-1], 1 - plain.block_of(table[::-1]), cuts)


def test_fit_a_million_ids_in_about_a_second():
    ids = np.arange(1_000_000)
    counts = 10_000_000 // (ids + 1)
    started = time.process_time()
    partitioner = fit(ids, counts, 64)
    assert time.process_time() - started < 3  # a fraction of a second on an idle machine
    assert partitioner.num_blocks == 64


@pytest.mark.parametrize(
    ("ids", "counts", "error", "message"),
    [
        (
            [1, 2, 1, 1],
            [1] * 4,
            ValueError,
            r"ids must be unique, got 1 3 times: merge .*np\.unique",
        ),
        ([1, 2], [1], ValueError, r"one count per id, got 2 ids and counts of shape \(1,\): "),
        ([1], 1, ValueError, r"one count per id, got 1 ids and counts of shape \(\): "),
        ([1, 2], [1, -4], ValueError, r"finite and not negative, got -4\.0 for id 2: "),
        ([1, 2], [np.nan, 1], ValueError, "finite and not negative, got nan for id 1: "),
        ([1, 2], [1, np.inf], ValueError, "finite and not negative, got inf for id 2: "),
        (
            [1, 2],
            [1e308, 1.5e308],
            ValueError,
            r"finite and not negative, got 1\.5e\+308 for id 2: ",
        ),
        ([1, 2], ["3", "4"], TypeError, r"counts must be numbers, got .*'3'.* \(dtype <U1\): "),
        ([1, 2], [True, True], TypeError, r"counts must be numbers, got .*True.* \(dtype bool\): "),
        ([1, 2], [1, None], TypeError, r"counts must be numbers, got 1 \(dtype object\): "),
        ([1.5, 2], [1, 1], TypeError, r"ids must be integers, got 1\.5 \(float\): "),
    ],
)
def test_fit_with_invalid_arguments_raises(ids, counts, error, message):
    with pytest.raises(error, match=message):
        fit(ids, counts, 2)


@pytest.mark.parametrize(
    ("ids", "blocks", "cuts", "error", "message"),
    [
        ([1, 1], [0, 1], [0], ValueError, "ids must be unique, got 1 2 times"),
        ([1], [0, 1], [0], ValueError, "one block per id, got 1 ids and 2 blocks"),
        ([1, 5], [0, 2], [0], ValueError, "blocks must be from 0 to 1, got 2 for id 5"),
        ([1, 5], [-1, 0], [0], ValueError, "blocks must be from 0 to 1, got -1 for id 1"),
        ([1], [0.5], [0], TypeError, r"blocks must be integers, got 0\.5"),
        ([1], [0], [0.5], TypeError, r"cuts must be integers, got 0\.5"),
        ([1], [0], [3, 1], ValueError, "must ascend, got 1 after 3"),
    ],
)
def test_constructor_with_invalid_arguments_raises(ids, blocks, cuts, error, message):
    with pytest.raises(error, match=message):
        DegreeBalancedPartitioner(ids, blocks, cuts)
