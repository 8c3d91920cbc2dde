"""Properties for any ids, counts and numbers of blocks."""

from __future__ import annotations

import pickle
import re

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from partitioners import (
    DegreeBalancedPartitioner,
    FunctionPartitioner,
    HashPartitioner,
    RangePartitioner,
)
from partitioners.levelling import longest_first, scramble

int64s = st.one_of(st.integers(-20, 20), st.integers(-(2**63), 2**63 - 1))
id_lists = st.lists(int64s, max_size=60)
distinct_ids = st.lists(int64s, min_size=1, max_size=120, unique=True)
block_counts = st.integers(1, 12)
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=100, deadline=None)


def table_size(partitioner):
    return int(re.search(r"table_size=(\d+)", repr(partitioner))[1])


def last_bits(ids):
    return ids & 3


@st.composite
def weighted_ids(draw, max_size=120):
    ids = draw(st.lists(int64s, min_size=1, max_size=max_size, unique=True))
    shape = draw(st.sampled_from(["equal", "light", "skewed", "any"]))
    if shape == "any":
        integers = st.integers(0, 1_000)
        counts = draw(st.lists(integers, min_size=len(ids), max_size=len(ids)))
        return np.array(ids), np.array(counts)
    rng = np.random.default_rng(draw(seeds))
    counts = {
        "equal": lambda: np.full(len(ids), 5),
        "light": lambda: rng.integers(1, 20, len(ids)),
        "skewed": lambda: rng.zipf(1.7, len(ids)).clip(max=10**6),
    }[shape]()
    return np.array(ids), counts


@st.composite
def bounded_cases(draw):
    """Draw counts that meet the premises of the bound, by construction: the mean load is 1,000."""
    num_blocks = draw(block_counts)
    rng = np.random.default_rng(draw(seeds))
    heavy = draw(st.lists(st.integers(51, 1_000), max_size=num_blocks))
    rest = 1_000 * num_blocks - sum(heavy)
    extra = draw(st.integers(0, num_blocks))  # ids beyond one heavy id per block
    largest = int((50 + rest / num_blocks) / (1 + extra / num_blocks))
    size = draw(st.integers(0, min(largest, rest // max(extra, 1))))
    light = []
    while (missing := rest - extra * size - sum(light)) > 0:
        light.append(min(missing, int(rng.integers(1, 51))))
    counts = rng.permutation(np.array(heavy + [size] * extra + light))
    start = draw(st.integers(-(2**62), 2**62))
    return start + np.arange(counts.size), counts, num_blocks


@st.composite
def partitioners(draw):
    num_blocks = draw(block_counts)
    ids, counts = draw(weighted_ids(max_size=30))
    return draw(
        st.sampled_from(
            [
                HashPartitioner(num_blocks),
                RangePartitioner.fit(ids, num_blocks),
                DegreeBalancedPartitioner.fit(ids, counts, num_blocks),
                FunctionPartitioner(num_blocks + 3, last_bits, vectorized=True),
                FunctionPartitioner(num_blocks + 3, last_bits),
            ]
        )
    )


def loads_of(partitioner, ids, counts):
    return np.bincount(partitioner.block_of(ids), counts, minlength=partitioner.num_blocks)


@quick
@given(partitioners(), id_lists)
def test_every_id_is_in_exactly_one_block(partitioner, ids):
    blocks = partitioner.block_of(ids)
    assert blocks.shape == (len(ids),)
    assert blocks.dtype == np.int32
    assert ((blocks >= 0) & (blocks < partitioner.num_blocks)).all()
    home = {}
    for id_, block in zip(ids, blocks.tolist(), strict=True):
        assert home.setdefault(id_, block) == block


@quick
@given(partitioners(), id_lists)
def test_pickled_copy_is_equal(partitioner, ids):
    copy = pickle.loads(pickle.dumps(partitioner))
    assert copy == partitioner
    assert hash(copy) == hash(partitioner)
    assert copy.block_of(ids).tolist() == partitioner.block_of(ids).tolist()


@quick
@given(id_lists, st.integers(1, 2**31 - 1))
def test_hash_is_the_non_negative_remainder(ids, num_blocks):
    blocks = HashPartitioner(num_blocks).block_of(ids).tolist()
    assert blocks == [id_ % num_blocks for id_ in ids]


@quick
@given(distinct_ids, id_lists, block_counts)
def test_range_is_monotone(ids, others, num_blocks):
    blocks = RangePartitioner.fit(ids, num_blocks).block_of(sorted(ids + others))
    assert (np.diff(blocks) >= 0).all()


@quick
@given(distinct_ids, block_counts)
def test_range_counts_are_equal_to_within_one_id(ids, num_blocks):
    partitioner = RangePartitioner.fit(ids, num_blocks)
    assert partitioner.num_blocks == num_blocks
    sizes = np.bincount(partitioner.block_of(ids), minlength=num_blocks)
    assert sizes.max() - sizes.min() <= 1


@quick
@given(weighted_ids(), block_counts, seeds)
def test_fit_does_not_depend_on_the_order_of_ids(weighted, num_blocks, seed):
    ids, counts = weighted
    counts = counts / 7  # fractions: sums that would round differently in another order
    order = np.random.default_rng(seed).permutation(ids.size)
    balanced = DegreeBalancedPartitioner.fit
    assert balanced(ids, counts, num_blocks) == balanced(ids[order], counts[order], num_blocks)
    assert RangePartitioner.fit(ids, num_blocks) == RangePartitioner.fit(ids[order], num_blocks)


@quick
@given(weighted_ids(), block_counts)
def test_only_heavy_ids_can_exceed_the_bound(weighted, num_blocks):
    ids, counts = weighted
    mean = counts.sum() / num_blocks
    partitioner = DegreeBalancedPartitioner.fit(ids, counts, num_blocks)
    _, heavy_loads = longest_first(counts[counts > 0.05 * mean].astype(float), num_blocks)
    fullest = loads_of(partitioner, ids, counts).max()
    assert fullest <= max(1.05 * mean, heavy_loads[0]) * (1 + 1e-12)


@quick
@given(bounded_cases())
def test_bound_holds_under_its_premises(case):
    ids, counts, num_blocks = case
    mean = counts.sum() / num_blocks
    falling = np.append(np.sort(counts)[::-1], 0)
    light = counts[counts <= 0.05 * mean].sum() / counts.sum()
    assert falling[0] <= mean
    assert counts.size <= num_blocks or falling[num_blocks] <= (0.05 + light) * mean
    loads = loads_of(DegreeBalancedPartitioner.fit(ids, counts, num_blocks), ids, counts)
    assert loads.max() <= 1.05 * mean * (1 + 1e-12)


@quick
@given(st.integers(1, 30), st.integers(0, 6), seeds)
def test_bound_holds_for_realistic_counts(num_blocks, num_heavy, seed):
    # Many light ids, and up to one heavy id per block that just does not outweigh it.
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 30, 200 * num_blocks)
    heavy = min(num_heavy, num_blocks - 1)
    counts[:heavy] = counts.sum() // num_blocks
    ids = rng.integers(-(2**40), 2**40, counts.size)
    assume(np.unique(ids).size == ids.size)
    partitioner = DegreeBalancedPartitioner.fit(ids, counts, num_blocks)
    loads = loads_of(partitioner, ids, counts)
    assert counts.max() <= loads.mean()
    assert loads.max() <= 1.05 * loads.mean()
    assert table_size(partitioner) <= heavy


@quick
@given(distinct_ids)
def test_scrambling_is_one_to_one(ids):
    assert np.unique(scramble(np.array(ids))).size == len(ids)
