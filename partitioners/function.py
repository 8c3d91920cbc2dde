"""Placement by a function of the user's own."""

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

_TOKENS: WeakKeyDictionary[Callable[..., Any], str] = WeakKeyDictionary()
"""The identity of each function in use, as a name that can travel with its pickled copies."""


class FunctionPartitioner(Partitioner):
    """Place ids by a function of your own.

    The function must be pure: the same id, the same block, in every process.

    Parameters
    ----------
    num_blocks : int
        The number of blocks, from 1 to 2**31 - 1.
    function : callable
        From an id to its block. Hashable and weakly referenceable, as functions, lambdas and
        methods are. A lambda or a nested function needs cloudpickle, which Spark uses, to be
        pickled.
    vectorized : bool, default False
        False: `function` takes a Python int and returns an int; called once per distinct id of
        each `block_of`. True: it takes all ids, a read-only int64 array (n,), and returns
        integers (n,); not called for no ids.

    Raises
    ------
    TypeError
        If `num_blocks` is not an integer, `vectorized` not a bool, or `function` not a callable
        of the kind described. In `block_of`: if a returned block is not an integer.
    ValueError
        If `num_blocks` is out of range. In `block_of`: if the returned array has another shape
        than the ids, or a block is outside 0 to num_blocks - 1.

    Notes
    -----
    Whether two functions compute the same cannot be decided, so equality goes by identity. An
    unpickled lambda is a new object, though, and the partitioner has to equal its own copies.
    Hence each function object is given a random 128-bit token when it is first used; the token
    is pickled with the partitioner and adopted by the unpickled function, unless that one, being
    imported by name, has a token in its process already. Two partitioners are equal if their
    tokens and other parameters are: so if they hold one function object (or two that are ``==``,
    as bound methods can be), or one holds a pickled copy of the other's. Two lambdas written
    alike are different functions.

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
                "pass a function from an id to its block"
            )
        if not isinstance(vectorized, (bool, np.bool_)):
            raise TypeError(
                f"vectorized must be True or False, got {short(vectorized)}: "
                "pass True for a function of an array of ids, False for a function of one id"
            )
        self._function = function
        self._vectorized = bool(vectorized)
        self._token = _adopt(function, uuid4().hex)

    def _place(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        if self._vectorized and ids.size:
            return self._call_once(ids)
        distinct, inverse = np.unique(ids, return_inverse=True)
        blocks = [self._checked(id_, self._function(id_)) for id_ in distinct.tolist()]
        return np.array(blocks, dtype=np.int32)[inverse]

    def _call_once(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        guarded = ids.view()
        guarded.flags.writeable = False  # the ids may be the caller's own array
        blocks = np.asarray(self._function(guarded))
        if blocks.shape != ids.shape:
            raise ValueError(
                f"function returned shape {blocks.shape} for ids of shape {ids.shape}: return one "
                "block per id, or pass vectorized=False for a function of a single id"
            )
        suspect = (
            (blocks < 0) | (blocks >= self.num_blocks)
            if blocks.dtype.kind in "iu"
            else np.ones(ids.shape, dtype=np.bool_)
        )
        for id_, block in zip(ids[suspect].tolist(), blocks[suspect].tolist(), strict=True):
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
                f"{self.num_blocks - 1}: return block % {self.num_blocks}, or make more blocks"
            )
        return block

    def _parameters(self) -> tuple[object, ...]:
        return self.num_blocks, self._vectorized, self._token

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._token = _adopt(self._function, self._token)

    def __repr__(self) -> str:
        name = getattr(self._function, "__qualname__", type(self._function).__name__)
        return (
            f"{type(self).__name__}(num_blocks={self.num_blocks}, function={name}, "
            f"vectorized={self._vectorized})"
        )


def _adopt(function: Callable[..., Any], token: str) -> str:
    """Give `function` this token if it has none yet; return the one it has."""
    try:
        return _TOKENS.setdefault(function, token)
    except TypeError:
        raise TypeError(
            f"function must be hashable and weakly referenceable, got {short(function)}: "
            "wrap it, e.g. lambda id: function(id)"
        ) from None
