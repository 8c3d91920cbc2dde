"""Checkpoints of a stream's state after every batch, so that a killed driver loses nothing.

A location holds ``levels/``, with a folder for every level of the state, and ``states/``, with a
JSON file for the last batch that names its levels. A batch first writes its new levels, which are
as small as the batch, then its state under a temporary name. Renaming that file commits the batch.
Afterwards everything that the state does not name is deleted.
"""

from __future__ import annotations

import base64
import json
import pickle
import re
import uuid
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import cloudpickle
from numpy.typing import NDArray
from pyspark import SparkContext

from partitioners import Partitioner
from rddals.blocks.checked_blocks import check_placement
from rddals.blocks.factors import FactorBlock
from rddals.blocks.ratings import RatingBlock
from rddals.blocks.sides import PRODUCTS, USERS
from rddals.config import StreamSettings
from rddals.errors import ModelFormatError, RddalsError
from rddals.model.files import check_readable, written
from rddals.rdds.factors import newest_rows, sample_ids, split_by_block
from rddals.rdds.failures import cause
from rddals.rdds.hadoop import located, names_in, text_of, write_text
from rddals.rdds.lifetimes import cut_lineage, undo_on_failure
from rddals.rdds.shipping import ship
from rddals.rdds.shuffles import Shuffle, map_blocks
from rddals.rdds.worker_tuning import spark_task
from rddals.streaming.history import all_ratings
from rddals.streaming.levels import Level, Levels
from rddals.streaming.rows import state_width
from rddals.streaming.state import StreamState

VERSION = 1
#: Names of a state's parts in its file, in order.
PARTS = ("users", "products", "ratings of users", "ratings of products")


class Checkpoint:
    """Location where one stream saves its state.

    It is a directory on any file system that Spark supports, and is created if missing.
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
        """Save a state in place of the previous one.

        Raise `SettingError` if the location cannot be written.
        """
        with written(self.location):
            for levels in state.all_levels:
                for level in levels.levels:
                    # `saved` can name a level at another location, or one deleted here since.
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
            temporary = f"states/{number}.beginning"
            write_text(self._sc, f"{self.location}/{temporary}", json.dumps(document))
            if not self.rename(temporary, f"states/{number}.json"):
                raise RddalsError(f"{self.location}/states/{number}.json cannot be written.")
            self.delete_unused(number, document)

    def load(self) -> tuple[StreamState, StreamSettings, int | None] | None:
        """Return the last complete state, its settings and its batch's number; None without one.

        The state's levels are not retained yet. Raise `ModelFormatError` if it cannot be read.
        """
        number = max(self._numbers(), default=None)
        if number is None:
            return None
        ship(self._sc)
        path = f"{self.location}/states/{number}.json"
        try:
            document = json.loads(text_of(self._sc, path))
            if document["version"] != VERSION:
                raise ValueError(f"version {document['version']}")
            settings, batch_id = StreamSettings.checked(**document["settings"]), document["batchId"]
            return self._state(document, settings), settings, batch_id
        except Exception as error:  # unpickling can raise any exception
            raise ModelFormatError(
                f"{path} or a level it names cannot be read ({cause(error)}); restore the location "
                "from a copy, or start the stream again at another one."
            ) from error

    def rename(self, name: str, new_name: str) -> bool:
        """Rename a file of the location; return False if the file system refuses."""
        return bool(self._files.rename(self._path(name), self._path(new_name)))

    def delete_unused(self, number: int, document: dict[str, Any]) -> None:
        """Delete everything that the newest state, `number`, does not name in its `document`."""
        level_names = {saved for levels in document["levels"].values() for saved, _ in levels}
        for folder, needed in (("levels", level_names), ("states", {f"{number}.json"})):
            for name in names_in(self._sc, f"{self.location}/{folder}"):
                if name not in needed:
                    self._files.delete(self._path(f"{folder}/{name}"), True)

    def _state(self, document: dict[str, Any], settings: StreamSettings) -> StreamState:
        partitioners = [_unpacked(packed) for packed in document["partitioners"]]
        users, products = map(int, document["ids"])
        counts = {name: int(document[name]) for name in ("ratings", "batches")}
        total = Fraction(document["total"])
        parts: list[Levels] = []
        with undo_on_failure() as undo:
            for part, name in enumerate(PARTS[: len(document["levels"])]):
                side = part % 2
                split = partial(_by_block, side, partitioners[side])
                width = state_width(settings.rank) if part < len(partitioners) else 0
                levels = []
                for saved, rows in document["levels"][name]:
                    level = self._level(saved, int(rows), split, width, document["partitions"])
                    undo.callback(level.discard)
                    levels.append(level)
                if part < len(partitioners) and levels:
                    check_placement(partitioners[side], sample_ids(levels[0].blocks))
                merge = newest_rows if part < len(partitioners) else all_ratings
                parts.append(Levels(partitioners[side], tuple(levels), merge))
            return StreamState(
                sides=(parts[USERS], parts[PRODUCTS]),
                ids=(users, products),
                total=total,
                history=(parts[2], parts[3]) if len(parts) > 2 else None,
                **counts,
            )

    def _level(self, saved: str, rows: int, split: Any, width: int, partitions: int) -> Level:
        records = self._sc.pickleFile(f"{self.location}/levels/{saved}")
        shuffle = Shuffle(records.mapPartitions(split), partitions)
        try:
            blocks = map_blocks(shuffle.rdd, partial(_merged, width))
            cut_lineage(blocks)
        finally:
            shuffle.release()
        level = Level(blocks, rows)
        level.saved = saved
        return level

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
        raise ValueError(f"{partitioner!r} is not a partitioner")
    return partitioner


@spark_task
def _by_block(
    side: int, partitioner: Partitioner, blocks: Iterable[FactorBlock | RatingBlock]
) -> Iterator[tuple[int, FactorBlock | RatingBlock]]:
    """Split the rows or ratings of a level by the blocks of their ids."""
    columns: tuple[NDArray[Any], ...]
    for own in blocks:
        if isinstance(own, FactorBlock):
            ids, columns = own.ids, (own.ids, own.rows)
        else:
            ids = own.users if side == USERS else own.products
            columns = (own.users, own.products, own.ratings)
        for block, part in split_by_block(partitioner.block_of(ids), *columns):
            yield block, type(own)(*part)


@spark_task
def _merged(width: int, pieces: Iterable[tuple[int, Any]]) -> Iterator[Any]:
    blocks = [block for _, block in pieces]
    if width:
        yield FactorBlock.merged(blocks, width)
    else:
        yield RatingBlock.concatenate(blocks)
