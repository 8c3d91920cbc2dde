"""The base class of partitioners."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from partitioners.checks import as_ids, as_num_blocks


class Partitioner(ABC):
    """Pure function from int64 ids to int32 block numbers.

    A partitioner is an immutable value. Two partitioners of one class with the same parameters are
    equal and have the same hash, also after pickling to another process and back. The block of an
    id depends on that id only, not on the other ids of the call.

    A subclass calls ``super().__init__(num_blocks)`` and defines `_place`. It inherits checks,
    equality, hash, pickling and repr. The test suite in
    ``tests/conformance/partitioner_contract.py`` checks a subclass against this contract.

    Parameters
    ----------
    num_blocks : int
        The number of blocks, from 1 to 2**31 - 1.

    Raises
    ------
    TypeError
        If `num_blocks` is not an integer (a bool is not).
    ValueError
        If `num_blocks` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> class ParityPartitioner(Partitioner):
    ...     def __init__(self):
    ...         super().__init__(num_blocks=2)
    ...     def _place(self, ids):
    ...         return (ids & 1).astype(np.int32)
    >>> ParityPartitioner().block_of([-1, 0, 7])
    array([1, 0, 1], dtype=int32)
    >>> ParityPartitioner() == ParityPartitioner()
    True
    """

    def __init__(self, num_blocks: SupportsIndex) -> None:
        self._num_blocks = as_num_blocks(num_blocks)

    @property
    def num_blocks(self) -> int:
        """The number of blocks, at least 1."""
        return self._num_blocks

    def block_of(self, ids: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Return the block of each id.

        Parameters
        ----------
        ids : array-like of int64, shape (n,)
            Any ids, including negative, repeated and unknown ones.

        Returns
        -------
        ndarray of int32, shape (n,)
            Block numbers, from 0 up to but excluding `num_blocks`.

        Raises
        ------
        TypeError
            If an id is not an integer.
        ValueError
            If `ids` is not one-dimensional, or an id is outside int64.
        """
        return self._place(as_ids(ids))

    @abstractmethod
    def _place(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Return the int32 blocks (n,) of checked int64 ids (n,), which must not be modified."""

    def _parameters(self) -> tuple[object, ...]:
        """Return the values that equality and hash compare: by default, all attributes.

        Override this for attributes that cannot be hashed or compared with ``==``. NumPy arrays
        are supported.
        """
        return tuple((name, _by_value(value)) for name, value in sorted(vars(self).items()))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Partitioner) or type(other) is not type(self):
            return NotImplemented
        return self._parameters() == other._parameters()

    def __hash__(self) -> int:
        return hash((type(self), self._parameters()))

    def __setstate__(self, state: dict[str, Any]) -> None:
        for value in state.values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False  # pickle does not store this flag
        vars(self).update(state)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_blocks={self.num_blocks})"


def _by_value(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return value
