"""Predicted message sizes against Python's pickling; Spark's framing is measured elsewhere."""

import pickle

import numpy as np
import pytest

from rddals.planning.message_size import JOIN_ENVELOPE, KRYO_OVERHEAD, shuffled_bytes


def varint(number):
    """Return the bytes of a length as Kryo writes it, seven bits each."""
    return max(1, -(-number.bit_length() // 7))


@pytest.mark.parametrize("rank", [1, 10, 63, 64, 200])
@pytest.mark.parametrize("rows", [1, 2, 6, 7, 82, 83, 255, 256, 1638, 1639, 5000, 65535, 65536])
def test_message_size_is_predicted_exactly(rows, rank):
    payload = bytes(4 * rows * rank)
    pickled = len(pickle.dumps([(3, (200, (rows, payload)))], pickle.HIGHEST_PROTOCOL))
    assert shuffled_bytes(np.array([rows]), rank)[0] == pickled + KRYO_OVERHEAD + varint(pickled)


@pytest.mark.parametrize("rows", [1, 300, 20_000, 200_000])
def test_join_overhead_per_message_is_bounded(rows):
    ids, ratings = np.zeros(rows, np.int32), np.zeros(rows, np.float32)
    factors = np.zeros((rows, 50), np.float32)
    payload = 4 * rows * (50 + 3)
    pickled = len(pickle.dumps([(300, (70_000, (ids, ids + 1, ratings, factors)))], 5))
    assert pickled + KRYO_OVERHEAD + varint(pickled) - payload <= JOIN_ENVELOPE


def test_sizes_are_computed_per_message():
    rows = np.array([[1, 300], [70_000, 6]])
    sizes = shuffled_bytes(rows, 10)
    assert sizes.shape == (2, 2)
    assert sizes[1, 1] == shuffled_bytes(np.array([6]), 10)[0]
