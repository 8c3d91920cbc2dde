"""Files of the last batch that a stream began, recorded beside the state of the stream.

The batches themselves come from Spark's file source. It does not report a file that was deleted
before the batch was learned, nor that it reads another folder than before. The record shows both.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial

from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame, SparkSession

from rddals.cli.failures import InputError
from rddals.rdds.hadoop import exists, located, text_of, write_text


@dataclass(frozen=True, slots=True)
class BatchFiles:
    """Files of one batch.

    Attributes
    ----------
    folder : str
        URL of the folder that the stream reads.
    batch : int
        Number of the batch in Spark's query; -1 before the first.
    files : list of str
        URLs of the files, the oldest first.
    """

    folder: str
    batch: int
    files: list[str]

    @classmethod
    def listed(cls, frame: DataFrame, folder: str, batch: int) -> BatchFiles:
        """Return the files of a batch; `frame` has their ``path`` and ``modificationTime``."""
        rows = frame.sort("modificationTime", "path").select("path").collect()
        return cls(folder, batch, [row["path"] for row in rows])

    @classmethod
    def load(cls, spark: SparkSession, path: str) -> BatchFiles | None:
        """Return the record at `path`, or None; raise `InputError` if it is damaged."""
        # After a kill during `save` only the new record may exist.
        found = next(filter(partial(exists, spark), (path, f"{path}.beginning")), None)
        if found is None:
            return None
        try:
            return cls(**json.loads(text_of(spark.sparkContext, found)))
        except (Py4JJavaError, ValueError, TypeError) as error:
            raise InputError(
                f"{found} is damaged; restore it, or delete it to continue without checks for "
                "another folder and for deleted files"
            ) from error

    def with_files(self, files: list[str]) -> BatchFiles:
        """Return the batch with more files, except those that it has."""
        known = set(self.files)
        return replace(self, files=self.files + [file for file in files if file not in known])

    def save(self, spark: SparkSession, path: str) -> None:
        """Replace the record at `path`."""
        write_text(spark.sparkContext, f"{path}.beginning", json.dumps(asdict(self)))
        files, location = located(spark.sparkContext, path)
        files.delete(location, False)
        files.rename(located(spark.sparkContext, f"{path}.beginning")[1], location)

    def split(self, per_batch: int | None) -> list[list[str]]:
        """Return the files in groups of `per_batch`, or all in one group.

        Spark exceeds `per_batch` if a kill interrupted the query between finding files and
        starting their batch: it then adds the next files to the same batch.
        """
        size = per_batch or max(len(self.files), 1)
        return [self.files[start : start + size] for start in range(0, len(self.files), size)]
