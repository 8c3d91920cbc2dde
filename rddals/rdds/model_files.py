"""MLlib's model files, format 1.0: what it saves we load, and the other way round.

``metadata/`` holds one line of JSON; ``data/user`` and ``data/product`` hold Parquet with columns
``id`` (int) and ``features`` (array of double).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, DoubleType, IntegerType, StructField, StructType

from partitioners import HashPartitioner
from rddals.blocks.factors import FactorBlock
from rddals.errors import ModelFormatError
from rddals.rdds.factors import FactorTable
from rddals.rdds.spark import storage_level

__all__ = ["read_model", "write_model"]

CLASS = "org.apache.spark.mllib.recommendation.MatrixFactorizationModel"
VERSION = "1.0"
SIDES = ("user", "product")


def write_model(sc: SparkContext, path: str, rank: int, tables: Iterable[FactorTable]) -> None:
    """Save both sides' factors at `path`, which must not exist."""
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
    try:
        lines = sc.textFile(f"{path}/metadata").take(1)
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
    session = _session(sc)
    tables = []
    for side in SIDES:
        try:
            frame = session.read.parquet(f"{path}/data/{side}").select("id", "features")
        except AnalysisException as error:
            raise ModelFormatError(
                f"{path} holds no whole model: {path}/data/{side} has no columns id and features."
            ) from error
        sizes = frame.selectExpr("min(size(features))", "max(size(features))").first()
        if sizes[0] is not None and tuple(sizes) != (rank, rank):
            raise ModelFormatError(
                f"{path}/metadata says rank {rank} but {path}/data/{side} holds features of "
                f"length {sizes[0]} to {sizes[1]}."
            )
        partitioner = HashPartitioner(max(sc.defaultParallelism, frame.rdd.getNumPartitions()))
        table = FactorTable.from_rows(frame.rdd, partitioner, rank)
        table.blocks.persist(storage_level(sc))
        tables.append(table)
    return rank, tables[0], tables[1]


def _as_rows(blocks: Iterable[FactorBlock]) -> Iterator[tuple[int, list[float]]]:
    for block in blocks:
        yield from zip(block.ids.tolist(), block.rows.tolist(), strict=True)


def _session(sc: SparkContext) -> Any:
    return SparkSession(sc)
