"""What files a query of Structured Streaming has found, as the logs in its checkpoint tell.

The frame that Spark makes of a batch tells less. A file that is gone since it was found is left out
of it without a word. And when a query was killed after it had written what it found, and before it
had begun a batch of that, the files come in one frame with the next ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.sql import DataFrame
from pyspark.sql.functions import input_file_name

from rddals.errors import ModelFormatError
from rddals.rdds.failures import cause
from rddals.rdds.hadoop import located, names_in, text_of
from rddals.rdds.query_lookup import query_checkpoint

__all__ = ["FileSourceLog", "split_merged_batch"]

#: A column of where rows are from.
FILE = "rddals_file"


class FileSourceLog:
    """The files that a query has found, if it has one source, of files.

    Parameters
    ----------
    sc : SparkContext
    checkpoint : str
        Of the query.
    """

    def __init__(self, sc: SparkContext, checkpoint: str) -> None:
        self._sc = sc
        self._offsets = f"{checkpoint}/offsets"
        self._source = f"{checkpoint}/sources/0"

    @property
    def last_batch(self) -> int | None:
        """The number of the last batch that was begun; None before the first."""
        names = names_in(self._sc, self._offsets)
        return max((int(name) for name in names if name.isdecimal()), default=None)

    def times(self, number: int) -> range:
        """The numbers of the times when the files of a batch were found.

        That is one, but for what a query was killed over. It is none where the logs do not tell:
        of other sources than one of files.
        """
        before = self._last_of(number - 1) if number else -1
        last = self._last_of(number)
        return range(0) if before is None or last is None else range(before + 1, last + 1)

    def of_batch(self, number: int) -> Iterator[list[str]]:
        """The URLs of a batch's files, in the order they were found in: a list for each time.

        Raises
        ------
        ModelFormatError
            If a log that tells them cannot be read.
        """
        times = self.times(number)
        if not times:
            raise ModelFormatError(
                f"{self._offsets} does not tell what files batch {number} has; restore it, or "
                "begin both the query and the model anew."
            )
        return map(self._found, times)

    def _last_of(self, number: int) -> int | None:
        """The number of the last time, of those whose files a batch is made of."""
        log = f"{self._offsets}/{number}"
        files, location = located(self._sc, log)
        if not files.exists(location):
            return None
        offsets = self._lines(log)[2:]
        if len(offsets) != 1 or not (told := re.fullmatch(r'\{"logOffset":(\d+)\}', offsets[0])):
            return None
        return int(told[1])

    def _found(self, time: int) -> list[str]:
        # A file for each time; every tenth has all that was before in it, which is deleted later.
        compact, every = ".compact", names_in(self._sc, self._source)
        name = str(time)
        if name not in every:
            whole = (int(each.removesuffix(compact)) for each in every if each.endswith(compact))
            later = [number for number in whole if number >= time]
            name = f"{min(later)}{compact}" if later else name
        _, *lines = self._lines(f"{self._source}/{name}")
        entries = map(json.loads, lines)
        return [entry["path"] for entry in entries if entry["batchId"] == time]

    def _lines(self, log: str) -> list[str]:
        try:
            return text_of(self._sc, log).splitlines()
        except Py4JJavaError as error:
            raise ModelFormatError(
                f"{log}, which tells what files were found, cannot be read ({cause(error)}); "
                "restore it, or begin both the query and the model anew."
            ) from error


@contextmanager
def split_merged_batch(frame: DataFrame, number: int) -> Iterator[Iterable[DataFrame]]:
    """The frames that a frame of ``foreachBatch`` would have been, had the query not been killed.

    That is itself, unless its query has put together files that it found one after another. These
    it has apart again, as far as rows still tell what file they are from: after a shuffle they do
    not. Whatever they tell, every row is in one of the frames.
    """
    checkpoint = query_checkpoint(frame)
    found = (
        None if checkpoint is None else FileSourceLog(frame.sparkSession.sparkContext, checkpoint)
    )
    if found is None or len(found.times(number)) < 2:
        yield (frame,)
        return
    # What a row tells need not be the same when it is computed again, if a Python function read
    # ahead of it; so it is asked once.
    marked = frame.withColumn(FILE, input_file_name()).persist()
    try:
        yield _by_time(marked, [*found.of_batch(number)])
    finally:
        marked.unpersist()


def _by_time(marked: DataFrame, times: list[list[str]]) -> Iterator[DataFrame]:
    *earlier, _ = times
    for files in earlier:
        yield marked.filter(marked[FILE].isin(files)).drop(FILE)
    known = [file for files in earlier for file in files]
    yield marked.filter(~marked[FILE].isin(known)).drop(FILE)
