"""What files a query has found, as the logs in its checkpoint tell.

The frame that Spark makes of a batch tells less. A file that is gone since it was found is left out
of it without a word; and when a query was killed between finding files and beginning their batch,
they come in one frame with the next ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from rddals.cli.failures import InputError, summary
from rddals.cli.files import plain, qualified
from rddals.rdds.hadoop import names_in, text_of

__all__ = ["FoundFiles"]


class FoundFiles:
    """The files that a query of one source of files has found.

    Parameters
    ----------
    spark : SparkSession
    checkpoint : str
        Of the query.
    """

    def __init__(self, spark: SparkSession, checkpoint: str) -> None:
        self._spark = spark
        self._offsets = f"{checkpoint}/offsets"
        self._source = f"{checkpoint}/sources/0"

    @property
    def last_batch(self) -> int | None:
        """The number of the last batch that was begun; None before the first."""
        names = names_in(self._spark.sparkContext, self._offsets)
        return max((int(name) for name in names if name.isdecimal()), default=None)

    def of_batch(self, number: int) -> Iterator[list[str]]:
        """The files of a batch, in the order they were found in: a list for each time.

        That is one list, but for what a query was killed over.

        Raises
        ------
        InputError
            If a log that tells it is gone.
        """
        before = self._last_of(number - 1) if number else -1
        for time in range(before + 1, self._last_of(number) + 1):
            yield self._found(time)

    def _last_of(self, number: int) -> int:
        """The number of the last time, of those whose files a batch is made of."""
        _, _, offset = self._lines(f"{self._offsets}/{number}")
        return int(json.loads(offset)["logOffset"])

    def _found(self, time: int) -> list[str]:
        # A file for each time; every tenth has all that was before in it, which is deleted later.
        compact, every = ".compact", names_in(self._spark.sparkContext, self._source)
        name = str(time)
        if name not in every:
            whole = (int(each.removesuffix(compact)) for each in every if each.endswith(compact))
            later = [number for number in whole if number >= time]
            name = f"{min(later)}{compact}" if later else name
        _, *lines = self._lines(f"{self._source}/{name}")
        entries = map(json.loads, lines)
        return [
            qualified(self._spark, unquote(entry["path"]))
            for entry in entries
            if entry["batchId"] == time
        ]

    def _lines(self, log: str) -> list[str]:
        try:
            return text_of(self._spark.sparkContext, log).splitlines()
        except Py4JJavaError as error:
            raise InputError(
                f"{plain(log)}, which tells what files were found, cannot be read: "
                f"{summary(error)}; restore it, or begin anew with another --out"
            ) from error
