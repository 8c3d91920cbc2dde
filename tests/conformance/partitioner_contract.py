"""Contract tests that every partitioner passes, your own included.

Inherit and name your partitioner, and pytest runs the whole contract on it::

    from partitioner_contract import PartitionerContract

    class TestMyPartitioner(PartitionerContract):
        def make(self):
            return MyPartitioner(4)

        def make_different(self):
            return MyPartitioner(5)
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from abc import ABC, abstractmethod

import numpy as np
import pytest

from partitioners import Partitioner

INT64 = np.iinfo(np.int64)
IDS = np.concatenate(
    [
        np.arange(-50, 50),
        [INT64.min, INT64.min + 1, -(2**31), 2**31 - 1, 2**31, INT64.max - 1, INT64.max],
        np.random.default_rng(7).integers(INT64.min, INT64.max, 500, endpoint=True),
    ]
).astype(np.int64)

PLACE_IN_A_PROCESS = """
import pickle, sys
partitioner, ids = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(pickle.dumps(partitioner.block_of(ids)))
"""


class PartitionerContract(ABC):
    """Contract tests; a subclass whose name begins with ``Test`` runs them."""

    @abstractmethod
    def make(self) -> Partitioner:
        """Return a new partitioner; every call returns an equal but distinct object."""

    @abstractmethod
    def make_different(self) -> Partitioner:
        """Return a partitioner of the same class with other parameters."""

    @staticmethod
    def dumps(value: object) -> bytes:
        """Pickle a value; override if plain pickle cannot, as with lambdas."""
        return pickle.dumps(value)

    @pytest.fixture
    def partitioner(self) -> Partitioner:
        return self.make()

    def test_num_blocks_is_a_positive_int(self, partitioner):
        assert type(partitioner.num_blocks) is int
        assert partitioner.num_blocks >= 1

    def test_num_blocks_is_read_only(self, partitioner):
        with pytest.raises(AttributeError):
            partitioner.num_blocks = 1

    def test_every_id_has_one_int32_block_in_range(self, partitioner):
        blocks = partitioner.block_of(IDS)
        assert isinstance(blocks, np.ndarray)
        assert blocks.dtype == np.int32
        assert blocks.shape == IDS.shape
        assert blocks.min() >= 0
        assert blocks.max() < partitioner.num_blocks

    @pytest.mark.parametrize("empty", [[], (), np.array([]), np.array([], dtype=np.int64)])
    def test_empty_ids_give_empty_blocks(self, partitioner, empty):
        blocks = partitioner.block_of(empty)
        assert blocks.dtype == np.int32
        assert blocks.shape == (0,)

    def test_block_depends_only_on_the_id(self, partitioner):
        together = partitioner.block_of(IDS)
        alone = [partitioner.block_of([id_])[0] for id_ in IDS[:150].tolist()]
        np.testing.assert_array_equal(together[:150], alone)
        np.testing.assert_array_equal(partitioner.block_of(IDS[::-1]), together[::-1])
        np.testing.assert_array_equal(partitioner.block_of(np.tile(IDS, 2)), np.tile(together, 2))

    def test_any_array_or_sequence_of_ids_is_accepted(self, partitioner):
        ids = np.arange(0, 100, 3)
        expected = partitioner.block_of(ids)
        columns = np.stack([ids, ids])
        forms = [ids.tolist(), tuple(ids.tolist()), range(0, 100, 3), columns.T[:, 0]]
        forms += [ids.astype(dtype) for dtype in ("i1", "u2", "i4", "u4", "u8", ">i8", object)]
        for form in forms:
            np.testing.assert_array_equal(partitioner.block_of(form), expected)

    def test_ids_are_not_modified(self, partitioner):
        ids = IDS.copy()
        blocks = partitioner.block_of(ids)
        np.testing.assert_array_equal(ids, IDS)
        blocks[:] = 0  # the result is a new array
        np.testing.assert_array_equal(ids, IDS)
        ids.flags.writeable = False
        np.testing.assert_array_equal(partitioner.block_of(ids), partitioner.block_of(IDS))

    @pytest.mark.parametrize(
        ("ids", "error", "value"),
        [
            ([1, 2.5], TypeError, "2.5"),
            (np.array([1.0]), TypeError, "1.0"),
            ([0, float("nan")], TypeError, "nan"),
            (["7"], TypeError, "'7'"),
            ([3, None], TypeError, "None"),
            ([True], TypeError, "True"),
            ([[1], [2, 3]], TypeError, r"\[1\]"),
            ([0, 2**63], ValueError, "9223372036854775808"),
            ([-1, 2**63], ValueError, "9223372036854775808"),
            (np.array([2**63 + 5], dtype=np.uint64), ValueError, "9223372036854775813"),
            ([-(2**63) - 1], ValueError, "-9223372036854775809"),
            (7, ValueError, "7"),
            ([[1, 2], [3, 4]], ValueError, r"\(2, 2\)"),
        ],
    )
    def test_invalid_ids_raise(self, partitioner, ids, error, value):
        with pytest.raises(error, match=rf"ids must .*{value}.*: "):
            partitioner.block_of(ids)

    def test_equal_parameters_compare_equal(self, partitioner):
        again = self.make()
        assert again is not partitioner, "make() must return a new object every time"
        assert again == partitioner
        assert hash(again) == hash(partitioner)
        np.testing.assert_array_equal(again.block_of(IDS), partitioner.block_of(IDS))

    def test_different_partitioners_compare_unequal(self, partitioner):
        assert partitioner != self.make_different()
        assert partitioner != partitioner.num_blocks
        assert partitioner != _OtherPartitioner(partitioner.num_blocks)
        assert len({partitioner, self.make(), self.make_different()}) == 2

    def test_block_of_does_not_change_the_partitioner(self, partitioner):
        before = hash(partitioner)
        partitioner.block_of(IDS)
        assert hash(partitioner) == before
        assert partitioner == self.make()

    def test_pickled_copy_is_equal(self, partitioner):
        copy = pickle.loads(self.dumps(partitioner))
        assert copy == partitioner
        assert hash(copy) == hash(partitioner)
        assert copy.num_blocks == partitioner.num_blocks
        assert repr(copy) == repr(partitioner)
        np.testing.assert_array_equal(copy.block_of(IDS), partitioner.block_of(IDS))
        assert pickle.loads(self.dumps(copy)) == partitioner

    def test_placement_is_the_same_in_every_process(self, partitioner):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONHASHSEED": "4321",
        }
        elsewhere = subprocess.run(
            [sys.executable, "-c", PLACE_IN_A_PROCESS],
            input=self.dumps((partitioner, IDS)),
            stdout=subprocess.PIPE,
            env=environment,
            check=True,
        )
        np.testing.assert_array_equal(pickle.loads(elsewhere.stdout), partitioner.block_of(IDS))

    def test_repr_is_one_short_line(self, partitioner):
        text = repr(partitioner)
        assert text.startswith(type(partitioner).__name__)
        assert str(partitioner.num_blocks) in text
        assert "\n" not in text
        assert len(text) <= 160


class _OtherPartitioner(Partitioner):
    def _place(self, ids):
        return np.zeros(ids.shape, dtype=np.int32)
