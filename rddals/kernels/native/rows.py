"""Half-step with the compiled library."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_double, c_int64, c_void_p
from math import ceil
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.kernels import native
from rddals.kernels.flops import DUAL_SHARE
from rddals.kernels.native import address
from rddals.kernels.solvers import solve_nonnegative
from rddals.kernels.system import System

Array = NDArray[Any]

#: Alignment of source rows: a cache line.
ALIGNMENT = 64
#: Bytes of normal equations returned at a time to the solvers in NumPy.
EQUATION_BYTES = 1 << 21


class _Job(ctypes.Structure):
    """Mirror of the ``rddals_job`` struct; ``job.h`` documents its members."""

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
    """Solver of the rows of a system; threads may solve different rows in parallel.

    Inconsistent arrays of the block, with which C would read out of bounds, raise `ValueError`.
    """

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
        #: References that keep the arrays of the job alive.
        self._arrays = (pointers, sources, codes, block.scale, table, block.positives)
        self._job = _Job(
            rank=objective.rank,
            stride=stride,
            dual_below=ceil(DUAL_SHARE * objective.rank) if system.dual else 0,
            pointers=address(pointers),
            sources=address(sources),
            source_bytes=sources.itemsize,
            codes=address(codes),
            scale=address(block.scale),
            table=address(table),
            table_rows=len(rows),
            ridge=address(system.ridge),
            eigenvalues=address(system.eigenvalues),
            positives=address(block.positives) if objective.implicit else None,
            alpha=objective.alpha,
            vector_bytes=native.VECTOR_BYTES,
            solved=address(system.solved),
            singular=address(system.singular),
        )

    def solve(self, rows: slice) -> tuple[float, dict[str, float]]:
        """Solve some rows in place; return their loss (squared errors plus penalty) and seconds."""
        started = perf_counter()
        if self.system.objective.nonnegative:
            loss = self._solve_nonnegative(rows)
        else:
            total = c_double()
            rotated = "_rotated" if self.system.source_rows.dtype == np.float64 else ""
            solve = f"rddals_solve_{self.system.objective.precision}{rotated}"
            bounds = c_int64(rows.start), c_int64(rows.stop)
            native.call(solve, byref(self._job), *bounds, byref(total))
            loss = total.value
        return loss, {"solve": perf_counter() - started}

    def _solve_nonnegative(self, rows: slice) -> float:
        """Build the normal equations with the library, and solve them in NumPy."""
        system, rank = self.system, self.system.objective.rank
        build = f"rddals_equations_{system.objective.precision}"
        step = max(1, EQUATION_BYTES // (self._dtype.itemsize * rank * rank))
        loss = 0.0
        for start in range(rows.start, rows.stop, step):
            part = slice(start, min(start + step, rows.stop))
            count = part.stop - part.start
            equations = np.empty((count, rank, rank), dtype=self._dtype)
            targets = np.empty((count, rank), dtype=self._dtype)
            total = c_double()
            bounds = c_int64(part.start), c_int64(part.stop)
            outputs = c_void_p(address(equations)), c_void_p(address(targets))
            native.call(build, byref(self._job), *bounds, *outputs, byref(total))
            if system.common is not None:
                equations += system.common
            system.solved[part], singular = solve_nonnegative(equations, targets)
            system.singular[part] |= singular
            loss += total.value - float(np.vdot(system.solved[part], targets))
        return loss


def _check(
    pointers: Array, sources: Array, codes: Array, scale: Array | None, table_rows: int, rows: int
) -> None:
    consistent = (
        len(pointers) == rows + 1
        and pointers[0] == 0
        and pointers[-1] == len(sources) == len(codes)
        and bool((pointers[1:] >= pointers[:-1]).all())
        and (not len(sources) or 0 <= sources.min() <= sources.max() < table_rows)
        and (scale is None or (codes.dtype == np.uint8 and scale.dtype == np.float32))
        and (scale is None or not len(codes) or codes.max() < len(scale))
    )
    if not consistent:
        raise ValueError(
            f"The arrays of a block of {rows} rows are inconsistent: pointers, sources and codes "
            f"do not match, or a source is beyond the {table_rows} source rows."
        )


def _aligned_table(rows: Array) -> tuple[Array, int]:
    """Copy the rows and a row of zeros, each aligned to a cache line; also return the stride."""
    stride = -(-rows.shape[1] * rows.itemsize // ALIGNMENT) * ALIGNMENT // rows.itemsize
    size = (len(rows) + 1) * stride
    buffer = np.empty(size * rows.itemsize + ALIGNMENT, dtype=np.uint8)
    first = -buffer.ctypes.data % ALIGNMENT
    table = buffer[first : first + size * rows.itemsize].view(rows.dtype)
    table = table.reshape(len(rows) + 1, stride)
    table[:-1, : rows.shape[1]] = rows
    table[:-1, rows.shape[1] :] = 0
    table[-1] = 0
    return table, stride
