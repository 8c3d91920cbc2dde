"""Models and streams in any file system that Spark supports: local disk, HDFS, a bucket."""

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


def check_destination(spark: SparkSession, path: str, overwrite: bool) -> None:
    """Check before the training that a model can be saved at `path`.

    Only a model is overwritten.
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
            f"{path} exists and stores a stream, which would be lost; pass another --out"
        )
    if not all(exists(spark, f"{path}/{part}") for part in ("metadata", "data/user")):
        raise InputError(f"{path} exists and is not a model; pass another --out")


def stream_folder(path: str) -> str:
    """Return the folder of the state of the stream whose model is at `path`."""
    return f"{path.rstrip('/')}/stream"


def check_stream(spark: SparkSession, folder: str, path: str) -> None:
    """Check that `folder` can be read and that a stream can be stored at `path`."""
    if not path:
        raise InputError("--out is empty; pass a directory")
    check_readable(path)
    try:
        files, location = located(spark.sparkContext, folder)
        is_folder = bool(files.exists(location)) and files.getFileStatus(location).isDirectory()
    except (Py4JJavaError, Py4JError) as error:
        raise InputError(f"{folder!r} cannot be read: {summary(error)}") from error
    if not is_folder:
        raise InputError(f"{folder} is not an existing directory; pass the one with the ratings")
    model_url, folder_url = (qualified(spark, name).rstrip("/") + "/" for name in (path, folder))
    if model_url.startswith(folder_url):
        raise InputError(f"--out {path} is inside {folder}, which is read; pass another --out")
    if not exists(spark, path):
        _check_writable(spark, path)
    elif not exists(spark, stream_folder(path)):
        raise InputError(f"{path} exists and stores no stream; pass another --out")


def _check_writable(spark: SparkSession, path: str) -> None:
    """Check that the directory can be created, and remove what the check created."""
    try:
        files, location = located(spark.sparkContext, path)
        topmost = location
        while topmost.getParent() is not None and not files.exists(topmost.getParent()):
            topmost = topmost.getParent()
        is_created = files.mkdirs(location)
        files.delete(topmost, True)
    except Py4JJavaError as error:
        raise InputError(
            f"{path} cannot be created: {summary(error)}; pass another --out"
        ) from error
    if not is_created:
        raise InputError(f"{path} cannot be created; pass another --out")


def save_model(
    spark: SparkSession, model: MatrixFactorizationModel, path: str, overwrite: bool
) -> None:
    """Save a model; an existing one is deleted only when the new one is complete."""
    if not (overwrite and exists(spark, path)):
        model.save(spark.sparkContext, path)
        return
    fresh = f"{path.rstrip('/')}.new"
    files, location = located(spark.sparkContext, fresh)
    files.delete(location, True)  # an interrupted save may have left it
    model.save(spark.sparkContext, fresh)
    destination = located(spark.sparkContext, path)[1]
    files.delete(destination, True)
    files.rename(location, destination)


def save_streamed(spark: SparkSession, model: MatrixFactorizationModel, path: str) -> None:
    """Save the model of a stream beside the state of the stream, replacing an older model."""
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
                raise RddalsError(f"{target}/{part} cannot be written; use the model at {fresh}")

    for name in (fresh, old):  # an interrupted save may have left them
        delete(name)
    model.save(spark.sparkContext, fresh)
    # Metadata are removed first and written last: a directory without them is not a model.
    for part in ("metadata", "data"):
        move(part, path, old)
    for part in ("data", "metadata"):
        move(part, fresh, path)
    for name in (fresh, old):
        delete(name)


@contextmanager
def stream_lock(spark: SparkSession, path: str) -> Iterator[None]:
    """Keep other processes of this machine from storing a stream at `path` during the block.

    The lock works on local disks only.
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
                f"{path} is in use by another process; wait until it ends, or pass another --out"
            ) from error
        yield  # the system releases the lock when the process ends


def load_model(spark: SparkSession, path: str) -> MatrixFactorizationModel:
    """Load a model; raise a one-line error if that fails."""
    if not exists(spark, path):
        raise InputError(f"{path}: no such directory; pass one that rddals train wrote")
    if exists(spark, stream_folder(path)) and not exists(spark, f"{path}/metadata"):
        raise InputError(
            f"{path} stores a stream that has saved no model yet; continue it with rddals stream "
            f"FOLDER --out {path}"
        )
    try:
        return MatrixFactorizationModel.load(spark.sparkContext, path)
    except (Py4JJavaError, PySparkException) as error:
        raise InputError(f"{path} is not a complete model: {summary(error)}") from error
