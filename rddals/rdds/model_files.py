"""MLlib's model files, format 1.0: what it saves we load, and the other way round.

``metadata/`` holds one line of JSON; ``data/user`` and ``data/product`` hold Parquet with columns
``id`` (int) and ``features`` (array of double).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from py4j.protocol import Py4JJavaError
from pyspark import RDD, SparkContext
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, DoubleType, IntegerType, StructField, StructType

from partitioners import HashPartitioner
from rddals.blocks.factors import FactorBlock
from rddals.errors import ModelExistsError, ModelFormatError
from rddals.rdds.factors import FactorTable
from rddals.rdds.shipping import ship
from rddals.rdds.spark import head, spared, storage_level

__all__ = ["read_model", "write_model"]

CLASS = "org.apache.spark.mllib.recommendation.MatrixFactorizationModel"
VERSION = "1.0"
SIDES = ("user", "product")


def write_model(sc: SparkContext, path: str, rank: int, tables: Iterable[FactorTable]) -> None:
    """Save both sides' factors at `path`, where there must be no model."""
    for part in ("metadata", *(f"data/{side}" for side in SIDES)):
        location = sc._jvm.org.apache.hadoop.fs.Path(f"{path}/{part}")
        if location.getFileSystem(sc._jsc.hadoopConfiguration()).exists(location):
            raise ModelExistsError(
                f"There is {path}/{part} already: save elsewhere, or delete it first."
            )
    schema = StructType(
        [
            StructField("id", IntegerType(), nullable=False),
            StructField("features", ArrayType(DoubleType(), containsNull=False), nullable=False),
        ]
    )
    metadata = json.dumps({"class": CLASS, "version": VERSION, "rank": rank})
    sc.parallelize([metadata], 1).saveAsTextFile(f"{path}/metadata")
    session = _session(sc)
    for side, table in zip(SIDES, tables, strict=True):
        rows = table.blocks.mapPartitions(_as_rows)
        session.createDataFrame(rows, schema, verifySchema=False).write.parquet(
            f"{path}/data/{side}"
        )


def read_model(sc: SparkContext, path: str) -> tuple[int, FactorTable, FactorTable]:
    """Rank and both sides' factors of the model at `path`."""
    ship(sc)
    try:
        lines = head(sc.textFile(f"{path}/metadata"))
    except Py4JJavaError as error:
        raise ModelFormatError(
            f"{path} holds no model: {path}/metadata cannot be read. "
            "Pass a directory that save() wrote."
        ) from error
    try:
        metadata = json.loads(lines[0])
        found = (metadata["class"], metadata["version"])
        rank = int(metadata["rank"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(f"{path}/metadata does not describe a model: {lines!r}.") from error
    if found != (CLASS, VERSION):
        raise ModelFormatError(
            f"{path} holds {found[0]} of format {found[1]}; "
            f"only {CLASS} of format {VERSION} can be loaded."
        )
    tables: list[FactorTable] = []
    try:
        for side in SIDES:
            rows = _read_side(_session(sc), f"{path}/data/{side}", rank)
            partitioner = HashPartitioner(max(sc.defaultParallelism, rows.getNumPartitions()))
            table = FactorTable.from_rows(rows, partitioner, rank)
            table.blocks.persist(storage_level(sc))
            tables.append(table)
    except BaseException:
        for table in tables:
            table.blocks.unpersist()
        raise
    return rank, tables[0], tables[1]


def _read_side(session: SparkSession, path: str, rank: int) -> RDD[Any]:
    """Ids and features, none of them missing, twice there or out of range."""
    try:
        frame = session.read.parquet(path).select("id", "features")
    except AnalysisException as error:
        raise ModelFormatError(
            f"There is no whole model: {path} has no columns id and features."
        ) from error
    except Py4JJavaError as error:
        raise _damaged(path) from error
    kinds = [frame.schema[name].dataType.simpleString() for name in ("id", "features")]
    if kinds[0] != "int" or kinds[1] not in ("array<double>", "array<float>"):
        raise ModelFormatError(
            f"{path} holds columns id of type {kinds[0]} and features of type {kinds[1]}; "
            "they must be int and array<double>."
        )
    # NaN is larger than any number to Spark, so it is not within bounds.
    unusable = f"""
        id is null or features is null
        or exists(features, x -> coalesce(not (abs(x) <= {np.finfo(np.float32).max!s}D), true))
    """
    try:
        found = frame.selectExpr(
            f"count_if({unusable}) unusable",
            f"min(case when {unusable} then id end) example",
            "min(size(features)) shortest",
            "max(size(features)) longest",
            "count(*) - count(distinct id) repeated",
        ).first()
    except (Py4JJavaError, PySparkException) as error:
        raise _damaged(path) from error
    if found.unusable:
        raise ModelFormatError(
            f"{path} holds {found.unusable} rows without an id, or with features that are no "
            f"finite 32-bit floats: id {found.example}."
        )
    if found.shortest is not None and (found.shortest, found.longest) != (rank, rank):
        raise ModelFormatError(
            f"The metadata say rank {rank} but {path} holds features of length "
            f"{found.shortest} to {found.longest}."
        )
    if found.repeated:
        raise ModelFormatError(f"{path} holds {found.repeated} ids more than once.")
    return frame.rdd


def _damaged(path: str) -> ModelFormatError:
    return ModelFormatError(f"{path} cannot be read: a file in it is damaged or no Parquet.")


@spared
def _as_rows(blocks: Iterable[FactorBlock]) -> Iterator[tuple[int, list[float]]]:
    for block in blocks:
        yield from zip(block.ids.tolist(), block.rows.tolist(), strict=True)


def _session(sc: SparkContext) -> Any:
    return SparkSession(sc)
