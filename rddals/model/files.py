"""Model files in MLlib's format 1.0, which MLlib and rddals can exchange.

``metadata/`` holds one line of JSON; ``data/user`` and ``data/product`` hold Parquet with columns
``id`` (int) and ``features`` (array of double).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

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
from rddals.errors import ModelExistsError, ModelFormatError, RddalsError, SettingError
from rddals.rdds.context import context_of, head, is_stopped
from rddals.rdds.factors import FactorTable
from rddals.rdds.failures import cause
from rddals.rdds.hadoop import located
from rddals.rdds.lifetimes import storage_level, undo_on_failure
from rddals.rdds.shipping import ship
from rddals.rdds.worker_tuning import spark_task

#: Package of the classes of spark.ml.
ML = "org.apache.spark.ml."
CLASS = "org.apache.spark.mllib.recommendation.MatrixFactorizationModel"
VERSION = "1.0"
#: Metadata entry for settings that MLlib's format does not store.
OWN_KEY = "rddals"
#: Characters that Spark interprets as separators or patterns in paths.
PATH_PATTERN_CHARACTERS = frozenset(",*?[]{}\\")


def write_model(
    sc: SparkContext,
    path: str,
    rank: int,
    tables: Iterable[FactorTable],
    settings: Settings | None,
    popular: tuple[Popularity, Popularity],
) -> None:
    """Save the factors of both sides at `path`, which must not contain a model.

    Settings and popular ids are stored in the metadata under a key that MLlib ignores.
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
        session = SparkSession(sc)
        for side, table in zip(ID_NAMES, tables, strict=True):
            rows = table.blocks.mapPartitions(_as_rows)
            session.createDataFrame(rows, schema, verifySchema=False).write.parquet(
                f"{path}/data/{side}"
            )


def checked_location(sc: Any, path: Any) -> SparkContext:
    """Return the running context of `sc`; raise unless `path` is a non-empty string."""
    sc = context_of(sc)
    if not isinstance(path, str):
        raise TypeError(f"path should be a string, got type {type(path)}")
    if is_stopped(sc):
        raise SettingError("The SparkContext is stopped; pass a running one.")
    if not path:
        raise SettingError("path is empty; pass the path of a directory.")
    return sc


def check_readable(path: str) -> None:
    """Raise `SettingError` if Spark reads the path as a pattern or as several paths."""
    if special := PATH_PATTERN_CHARACTERS & set(path):
        raise SettingError(
            f"path {path} has a {min(special)} in it, which Spark treats as a pattern when it "
            "reads; save under another name."
        )


def check_free(sc: SparkContext, path: str, parts: Iterable[str]) -> None:
    """Check that parts of a model can be saved at `path` and loaded from there.

    If a part exists, or `path` is a file, raise `ModelExistsError`. If Spark reads the path as a
    pattern or as several paths, raise `SettingError`.
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
    """Convert Spark's errors about an unwritable path to `SettingError`."""
    try:
        yield
    except RddalsError:  # a Py4JJavaError, too, after `rddals.install`
        raise
    except (Py4JJavaError, PySparkException) as error:
        raise SettingError(
            f"The model cannot be saved at {path}: {cause(error)}. Pass a directory that Spark "
            "can create and write to."
        ) from error


def read_model(
    sc: SparkContext, path: str
) -> tuple[int, FactorTable, FactorTable, Settings | None, tuple[Popularity, Popularity] | None]:
    """Read the rank, users, products, settings and popular ids of the model at `path`.

    Both sides get the same number of blocks. MLlib does not save settings and popular ids.
    """
    ship(sc)
    metadata_path, *data_paths = _parts(sc, path)
    metadata = read_metadata(sc, path, metadata_path, (CLASS, VERSION))
    try:
        rank = int(metadata["rank"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(
            f"{path}/metadata does not describe a model: {metadata!r}. "
            "Pass a directory that save() wrote."
        ) from error
    settings, popular = _rddals_entry(metadata.get(OWN_KEY), path)
    tables: list[FactorTable] = []
    with undo_on_failure() as undo:
        sides = [_read_side(SparkSession(sc), data_path, rank) for data_path in data_paths]
        partitions = max(sc.defaultParallelism, *(rows.getNumPartitions() for rows in sides))
        partitioner = HashPartitioner(partitions)
        for rows in sides:
            table = FactorTable.from_rows(rows, partitioner, rank)
            table.blocks.persist(storage_level(sc))
            undo.callback(table.discard)
            tables.append(table)
    return rank, tables[0], tables[1], settings, popular


def read_metadata(
    sc: SparkContext, path: str, metadata_path: str, expected: tuple[str, str]
) -> dict[str, Any]:
    """Read the metadata of a model at `path` and check its class and format version.

    If they differ from `expected`, or the metadata cannot be read, raise `ModelFormatError`.
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
        kind = metadata["class"]
        # Models of spark.ml have no version.
        version = metadata.get("version") if kind.startswith(ML) else metadata["version"]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(
            f"{path}/metadata does not describe a model: {lines!r}. "
            "Pass a directory that save() wrote."
        ) from error
    if (kind, version) != expected:
        raise ModelFormatError(_other_model(path, kind, version, *expected))
    return metadata


def _other_model(path: str, kind: str, version: Any, expected: str, expected_version: str) -> str:
    """Return the message for a model of another class or format."""
    if kind.startswith(ML):
        name = kind.replace(ML, "pyspark.ml.", 1)
        return f"{path} holds a model of spark.ml. Load it with {name}.load({path!r})."
    if kind in (CLASS, "rddals.StreamingModel") and kind != expected:
        loader = "MatrixFactorizationModel" if kind == CLASS else "StreamingModel"
        return f"{path} holds a {loader}. Load it with rddals.{loader}.load(sc, {path!r})."
    return (
        f"{path} holds {kind} of format {version}; "
        f"only {expected} of format {expected_version} can be loaded."
    )


def _parts(sc: SparkContext, path: str) -> tuple[str, str, str]:
    """Return the paths of the metadata, users and products of the model at `path`.

    MLlib URL-encodes a path before it saves to it, and the path of the data twice: a model saved
    at "a b" has its metadata at "a%20b" and its data at "a%2520b".
    """
    plain = (f"{path}/metadata", f"{path}/data/user", f"{path}/data/product")
    try:
        files, folder = located(sc, path)
        once = folder.toUri().toString()
        twice = located(sc, once)[1].toUri().toString()
        if once == path or files.exists(located(sc, plain[0])[1]):
            return plain
        if files.exists(located(sc, f"{once}/metadata")[1]):
            return f"{once}/metadata", f"{twice}/data/user", f"{twice}/data/product"
    except Py4JJavaError:  # the read that follows reports the error
        pass
    return plain


def _rddals_entry(
    document: Any, path: str
) -> tuple[Settings | None, tuple[Popularity, Popularity] | None]:
    """Parse the metadata entry that only rddals writes."""
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
    """Read ids and features, and check for missing, repeated and out-of-range values."""
    try:
        frame = session.read.parquet(path).select("id", "features")
    except AnalysisException as error:
        raise ModelFormatError(
            f"The model is incomplete: {path} has no columns id and features. Save it again."
        ) from error
    except Py4JJavaError as error:
        raise _damaged(path) from error
    kinds = [frame.schema[name].dataType.simpleString() for name in ("id", "features")]
    if kinds[0] != "int" or kinds[1] not in ("array<double>", "array<float>"):
        raise ModelFormatError(
            f"{path} holds columns id of type {kinds[0]} and features of type {kinds[1]}; "
            "they must be int and array<double>."
        )
    # Spark orders NaN above every number, so this comparison rejects it.
    unusable = f"""
        id is null or features is null
        or exists(features, x -> coalesce(not (abs(x) <= {np.finfo(np.float32).max!s}D), true))
    """
    try:
        summary = frame.selectExpr(
            f"count_if({unusable}) unusable",
            f"min(case when {unusable} then id end) example",
            "min(size(features)) shortest",
            "max(size(features)) longest",
            "count(*) - count(distinct id) repeated",
        ).first()
    except (Py4JJavaError, PySparkException) as error:
        raise _damaged(path) from error
    if summary.unusable:
        raise ModelFormatError(
            f"{path} holds {summary.unusable} rows without an id, or with features that are not "
            f"finite 32-bit floats: id {summary.example}. Save the model again."
        )
    if summary.shortest is not None and (summary.shortest, summary.longest) != (rank, rank):
        raise ModelFormatError(
            f"The metadata say rank {rank} but {path} holds features of length "
            f"{summary.shortest} to {summary.longest}. Save the model again."
        )
    if summary.repeated:
        raise ModelFormatError(
            f"{path} holds {summary.repeated} ids more than once. Save the model again."
        )
    return frame.rdd


def _damaged(path: str) -> ModelFormatError:
    return ModelFormatError(
        f"{path} cannot be read: a file in it is damaged or not Parquet. Save the model again."
    )


@spark_task
def _as_rows(blocks: Iterable[FactorBlock]) -> Iterator[tuple[int, list[float]]]:
    for block in blocks:
        yield from zip(block.ids.tolist(), block.rows.tolist(), strict=True)
