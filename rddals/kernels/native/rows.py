"""Rows of a half-step by the compiled library."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_double, c_int, c_int64, c_void_p
from math import ceil
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.kernels import native
from rddals.kernels.solvers import solve_nonnegative
from rddals.kernels.system import System
from rddals.kernels.work import DUAL_SHARE

__all__ = ["NativeRows"]

Array = NDArray[Any]

#: Source rows start at a cache line.
ALIGNMENT = 64
#: Bytes of normal equations that are handed back at a time, for solvers that NumPy has.
EQUATION_BYTES = 1 << 21
#: Wider vectors are not used; tests lower it to reach every instruction set.
VECTOR_BYTES = 64


class _Job(ctypes.Structure):
    """The struct of ``job.h``, which says what its members are."""

    _fields_ = (
        ("rank", c_int64),
        ("stride", c_int64),
        ("dual_below", c_int64),
        ("pointers", c_void_p),
        ("sources", c_void_p),
        ("source_bytes", c_int64),
        ("codes", c_void_p),
        ("scale", c_void_p),
        ("table", c_void_p),
        ("table_rows", c_int64),
        ("ridge", c_void_p),
        ("eigenvalues", c_void_p),
        ("positives", c_void_p),
        ("alpha", c_double),
        ("vector_bytes", c_int64),
        ("solved", c_void_p),
        ("singular", c_void_p),
    )


class NativeRows:
    """Solves rows of a system; several threads may solve different rows.

    Raises
    ------
    ValueError
        If the block's arrays do not fit together: C would read beyond them.
    """

    name = "native"

    def __init__(self, system: System) -> None:
        block, objective = system.in_block, system.objective
        self.system = system
        pointers = np.ascontiguousarray(block.pointers, dtype=np.int64)
        sources, codes = np.ascontiguousarray(block.sources), np.ascontiguousarray(block.codes)
        if sources.dtype != np.uint16:
            sources = sources.astype(np.int32, copy=False)
        if block.scale is None:
            codes = codes.astype(np.float32, copy=False)
        _check(pointers, sources, codes, block.scale, len(system.source_rows), len(system.ridge))
        rows = system.source_rows
        self._dtype = objective.dtype
        table, stride = _aligned_table(rows)
        #: Arrays that the job points into.
        self._arrays = (pointers, sources, codes, block.scale, table, block.positives)
        self._job = _Job(
            rank=objective.rank,
            stride=stride,
            dual_below=ceil(DUAL_SHARE * objective.rank) if system.dual else 0,
            pointers=_address(pointers),
            sources=_address(sources),
            source_bytes=sources.itemsize,
            codes=_address(codes),
            scale=_address(block.scale),
            table=_address(table),
            table_rows=len(rows),
            ridge=_address(system.ridge),
            eigenvalues=_address(system.eigenvalues),
            positives=_address(block.positives) if objective.implicit else None,
            alpha=objective.alpha,
            vector_bytes=VECTOR_BYTES,
            solved=_address(system.solved),
            singular=_address(system.singular),
        )

    def solve(self, rows: slice) -> tuple[float, dict[str, float]]:
        """Solve some rows in place.

        Returns
        -------
        loss : float
            Their squared errors plus their penalty.
        seconds : dict of str to float
        """
        started = perf_counter()
        if self.system.objective.nonnegative:
            loss = self._solve_nonnegative(rows)
        else:
            total = c_double()
            rotated = "_rotated" if self.system.source_rows.dtype == np.float64 else ""
            solve = _function(f"rddals_solve_{self.system.objective.precision}{rotated}")
            _call(solve, byref(self._job), rows.start, rows.stop, byref(total))
            loss = total.value
        return loss, {"solve": perf_counter() - started}

    def _solve_nonnegative(self, rows: slice) -> float:
        """The normal equations by the library, and their constrained solution by NumPy."""
        system, rank = self.system, self.system.objective.rank
        build = _function(f"rddals_equations_{system.objective.precision}")
        step = max(1, EQUATION_BYTES // (self._dtype.itemsize * rank * rank))
        loss = 0.0
        for start in range(rows.start, rows.stop, step):
            part = slice(start, min(start + step, rows.stop))
            count = part.stop - part.start
            equations = np.empty((count, rank, rank), dtype=self._dtype)
            targets = np.empty((count, rank), dtype=self._dtype)
            total = c_double()
            where = (_address(equations), _address(targets), byref(total))
            _call(build, byref(self._job), part.start, part.stop, *where)
            if system.common is not None:
                equations += system.common
            system.solved[part], singular = solve_nonnegative(equations, targets)
            system.singular[part] |= singular
            loss += total.value - float(np.vdot(system.solved[part], targets))
        return loss


def _check(
    pointers: Array, sources: Array, codes: Array, scale: Array | None, table_rows: int, rows: int
) -> None:
    whole = (
        len(pointers) == rows + 1
        and pointers[0] == 0
        and pointers[-1] == len(sources) == len(codes)
        and bool((pointers[1:] >= pointers[:-1]).all())
        and (not len(sources) or 0 <= sources.min() <= sources.max() < table_rows)
        and (scale is None or (codes.dtype == np.uint8 and scale.dtype == np.float32))
        and (scale is None or not len(codes) or codes.max() < len(scale))
    )
    if not whole:
        raise ValueError(
            f"pointers, sources and codes of {rows} rows do not fit together, or name a source "
            f"beyond the {table_rows} there are"
        )


def _aligned_table(rows: Array) -> tuple[Array, int]:
    """The rows and one of zeros, each from a cache line on; and numbers from one to the next."""
    stride = -(-rows.shape[1] * rows.itemsize // ALIGNMENT) * ALIGNMENT // rows.itemsize
    numbers = (len(rows) + 1) * stride
    buffer = np.empty(numbers * rows.itemsize + ALIGNMENT, dtype=np.uint8)
    first = -buffer.ctypes.data % ALIGNMENT
    table = buffer[first : first + numbers * rows.itemsize].view(rows.dtype)
    table = table.reshape(len(rows) + 1, stride)
    table[:-1, : rows.shape[1]] = rows
    table[:-1, rows.shape[1] :] = 0
    table[-1] = 0
    return table, stride


def _address(array: Array | None) -> int | None:
    return None if array is None else array.ctypes.data


def _function(name: str) -> Any:
    library = native.library()
    assert library is not None  # who chose these kernels has looked
    function = getattr(library, name)
    function.restype = c_int
    pointers = [c_void_p, c_void_p] if "equations" in name else []
    function.argtypes = [POINTER(_Job), c_int64, c_int64, *pointers, POINTER(c_double)]
    return function


def _call(function: Any, *arguments: Any) -> None:
    if function(*arguments):
        raise MemoryError("no memory for the buffers of a half-step")
