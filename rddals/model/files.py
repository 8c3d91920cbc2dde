"""MLlib's model files, format 1.0: what it saves we load, and the other way round.

``metadata/`` holds one line of JSON; ``data/user`` and ``data/product`` hold Parquet with columns
``id`` (int) and ``features`` (array of double).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from py4j.protocol import Py4JJavaError
from pyspark import RDD, SparkContext
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, DoubleType, IntegerType, StructField, StructType

from partitioners import HashPartitioner
from rddals.blocks.factors import FactorBlock
from rddals.blocks.popularity import Popularity
from rddals.blocks.sides import ID_NAMES
from rddals.config import Settings
from rddals.errors import ModelExistsError, ModelFormatError, SettingError
from rddals.rdds.context import head
from rddals.rdds.factors import FactorTable
from rddals.rdds.failures import cause
from rddals.rdds.hadoop import located
from rddals.rdds.lifetimes import storage_level
from rddals.rdds.shipping import ship
from rddals.rdds.worker_tuning import spark_task

__all__ = ["SavedModel", "check_free", "read_metadata", "read_model", "write_model", "written"]

CLASS = "org.apache.spark.mllib.recommendation.MatrixFactorizationModel"
VERSION = "1.0"
#: Of the metadata's entry with what MLlib's format has no place for.
OWN_KEY = "rddals"
#: What paths to read are split or matched by.
PATTERN = frozenset(",*?[]{}\\")


class SavedModel(NamedTuple):
    """What a model's files hold; settings and popular ids only if this library saved them."""

    rank: int
    users: FactorTable
    products: FactorTable
    settings: Settings | None
    popular: tuple[Popularity, Popularity] | None


def write_model(
    sc: SparkContext,
    path: str,
    rank: int,
    tables: Iterable[FactorTable],
    settings: Settings | None,
    popular: tuple[Popularity, Popularity],
) -> None:
    """Save both sides' factors at `path`, where there must be no model.

    What MLlib's format has no place for is under a key of the metadata that MLlib passes over.
    """
    check_free(sc, path, ("metadata", *(f"data/{side}" for side in ID_NAMES)))
    schema = StructType(
        [
            StructField("id", IntegerType(), nullable=False),
            StructField("features", ArrayType(DoubleType(), containsNull=False), nullable=False),
        ]
    )
    metadata: dict[str, Any] = {"class": CLASS, "version": VERSION, "rank": rank}
    if settings is not None:
        metadata[OWN_KEY] = {
            "settings": settings.document(),
            "popular": [[side.ids.tolist(), side.counts.tolist()] for side in popular],
        }
    with written(path):
        sc.parallelize([json.dumps(metadata)], 1).saveAsTextFile(f"{path}/metadata")
        session = _session(sc)
        for side, table in zip(ID_NAMES, tables, strict=True):
            rows = table.blocks.mapPartitions(_as_rows)
            session.createDataFrame(rows, schema, verifySchema=False).write.parquet(
                f"{path}/data/{side}"
            )


def check_readable(path: str) -> None:
    """Raise `SettingError` if Spark would take a path for a pattern, or for several paths."""
    if special := PATTERN & set(path):
        raise SettingError(
            f"path {path} has a {min(special)} in it, by which Spark would not find what is saved "
            "there again; save under another name."
        )


def check_free(sc: SparkContext, path: str, parts: Iterable[str]) -> None:
    """Check that some parts of a model can be saved at `path`, and loaded from there.

    Raises
    ------
    ModelExistsError
        If there is one of them, or a file.
    SettingError
        If Spark would take the path for a pattern, or for several.
    """
    check_readable(path)
    with written(path):
        files, folder = located(sc, path)
        if files.exists(folder) and not files.getFileStatus(folder).isDirectory():
            raise ModelExistsError(f"{path} is a file: save elsewhere, or delete it first.")
        for part in parts:
            if files.exists(located(sc, f"{path}/{part}")[1]):
                raise ModelExistsError(
                    f"There is {path}/{part} already: save elsewhere, or delete it first."
                )


@contextmanager
def written(path: str) -> Iterator[None]:
    """Let what Spark says of a place that it cannot write to be a `SettingError`."""
    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        raise SettingError(
            f"The model cannot be saved at {path}: {cause(error)}. Pass a directory that Spark "
            "can make and write to."
        ) from error


def read_model(sc: SparkContext, path: str) -> SavedModel:
    """The model at `path`; both sides have as many blocks."""
    ship(sc)
    metadata_path, *data_paths = _parts(sc, path)
    metadata = read_metadata(sc, path, metadata_path, (CLASS, VERSION))
    try:
        rank = int(metadata["rank"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(
            f"{path}/metadata does not describe a model: {metadata!r}."
        ) from error
    settings, popular = _own(metadata.get(OWN_KEY), path)
    tables: list[FactorTable] = []
    try:
        sides = [_read_side(_session(sc), data_path, rank) for data_path in data_paths]
        partitions = max(sc.defaultParallelism, *(rows.getNumPartitions() for rows in sides))
        partitioner = HashPartitioner(partitions)
        for rows in sides:
            table = FactorTable.from_rows(rows, partitioner, rank)
            table.blocks.persist(storage_level(sc))
            tables.append(table)
    except BaseException:
        for table in tables:
            table.blocks.unpersist()
        raise
    return SavedModel(rank, tables[0], tables[1], settings, popular)


def read_metadata(
    sc: SparkContext, path: str, metadata_path: str, wanted: tuple[str, str]
) -> dict[str, Any]:
    """The metadata of a model at `path`, which must be of the class and format that are wanted.

    Raises
    ------
    ModelFormatError
        If they are not, or cannot be read.
    """
    try:
        lines = head(sc.textFile(metadata_path))
    except Py4JJavaError as error:
        raise ModelFormatError(
            f"{path} holds no model: {path}/metadata cannot be read. "
            "Pass a directory that save() wrote."
        ) from error
    try:
        metadata: dict[str, Any] = json.loads(lines[0])
        found = (metadata["class"], metadata["version"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(f"{path}/metadata does not describe a model: {lines!r}.") from error
    if found != wanted:
        raise ModelFormatError(
            f"{path} holds {found[0]} of format {found[1]}; "
            f"only {wanted[0]} of format {wanted[1]} can be loaded."
        )
    return metadata


def _parts(sc: SparkContext, path: str) -> tuple[str, str, str]:
    """Where the metadata, users and products of the model at `path` are.

    MLlib quotes a path as a URL does before it saves to it, and its data's path twice; what it
    has saved at "a b" is at "a%20b" and "a%2520b".
    """
    places = (f"{path}/metadata", f"{path}/data/user", f"{path}/data/product")
    try:
        files, folder = located(sc, path)
        once = folder.toUri().toString()
        twice = located(sc, once)[1].toUri().toString()
        if once == path or files.exists(located(sc, places[0])[1]):
            return places
        if files.exists(located(sc, f"{once}/metadata")[1]):
            return f"{once}/metadata", f"{twice}/data/user", f"{twice}/data/product"
    except Py4JJavaError:  # reading it says what is wrong
        pass
    return places


def _own(document: Any, path: str) -> tuple[Settings | None, tuple[Popularity, Popularity] | None]:
    """What this library, and no other, has written into the metadata."""
    if document is None:
        return None, None
    try:
        users, products = (
            Popularity(np.array(ids, dtype=np.int32), np.array(counts, dtype=np.int32))
            for ids, counts in document["popular"]
        )
        return Settings.checked(**document["settings"]), (users, products)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(
            f"{path}/metadata has an entry {OWN_KEY!r} that cannot be read ({error}); remove the "
            "entry to load the factors alone, as MLlib does."
        ) from error


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


@spark_task
def _as_rows(blocks: Iterable[FactorBlock]) -> Iterator[tuple[int, list[float]]]:
    for block in blocks:
        yield from zip(block.ids.tolist(), block.rows.tolist(), strict=True)


def _session(sc: SparkContext) -> Any:
    return SparkSession(sc)
