"""What files a query has found, as the logs in its checkpoint tell.

The frame that Spark makes of a batch tells less. A file that is gone since it was found is left out
of it without a word; and when a query was killed between finding files and beginning their batch,
they come in one frame with the next ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import unquote

from pyspark.sql import SparkSession

from rddals.cli.files import names_in, qualified, text_of

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
        begun = (int(name) for name in names_in(self._spark, self._offsets) if name.isdecimal())
        return max(begun, default=None)

    def of_batch(self, number: int) -> Iterator[list[str]]:
        """The files of a batch, in the order they were found in: a list for each time.

        That is one list, but for what a query was killed over.
        """
        before = self._last_of(number - 1) if number else -1
        for time in range(before + 1, self._last_of(number) + 1):
            yield self._found(time)

    def _last_of(self, number: int) -> int:
        """The number of the last time, of those whose files a batch is made of."""
        _, _, offset = text_of(self._spark, f"{self._offsets}/{number}").splitlines()
        return int(json.loads(offset)["logOffset"])

    def _found(self, time: int) -> list[str]:
        # A file for each time; every tenth has all that was before in it, which is deleted later.
        compact, every = ".compact", names_in(self._spark, self._source)
        whole = [int(name.removesuffix(compact)) for name in every if name.endswith(compact)]
        later = min((number for number in whole if number >= time), default=time)
        name = str(time) if str(time) in every else f"{later}{compact}"
        _, *lines = text_of(self._spark, f"{self._source}/{name}").splitlines()
        entries = map(json.loads, lines)
        return [
            qualified(self._spark, unquote(entry["path"]))
            for entry in entries
            if entry["batchId"] == time
        ]
