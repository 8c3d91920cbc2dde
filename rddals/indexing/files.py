"""Files that store the keys of a model beside its factors.

``keys/user`` and ``keys/product`` hold Parquet with columns ``id`` (int) and ``key`` (string or
bigint). ``keys/buckets`` holds the number of buckets, which loading restores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import numpy as np
from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from rddals.blocks.sides import ID_NAMES
from rddals.errors import ModelFormatError
from rddals.indexing.key_table import KeyTable, split_by_bucket
from rddals.indexing.keys import Key, Keys, bucket_of, in_id_order
from rddals.rdds.context import head
from rddals.rdds.lifetimes import cut_lineage, discard
from rddals.rdds.shuffles import Shuffle
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task


def write_keys(sc: SparkContext, path: str, keys: KeyTable) -> None:
    """Save the keys of the model at `path`, which must not contain keys."""
    sc.parallelize([str(keys.partitions)], 1).saveAsTextFile(f"{path}/keys/buckets")
    session = SparkSession(sc)
    for side, name in enumerate(ID_NAMES):
        rows = keys.buckets.mapPartitionsWithIndex(partial(_as_rows, side, keys.firsts[side]))
        kind = "bigint" if isinstance(head(rows)[0][1], int) else "string"
        schema = f"id int not null, key {kind} not null"
        frame = session.createDataFrame(rows, schema, verifySchema=False)
        frame.write.parquet(f"{path}/keys/{name}")


def read_keys(sc: SparkContext, path: str) -> KeyTable:
    """Read the keys of the model at `path`."""
    try:
        buckets = int(head(sc.textFile(f"{path}/keys/buckets"))[0])
        frames = [
            SparkSession(sc).read.parquet(f"{path}/keys/{name}").select("id", "key")
            for name in ID_NAMES
        ]
    except (Py4JJavaError, AnalysisException, ValueError, IndexError) as error:
        raise ModelFormatError(
            f"{path} holds no keys that can be read; pass a directory that KeyedModel.save() "
            "wrote, or load the model alone with MatrixFactorizationModel.load()."
        ) from error
    pieces = sc.union(
        [
            frame.rdd.mapPartitions(partial(_by_bucket, side, buckets))
            for side, frame in enumerate(frames)
        ]
    )
    with closing(TaskReports(sc)) as task_reports, ExitStack() as stack:
        shuffle = Shuffle(pieces, buckets)
        stack.callback(shuffle.release)
        task = partial(_sorted, task_reports)
        keys = shuffle.rdd.mapPartitionsWithIndex(task, preservesPartitioning=True)
        cut_lineage(keys)
        ids = task_reports.take("ids")
    firsts = []
    for name, actual in zip(ID_NAMES, zip(*ids, strict=True), strict=True):
        counts = [0 if own is None else len(own) for own in actual]
        starts = np.concatenate([[0], np.cumsum(counts)])
        expected = map(range, starts[:-1].tolist(), starts[1:].tolist())
        if any(own != ids for own, ids in zip(actual, expected, strict=True)):
            discard(keys)
            raise ModelFormatError(
                f"{path}/keys/{name} does not hold the keys of the model. Save the model again, or "
                "load it without keys with MatrixFactorizationModel.load()."
            )
        firsts.append(starts.astype(np.int64))
    return KeyTable(keys, (firsts[0], firsts[1]))


@spark_task
def _as_rows(
    side: int, firsts: Any, bucket: int, blocks: Iterable[Keys]
) -> Iterator[tuple[int, Any]]:
    for keys in blocks:
        yield from enumerate(keys.of_side(side), int(firsts[bucket]))


@spark_task
def _by_bucket(
    side: int, buckets: int, rows: Iterable[Any]
) -> Iterator[tuple[int, tuple[int, list[tuple[Key, int]]]]]:
    pairs = [(key, id_) for id_, key in rows]
    for bucket, own in split_by_bucket(bucket_of([key for key, _ in pairs], buckets), pairs):
        yield bucket, (side, own)


@spark_task
def _sorted(task_reports: TaskReports, bucket: int, pieces: Iterable[Any]) -> Iterator[Keys]:
    """Yield the keys of a bucket, and report its range of ids to the driver."""
    sides: tuple[dict[Key, int], dict[Key, int]] = {}, {}
    for _, (side, pairs) in pieces:
        sides[side].update(pairs)
    ordered = [in_id_order(side) for side in sides]
    ids = [[side[key] for key in keys] for side, keys in zip(sides, ordered, strict=True)]
    task_reports.add("ids", bucket, tuple(map(_range, ids)))
    yield Keys(*ordered)


def _range(ids: list[int]) -> range | None:
    """Return the ids as a range, or None if they are not consecutive."""
    whole = range(ids[0], ids[0] + len(ids)) if ids else range(0)
    return whole if ids == list(whole) else None
