"""Files of a stream's model.

``metadata/`` holds one line of JSON; ``data/user`` and ``data/product`` hold Parquet with columns
``id`` (int), ``factor`` (array of float), ``bias`` (float) and ``ratings`` (long). A model that
stores its ratings has them in ``data/rating``, with columns ``user``, ``product`` and ``rating``.
The metadata are written last: without them a model is incomplete.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, FloatType, StructType

from partitioners import HashPartitioner
from rddals.blocks.factors import FactorBlock
from rddals.blocks.ratings import RatingBlock
from rddals.blocks.sides import ID_NAMES, PRODUCTS, USERS
from rddals.config import StreamSettings
from rddals.errors import ModelFormatError, RatingError
from rddals.model.files import check_free, read_metadata, written
from rddals.rdds.factors import FactorTable
from rddals.rdds.frames import Columns
from rddals.rdds.ingest import rating_source
from rddals.rdds.lifetimes import cut_lineage, undo_on_failure
from rddals.rdds.scatter import Piece, own_ratings, scatter_ratings
from rddals.rdds.shipping import ship
from rddals.rdds.shuffles import map_blocks
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task
from rddals.streaming.history import all_ratings
from rddals.streaming.levels import Level, Levels
from rddals.streaming.rows import state_width
from rddals.streaming.state import StreamState

CLASS = "rddals.StreamingModel"
VERSION = "1"
SCHEMA = (
    StructType()
    .add("id", "integer", nullable=False)
    .add("factor", ArrayType(FloatType(), containsNull=False), nullable=False)
    .add("bias", "float", nullable=False)
    .add("ratings", "long", nullable=False)
)
#: Spark can be set to reserve the word ``user``, hence the quotes.
RATING_SCHEMA = "`user` int not null, product int not null, rating float not null"
#: Condition for rows with missing or non-finite values. Spark sorts NaN above every number, so NaN
#: fails the bound too.
UNUSABLE = f"""
    id is null or factor is null or ratings is null or exists(
        concat(factor, array(bias)),
        x -> coalesce(not (abs(x) <= {np.finfo(np.float32).max!s}D), true)
    )
"""


def write_stream(
    sc: SparkContext, path: str, state: StreamState, settings: StreamSettings, columns: Columns
) -> None:
    """Save a state at `path`.

    Raise `ModelExistsError` if `path` already holds a model, and `SettingError` if it cannot be
    written.
    """
    check_free(sc, path, ("metadata", "data/rating", *(f"data/{side}" for side in ID_NAMES)))
    session = SparkSession(sc)
    with written(path):
        for name, levels in zip(ID_NAMES, state.sides, strict=True):
            rows = levels.table().blocks.mapPartitions(_as_rows)
            frame = session.createDataFrame(rows, SCHEMA, verifySchema=False)
            frame.write.parquet(f"{path}/data/{name}")
        if state.history is not None:
            by_user = all_ratings(state.history[USERS].rdds).mapPartitions(_as_ratings)
            frame = session.createDataFrame(by_user, RATING_SCHEMA, verifySchema=False)
            frame.write.parquet(f"{path}/data/rating")
        metadata = {
            "class": CLASS,
            "version": VERSION,
            "settings": settings.document(),
            "columns": list(columns),
            "total": str(state.total),
            "ratings": state.ratings,
            "batches": state.batches,
            "ids": list(state.ids),
        }
        sc.parallelize([json.dumps(metadata)], 1).saveAsTextFile(f"{path}/metadata")


def read_stream(sc: SparkContext, path: str) -> tuple[StreamState, StreamSettings, Columns]:
    """Read what `write_stream` saved. The state's levels are not retained yet.

    Raise `ModelFormatError` if the files are missing or incomplete.
    """
    ship(sc)
    metadata = read_metadata(sc, path, f"{path}/metadata", (CLASS, VERSION))
    try:
        settings = StreamSettings.checked(**metadata["settings"])
        columns = Columns.checked(*metadata["columns"])
        total, ratings = Fraction(metadata["total"]), int(metadata["ratings"])
        batches = int(metadata["batches"])
        users, products = map(int, metadata["ids"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelFormatError(
            f"{path}/metadata cannot be read ({error}): {metadata!r}."
        ) from error
    sides: list[Levels] = []
    history = None
    with undo_on_failure() as undo:
        for name, ids in zip(ID_NAMES, (users, products), strict=True):
            sides.append(_read_side(sc, f"{path}/data/{name}", settings.rank, ids))
            undo.callback(sides[-1].discard)
        if settings.update == "als":
            history = _read_ratings(sc, f"{path}/data/rating", sides, ratings)
    state = StreamState((sides[0], sides[1]), (users, products), total, ratings, batches, history)
    return state, settings, columns


def _read_ratings(
    sc: SparkContext, path: str, sides: list[Levels], ratings: int
) -> tuple[Levels, Levels]:
    users, products = (side.partitioner for side in sides)
    histories: list[Levels] = []
    try:
        with undo_on_failure() as undo, ExitStack() as stack:
            task_reports = stack.enter_context(closing(TaskReports(sc)))
            frame = SparkSession(sc).read.schema(RATING_SCHEMA).parquet(path)
            shuffle = scatter_ratings(rating_source(frame), (users, products), task_reports)
            stack.callback(shuffle.release)
            for side, partitioner in ((USERS, users), (PRODUCTS, products)):
                blocks = map_blocks(shuffle.rdd, partial(_own_ratings, side))
                cut_lineage(blocks)
                histories.append(Levels(partitioner, (Level(blocks, ratings),), all_ratings))
                undo.callback(histories[-1].discard)
            for error in task_reports.take("error"):
                raise error
            count = sum(histories[USERS].rdds[0].map(len).collect())
            if count != ratings:
                raise RatingError(f"expected {ratings} ratings but found {count}")
    except (AnalysisException, Py4JJavaError, PySparkException, RatingError) as error:
        raise ModelFormatError(
            f"{path} cannot be read: a file in it is missing or damaged."
        ) from error
    return histories[USERS], histories[PRODUCTS]


def _read_side(sc: SparkContext, path: str, rank: int, ids: int) -> Levels:
    width = state_width(rank)
    try:
        frame = SparkSession(sc).read.schema(SCHEMA).parquet(path)
        count, distinct, shortest, longest, unusable = frame.selectExpr(
            "count(*)",
            "count(distinct id)",
            "min(size(factor))",
            "max(size(factor))",
            f"count_if({UNUSABLE})",
        ).first()
    except (AnalysisException, Py4JJavaError, PySparkException) as error:
        raise ModelFormatError(
            f"{path} cannot be read: a file in it is missing, damaged or not Parquet."
        ) from error
    if (count, distinct) != (ids, ids) or {shortest, longest} != {rank}:
        raise ModelFormatError(
            f"{path} holds {count} rows of {distinct} ids, with factors of length {shortest} to "
            f"{longest}; the metadata have {ids} ids and rank {rank}."
        )
    if unusable:
        raise ModelFormatError(f"{path} holds {unusable} rows with missing or non-finite values.")
    rows = frame.selectExpr("id", "concat(factor, array(bias, cast(ratings as float)))").rdd
    partitioner = HashPartitioner(sc.defaultParallelism)
    table, shuffle = FactorTable.shuffled(rows, partitioner, width)
    try:
        cut_lineage(table.blocks)
    finally:
        shuffle.release()
    return Levels(partitioner, (Level(table.blocks, ids),))


@spark_task
def _own_ratings(side: int, pieces: Iterable[tuple[int, Piece]]) -> Iterator[RatingBlock]:
    yield own_ratings(pieces, side)


@spark_task
def _as_ratings(blocks: Iterable[RatingBlock]) -> Iterator[tuple[int, int, float]]:
    for block in blocks:
        columns = (block.users, block.products, block.ratings)
        yield from zip(*(column.tolist() for column in columns), strict=True)


@spark_task
def _as_rows(blocks: Iterable[FactorBlock]) -> Iterator[tuple[int, Any, float, int]]:
    for block in blocks:
        yield from zip(
            block.ids.tolist(),
            block.rows[:, :-2].tolist(),
            block.rows[:, -2].tolist(),
            block.rows[:, -1].astype(int).tolist(),
            strict=True,
        )
