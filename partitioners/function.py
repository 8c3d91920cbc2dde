"""Placement by a user-defined function."""

from __future__ import annotations

from collections.abc import Callable
from reprlib import repr as short
from typing import Any, SupportsIndex
from uuid import uuid4
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from partitioners.base import Partitioner
from partitioners.checks import is_integer

TOKENS: WeakKeyDictionary[Callable[..., Any], str] = WeakKeyDictionary()
"""Token of each function in use, pickled with the partitioner to identify the function."""


class FunctionPartitioner(Partitioner):
    """Placement by a user-defined function from an id to its block.

    The function must be pure: it returns the same block for the same id in every process.

    Parameters
    ----------
    num_blocks : int
        The number of blocks, from 1 to 2**31 - 1.
    function : callable
        Function from an id to its block. It must be hashable and weakly referenceable, as
        functions, lambdas and methods are. Pickling a lambda or a nested function requires
        cloudpickle, which Spark uses.
    vectorized : bool, default False
        If False, `function` takes a Python int and returns an int, and is called once per distinct
        id in `block_of`. If True, it takes all ids as a read-only int64 array (n,) and returns
        integers (n,), and is not called for an empty array.

    Raises
    ------
    TypeError
        If `num_blocks` is not an integer, `vectorized` is not a bool, or `function` is not
        callable, hashable and weakly referenceable. In `block_of`: if a returned block is not an
        integer.
    ValueError
        If `num_blocks` is out of range. In `block_of`: if the returned array and the ids differ in
        shape, or a block is outside 0 to num_blocks - 1.

    Notes
    -----
    It cannot be decided whether two functions compute the same result, so functions are compared by
    identity. An unpickled lambda is a new object, but a partitioner must equal its pickled copies.
    Each function object is therefore assigned a random 128-bit token on first use. The token is
    pickled with the partitioner and assigned to the unpickled function, unless that function is
    imported by name and already has a token in its process. Two partitioners are equal if their
    tokens and other parameters are equal: if they hold the same function object (or two that are
    ``==``, as bound methods can be), or one holds a pickled copy of the other's. Two lambdas with
    the same source are different functions.

    Examples
    --------
    >>> by_decade = FunctionPartitioner(4, lambda id: id // 10 % 4)
    >>> by_decade.block_of([3, 17, 42])
    array([0, 1, 0], dtype=int32)
    """

    def __init__(
        self,
        num_blocks: SupportsIndex,
        function: Callable[..., Any],
        vectorized: bool = False,
    ) -> None:
        super().__init__(num_blocks)
        if not callable(function):
            raise TypeError(
                f"function must be callable, got {short(function)}: "
                "pass a function that maps an id to its block"
            )
        if not isinstance(vectorized, (bool, np.bool_)):
            raise TypeError(
                f"vectorized must be True or False, got {short(vectorized)}: "
                "pass True for a function of an array of ids, False for a function of one id"
            )
        self._function = function
        self._vectorized = bool(vectorized)
        self._token = _token_of(function, uuid4().hex)

    def _place(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        if self._vectorized and ids.size:
            return self._call_once(ids)
        distinct, inverse = np.unique(ids, return_inverse=True)
        blocks = [self._checked(id_, self._function(id_)) for id_ in distinct.tolist()]
        return np.array(blocks, dtype=np.int32)[inverse]

    def _call_once(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        read_only = ids.view()
        read_only.flags.writeable = False  # `ids` may be the caller's array
        blocks = np.asarray(self._function(read_only))
        if blocks.shape != ids.shape:
            raise ValueError(
                f"function returned shape {blocks.shape} for ids of shape {ids.shape}: return one "
                "block per id, or pass vectorized=False for a function of a single id"
            )
        invalid = (
            (blocks < 0) | (blocks >= self.num_blocks)
            if blocks.dtype.kind in "iu"
            else np.ones(ids.shape, dtype=np.bool_)
        )
        for id_, block in zip(ids[invalid].tolist(), blocks[invalid].tolist(), strict=True):
            self._checked(id_, block)
        return blocks.astype(np.int32)

    def _checked(self, id_: int, block: Any) -> Any:
        if not is_integer(block):
            raise TypeError(
                f"function returned {short(block)} ({type(block).__name__}) for id {id_}: "
                "return an integer, e.g. by // instead of /"
            )
        if not 0 <= block < self.num_blocks:
            raise ValueError(
                f"function returned block {block} for id {id_}, outside 0 to "
                f"{self.num_blocks - 1}: return block % {self.num_blocks}, or increase num_blocks"
            )
        return block

    def _parameters(self) -> tuple[object, ...]:
        return self.num_blocks, self._vectorized, self._token

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._token = _token_of(self._function, self._token)

    def __repr__(self) -> str:
        name = getattr(self._function, "__qualname__", type(self._function).__name__)
        return (
            f"{type(self).__name__}(num_blocks={self.num_blocks}, function={name}, "
            f"vectorized={self._vectorized})"
        )


def _token_of(function: Callable[..., Any], token: str) -> str:
    """Assign `token` to `function` if it has no token; return the token of `function`."""
    try:
        return TOKENS.setdefault(function, token)
    except TypeError:
        raise TypeError(
            f"function must be hashable and weakly referenceable, got {short(function)}: "
            "wrap it, e.g. lambda id: function(id)"
        ) from None
