"""Candidates of top-N queries, with the compiled library."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_int64, c_void_p

import numpy as np
from numpy.typing import NDArray

from rddals.kernels import native
from rddals.kernels.items import Excluded, ItemIndex
from rddals.kernels.native import address

#: Bytes of items scored with each panel of queries in turn; a part of an L2 cache.
TILE_BYTES = 1 << 18


class _Scan(ctypes.Structure):
    """Mirror of the ``rddals_scan`` struct; ``job.h`` documents its members."""

    _fields_ = (
        ("rank", c_int64),
        ("count", c_int64),
        ("queries", c_void_p),
        ("query_norms", c_void_p),
        ("errors", c_void_p),
        ("items", c_int64),
        ("rows", c_void_p),
        ("norms", c_void_p),
        ("pointers", c_void_p),
        ("excluded", c_void_p),
        ("tile", c_int64),
        ("vector_bytes", c_int64),
        ("width", c_int64),
        ("keys", c_void_p),
    )


def native_scan(
    queries: NDArray[np.float32],
    norms: NDArray[np.float64],
    errors: NDArray[np.float64],
    items: ItemIndex,
    width: int,
    item_tile: int,
    excluded: Excluded,
) -> NDArray[np.int64]:
    """Return keys of the `width` highest float32 scores of each query, like `kernels.scan.scan`."""
    count, rank = queries.shape
    queries, rows = np.ascontiguousarray(queries), np.ascontiguousarray(items.rows)
    norms, errors = np.ascontiguousarray(norms), np.ascontiguousarray(errors)
    item_norms = np.ascontiguousarray(items.norms)
    pointers = places = None
    if len(excluded.places):
        by_query = np.lexsort((excluded.places, excluded.queries))
        places = excluded.places[by_query].astype(np.int64, copy=False)
        pointers = np.searchsorted(excluded.queries[by_query], np.arange(count + 1)).astype(
            np.int64, copy=False
        )
    keys = np.empty((count, width), np.int64)
    tile = item_tile if count == 1 else min(item_tile, max(64, TILE_BYTES // (4 * rank)))
    job = _Scan(
        rank=rank,
        count=count,
        queries=address(queries),
        query_norms=address(norms),
        errors=address(errors),
        items=len(rows),
        rows=address(rows),
        norms=address(item_norms),
        pointers=address(pointers),
        excluded=address(places),
        tile=tile,
        vector_bytes=native.VECTOR_BYTES,
        width=width,
        keys=address(keys),
    )
    native.call("rddals_scan_items", byref(job))
    keys.sort(axis=1)
    return keys
