"""Files wherever Spark keeps them: this disk, HDFS, a bucket."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from rddals.cli.failures import InputError
from rddals.errors import RddalsError
from rddals.model.files import check_readable
from rddals.model.matrix import MatrixFactorizationModel
from rddals.rdds.failures import summary
from rddals.rdds.hadoop import exists, located, qualified

__all__ = [
    "check_destination",
    "check_stream",
    "load_model",
    "save_model",
    "save_streamed",
    "stream_folder",
    "stream_lock",
]


def check_destination(spark: SparkSession, path: str, overwrite: bool) -> None:
    """Refuse a place to save a model at, before the training.

    Only a model is ever overwritten.
    """
    if not path:
        raise InputError("--out is empty; pass a directory")
    if not exists(spark, path):
        _check_writable(spark, path)
        return
    if not overwrite:
        raise InputError(f"{path} exists; pass another --out, or --overwrite to replace a model")
    if exists(spark, stream_folder(path)):
        raise InputError(
            f"{path} exists and keeps a stream, which would be lost; pass another --out"
        )
    if not all(exists(spark, f"{path}/{part}") for part in ("metadata", "data/user")):
        raise InputError(f"{path} exists and holds no model; pass another --out")


def stream_folder(path: str) -> str:
    """Where a stream whose model is at `path` keeps what it goes on with."""
    return f"{path.rstrip('/')}/stream"


def check_stream(spark: SparkSession, folder: str, path: str) -> None:
    """Refuse a folder that is none to read from, or a place where no stream may be kept."""
    if not path:
        raise InputError("--out is empty; pass a directory")
    check_readable(path)
    try:
        files, location = located(spark.sparkContext, folder)
        found = bool(files.exists(location)) and files.getFileStatus(location).isDirectory()
    except (Py4JJavaError, Py4JError) as error:
        raise InputError(f"{folder!r} cannot be read: {summary(error)}") from error
    if not found:
        raise InputError(f"{folder}: there is no such directory; files of ratings are put in one")
    inside, outside = (qualified(spark, name).rstrip("/") + "/" for name in (path, folder))
    if inside.startswith(outside):
        raise InputError(f"--out {path} is inside {folder}, where ratings are read; pass another")
    if not exists(spark, path):
        _check_writable(spark, path)
    elif not exists(spark, stream_folder(path)):
        raise InputError(f"{path} exists and no stream was kept there; pass another --out")


def _check_writable(spark: SparkSession, path: str) -> None:
    """Make the directory, and take away again what was made."""
    try:
        files, location = located(spark.sparkContext, path)
        made = location
        while made.getParent() is not None and not files.exists(made.getParent()):
            made = made.getParent()
        possible = files.mkdirs(location)
        files.delete(made, True)
    except Py4JJavaError as error:
        raise InputError(f"{path} cannot be made: {summary(error)}; pass another --out") from error
    if not possible:
        raise InputError(f"{path} cannot be made; pass another --out")


def save_model(
    spark: SparkSession, model: MatrixFactorizationModel, path: str, overwrite: bool
) -> None:
    """Save a model; one that it replaces goes only when the new one is complete."""
    if not (overwrite and exists(spark, path)):
        model.save(spark.sparkContext, path)
        return
    fresh = f"{path.rstrip('/')}.new"
    files, location = located(spark.sparkContext, fresh)
    files.delete(location, True)  # left over, if at all, from a save that was interrupted
    model.save(spark.sparkContext, fresh)
    destination = located(spark.sparkContext, path)[1]
    files.delete(destination, True)
    files.rename(location, destination)


def save_streamed(spark: SparkSession, model: MatrixFactorizationModel, path: str) -> None:
    """Save the model of a stream beside what the stream goes on with, in place of an older one."""
    fresh, old = (f"{stream_folder(path)}/{name}" for name in ("new model", "old model"))
    files, _ = located(spark.sparkContext, path)

    def at(name: str) -> Any:
        return located(spark.sparkContext, name)[1]

    def delete(name: str) -> None:
        files.delete(at(name), True)

    def move(part: str, source: str, target: str) -> None:
        if exists(spark, f"{source}/{part}"):
            files.mkdirs(at(target))
            if not files.rename(at(f"{source}/{part}"), at(f"{target}/{part}")):
                raise RddalsError(f"{target}/{part} cannot be written; the model is at {fresh}")

    for name in (fresh, old):  # left over, if at all, from a save that was interrupted
        delete(name)
    model.save(spark.sparkContext, fresh)
    # Metadata go first and come last: without them there is no model.
    for part in ("metadata", "data"):
        move(part, path, old)
    for part in ("data", "metadata"):
        move(part, fresh, path)
    for name in (fresh, old):
        delete(name)


@contextmanager
def stream_lock(spark: SparkSession, path: str) -> Iterator[None]:
    """Let no other process of this machine keep a stream at `path` meanwhile.

    Elsewhere than on this machine's disks, nobody is kept from it.
    """
    files, location = located(spark.sparkContext, stream_folder(path))
    if files.getScheme() != "file":
        yield
        return
    folder = Path(files.makeQualified(location).toUri().getPath())
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{path}: another process keeps its stream there; wait for its end, or pass "
                "another --out"
            ) from error
        yield  # whatever ends this process ends its hold


def load_model(spark: SparkSession, path: str) -> MatrixFactorizationModel:
    """Load a model, or say in one line why not."""
    if not exists(spark, path):
        raise InputError(f"{path}: there is no such directory; pass one that rddals train wrote")
    try:
        return MatrixFactorizationModel.load(spark.sparkContext, path)
    except (Py4JJavaError, PySparkException) as error:
        raise InputError(f"{path} holds no complete model: {summary(error)}") from error
