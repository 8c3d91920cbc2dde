"""Kernel implementations that the kernel tests run with."""

from __future__ import annotations

from contextlib import contextmanager
from unittest import mock

import pytest

from rddals.kernels import native

NO_LIBRARY = pytest.mark.skipif(
    native.library() is None, reason=f"no compiled kernels: {native.unavailable()}"
)
#: NumPy, and the compiled library limited to vectors of 64, 32 and 16 bytes: a code path each.
VARIANTS = [
    pytest.param(("numpy", 0), id="numpy"),
    *(
        pytest.param(("native", size), id=f"native-{size}", marks=NO_LIBRARY)
        for size in (64, 32, 16)
    ),
]


@contextmanager
def using(variant):
    """Select one of `VARIANTS` and yield its `kernels` argument."""
    kernels, vector_bytes = variant
    library = native.library() if kernels == "native" else None
    with (
        mock.patch.object(native, "VECTOR_BYTES", vector_bytes),
        mock.patch.object(native, "library", return_value=library),
    ):
        yield kernels
