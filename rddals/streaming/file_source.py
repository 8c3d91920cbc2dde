"""Files that a Structured Streaming query has found, from the logs in its checkpoint.

The DataFrame of a batch has less information. A file that was deleted after the query found it is
silently missing from it. And if the query was killed after it recorded new files but before it
started a batch with them, one DataFrame holds these files and the next ones.

A *listing* is one reading of the source directory. The source numbers its listings from 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.sql import DataFrame
from pyspark.sql.functions import input_file_name

from rddals.errors import ModelFormatError
from rddals.rdds.failures import cause
from rddals.rdds.hadoop import located, names_in, text_of
from rddals.rdds.query_lookup import query_checkpoint

__all__ = ["FileSourceLog", "batches_of"]

#: Column for the file that a row was read from.
FILE = "rddals_file"


class FileSourceLog:
    """Files found by a query whose only source is a file source.

    Parameters
    ----------
    sc : SparkContext
    checkpoint : str
        Checkpoint location of the query.
    """

    def __init__(self, sc: SparkContext, checkpoint: str) -> None:
        self._sc = sc
        self._offsets = f"{checkpoint}/offsets"
        self._source = f"{checkpoint}/sources/0"

    @property
    def last_batch(self) -> int | None:
        """Number of the last batch that was started; None before the first."""
        names = names_in(self._sc, self._offsets)
        return max((int(name) for name in names if name.isdecimal()), default=None)

    def listings(self, number: int) -> range:
        """Return the numbers of the listings that found the files of a batch.

        There is one, or several if the query was killed. The range is empty if the logs have no
        such numbers: the query has another source, or several.
        """
        before = self._last_of(number - 1) if number else -1
        last = self._last_of(number)
        return range(0) if before is None or last is None else range(before + 1, last + 1)

    def of_batch(self, number: int) -> Iterator[list[str]]:
        """Return the URLs of a batch's files in the order they were found, a list per listing.

        Raises
        ------
        ModelFormatError
            If a log cannot be read.
        """
        listings = self.listings(number)
        if not listings:
            raise ModelFormatError(
                f"{self._offsets} does not record the files of batch {number}; restore it, or "
                "start both the query and the model again."
            )
        return map(self._listed_files, listings)

    def _last_of(self, number: int) -> int | None:
        """Return the number of the last listing of a batch, or None if the logs do not have it."""
        log = f"{self._offsets}/{number}"
        files, location = located(self._sc, log)
        if not files.exists(location):
            return None
        offsets = self._lines(log)[2:]
        if len(offsets) != 1 or not (entry := re.fullmatch(r'\{"logOffset":(\d+)\}', offsets[0])):
            return None
        return int(entry[1])

    def _listed_files(self, listing: int) -> list[str]:
        # There is a log file per listing. Every tenth is compact: it repeats all earlier ones,
        # which Spark deletes later.
        suffix, names = ".compact", names_in(self._sc, self._source)
        name = str(listing)
        if name not in names:
            compact = (int(each.removesuffix(suffix)) for each in names if each.endswith(suffix))
            later = [number for number in compact if number >= listing]
            name = f"{min(later)}{suffix}" if later else name
        _, *lines = self._lines(f"{self._source}/{name}")
        entries = map(json.loads, lines)
        return [entry["path"] for entry in entries if entry["batchId"] == listing]

    def _lines(self, log: str) -> list[str]:
        try:
            return text_of(self._sc, log).splitlines()
        except Py4JJavaError as error:
            raise ModelFormatError(
                f"{log}, which lists the files of the query, cannot be read ({cause(error)}); "
                "restore it, or start both the query and the model again."
            ) from error


@contextmanager
def batches_of(ratings: Any, number: int) -> Iterator[Iterable[Any]]:
    """Yield the batches to learn under one number: several, one, or the parts of a merged one."""
    if isinstance(ratings, DataFrame):
        with split_merged_batch(ratings, number) as parts:
            yield parts
    else:
        yield ratings if isinstance(ratings, (list, tuple, Iterator)) else (ratings,)


@contextmanager
def split_merged_batch(frame: DataFrame, number: int) -> Iterator[Iterable[DataFrame]]:
    """Split a ``foreachBatch`` frame into the batches that an uninterrupted query would have made.

    A frame whose files were found by one listing is yielded unchanged. Files of several listings
    were merged because the query was killed; the frame is split by the file that each row was read
    from. Rows that have lost their file, as after a shuffle, are in the last frame, so no row is
    lost.
    """
    checkpoint = query_checkpoint(frame)
    log = None if checkpoint is None else FileSourceLog(frame.sparkSession.sparkContext, checkpoint)
    if log is None or len(log.listings(number)) < 2:
        yield (frame,)
        return
    # A Python function that reads ahead can change the file name of a row when the row is computed
    # again, so it is computed once.
    marked = frame.withColumn(FILE, input_file_name()).persist()
    try:
        yield _by_listing(marked, [*log.of_batch(number)])
    finally:
        marked.unpersist()


def _by_listing(marked: DataFrame, listings: list[list[str]]) -> Iterator[DataFrame]:
    *earlier, _ = listings
    for files in earlier:
        yield marked.filter(marked[FILE].isin(files)).drop(FILE)
    known = [file for files in earlier for file in files]
    yield marked.filter(~marked[FILE].isin(known)).drop(FILE)
