"""A stream's state on disk, batch by batch, such that a killed driver loses nothing.

At a location there are ``levels/``, a folder for every level of the state, and ``states/``, a file
of JSON for the last batch that names its levels. A batch writes the levels it has made, which are
as small as itself, then its state under another name, and renames that: the one step that counts.
What no state names is deleted afterwards.
"""

from __future__ import annotations

import base64
import json
import pickle
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import cloudpickle
from pyspark import SparkContext

from partitioners import Partitioner
from rddals.blocks.factors import FactorBlock
from rddals.blocks.ratings import RatingBlock
from rddals.blocks.sides import PRODUCTS, USERS
from rddals.config import StreamSettings
from rddals.errors import ModelFormatError, RddalsError
from rddals.model.files import check_readable, written
from rddals.rdds.factors import newest_rows, split_by_block
from rddals.rdds.failures import cause
from rddals.rdds.hadoop import located, names_in, text_of
from rddals.rdds.lifetimes import cut_lineage
from rddals.rdds.shipping import ship
from rddals.rdds.shuffles import Shuffle, with_shuffle_serializer
from rddals.rdds.worker_tuning import spark_task
from rddals.streaming.history import all_ratings
from rddals.streaming.levels import Level, Levels
from rddals.streaming.rows import state_width
from rddals.streaming.state import StreamState

__all__ = ["Checkpoint", "SavedState"]

VERSION = 1
#: What the parts of a state are called in its file, in their order.
PARTS = ("users", "products", "ratings of users", "ratings of products")


@dataclass(frozen=True, slots=True)
class SavedState:
    """What a checkpoint holds; nobody holds the state's levels yet.

    Attributes
    ----------
    state : StreamState
    settings : StreamSettings
    batch_id : int or None
        Of the last batch, if it had one.
    """

    state: StreamState
    settings: StreamSettings
    batch_id: int | None


class Checkpoint:
    """A location that one stream saves its state to.

    Parameters
    ----------
    sc : SparkContext
    location : str
        A directory of any file system that Spark knows; made if it is not there.
    """

    def __init__(self, sc: SparkContext, location: str) -> None:
        check_readable(location)
        self.location = location
        self._sc = sc
        with written(location):
            self._files, _ = located(sc, location)
            for folder in ("levels", "states"):
                self._files.mkdirs(self._path(folder))

    def save(self, state: StreamState, settings: StreamSettings, batch_id: int | None) -> None:
        """Save a state, which takes the place of the one before.

        Raises
        ------
        SettingError
            If it cannot be written.
        """
        with written(self.location):
            for levels in state.all_levels:
                for level in levels.levels:
                    # Another stream may have saved it elsewhere; a later state, deleted it here.
                    if level.saved is None or not self._files.exists(
                        self._path(f"levels/{level.saved}")
                    ):
                        name = uuid.uuid4().hex
                        level.blocks.saveAsPickleFile(f"{self.location}/levels/{name}")
                        level.saved = name
            document = {
                "version": VERSION,
                "settings": settings.document(),
                "batchId": batch_id,
                "batches": state.batches,
                "ratings": state.ratings,
                "total": str(state.total),
                "ids": state.ids,
                "partitioners": [_packed(side.partitioner) for side in state.sides],
                "partitions": state.sides[USERS].rdds[0].getNumPartitions(),
                "levels": {
                    part: [[level.saved, level.rows] for level in levels.levels]
                    for part, levels in zip(PARTS, state.all_levels, strict=False)
                },
            }
            number = max(self._numbers(), default=0) + 1
            beginning = self._path(f"states/{number}.beginning")
            stream = self._files.create(beginning, True)
            try:
                stream.write(bytearray(json.dumps(document).encode()))
            finally:
                stream.close()
            if not self._files.rename(beginning, self._path(f"states/{number}.json")):
                raise RddalsError(f"{self.location}/states/{number}.json cannot be written.")
            self._tidy(number, document)

    def load(self) -> SavedState | None:
        """The last state that was saved whole; None if there is none.

        Raises
        ------
        ModelFormatError
            If what is there cannot be read.
        """
        number = max(self._numbers(), default=None)
        if number is None:
            return None
        ship(self._sc)
        where = f"{self.location}/states/{number}.json"
        try:
            document = json.loads(text_of(self._sc, where))
            if document["version"] != VERSION:
                raise ValueError(f"version {document['version']}")
            settings, batch_id = StreamSettings.checked(**document["settings"]), document["batchId"]
            return SavedState(self._state(document, settings), settings, batch_id)
        except Exception as error:  # unpickling a partitioner may raise any
            raise ModelFormatError(
                f"{where} or what it names cannot be read ({cause(error)}); restore the "
                "location from a copy, or start the stream anew at another."
            ) from error

    def _state(self, document: dict[str, Any], settings: StreamSettings) -> StreamState:
        placed = [_unpacked(packed) for packed in document["partitioners"]]
        users, products = map(int, document["ids"])
        counted = {name: int(document[name]) for name in ("ratings", "batches")}
        total = Fraction(document["total"])
        parts: list[Levels] = []
        made: list[Level] = []
        try:
            for part, name in enumerate(PARTS[: len(document["levels"])]):
                side = part % 2
                read: Any = partial(_rows_by_block, placed[side])
                width = state_width(settings.rank)
                if part >= len(placed):
                    read, width = partial(_ratings_by_block, side, placed[side]), 0
                levels = []
                for saved, rows in document["levels"][name]:
                    level = self._level(saved, int(rows), read, width, document["partitions"])
                    made.append(level)
                    levels.append(level)
                merge = newest_rows if part < len(placed) else all_ratings
                parts.append(Levels(placed[side], tuple(levels), merge))
            return StreamState(
                sides=(parts[USERS], parts[PRODUCTS]),
                ids=(users, products),
                total=total,
                history=(parts[2], parts[3]) if len(parts) > 2 else None,
                **counted,
            )
        except BaseException:
            for level in made:
                level.retain().release()
            raise

    def _level(self, saved: str, rows: int, read: Any, width: int, partitions: int) -> Level:
        records = self._sc.pickleFile(f"{self.location}/levels/{saved}")
        shuffle = Shuffle(records.mapPartitions(read), partitions)
        try:
            blocks = with_shuffle_serializer(
                shuffle.rdd.mapPartitions(partial(_merged, width), preservesPartitioning=True)
            )
            cut_lineage(blocks)
        finally:
            shuffle.release()
        level = Level(blocks, rows)
        level.saved = saved
        return level

    def _tidy(self, number: int, document: dict[str, Any]) -> None:
        """Delete what the state of that number does not name."""
        needed = {saved for levels in document["levels"].values() for saved, _ in levels}
        for folder, kept in (("levels", needed), ("states", {f"{number}.json"})):
            for name in names_in(self._sc, f"{self.location}/{folder}"):
                if name not in kept:
                    self._files.delete(self._path(f"{folder}/{name}"), True)

    def _numbers(self) -> list[int]:
        names = names_in(self._sc, f"{self.location}/states")
        return [int(name[:-5]) for name in names if re.fullmatch(r"\d+\.json", name)]

    def _path(self, name: str) -> Any:
        return located(self._sc, f"{self.location}/{name}")[1]


def _packed(partitioner: Partitioner) -> str:
    return base64.b64encode(cloudpickle.dumps(partitioner)).decode()


def _unpacked(packed: str) -> Partitioner:
    partitioner = pickle.loads(base64.b64decode(packed))
    if not isinstance(partitioner, Partitioner):
        raise ValueError(f"{partitioner!r} is no partitioner")
    return partitioner


@spark_task
def _rows_by_block(
    partitioner: Partitioner, blocks: Iterable[FactorBlock]
) -> Iterator[tuple[int, FactorBlock]]:
    for factors in blocks:
        places = partitioner.block_of(factors.ids)
        for block, columns in split_by_block(places, factors.ids, factors.rows):
            yield block, FactorBlock(*columns)


@spark_task
def _ratings_by_block(
    side: int, partitioner: Partitioner, blocks: Iterable[RatingBlock]
) -> Iterator[tuple[int, RatingBlock]]:
    for own in blocks:
        places = partitioner.block_of(own.users if side == USERS else own.products)
        for block, columns in split_by_block(places, own.users, own.products, own.ratings):
            yield block, RatingBlock(*columns)


@spark_task
def _merged(width: int, pieces: Iterable[tuple[int, Any]]) -> Iterator[Any]:
    blocks = [block for _, block in pieces]
    if width:
        yield FactorBlock.merged(blocks, width)
    else:
        yield RatingBlock.concatenate(blocks)
