"""Batches of ratings as files of a stream."""

from __future__ import annotations

import os
from fractions import Fraction

import numpy as np

#: Columns of a query that `split_by_file` needs.
FILE_COLUMNS = ("_metadata.file_path", "_metadata.file_modification_time")


def write_batch(path, batch, number):
    """Write a batch to a file that appears whole; later batches are newer."""
    hidden = path.with_name(f".{path.name}")
    hidden.write_text("".join(f"{u},{p},{r}\n" for u, p, r in batch))
    os.utime(hidden, (1_700_000_000 + 60 * number,) * 2)
    hidden.rename(path)


def write_batches(folder, batches):
    folder.mkdir()
    for number, batch in enumerate(batches):
        write_batch(folder / f"{number}.csv", batch, number)
    return folder


def split_by_file(batch):
    """Return the part of each file of a query's batch, the oldest file first."""
    found = batch.select("file_path", "file_modification_time").distinct().collect()
    files = [path for path, _ in sorted(found, key=lambda row: (row[1], row[0]))]
    return [batch.filter(batch.file_path == path) for path in files]


def mean_of(batches):
    """Return the mean of all ratings, rounded once."""
    stars = [Fraction(float(np.float32(r))) for batch in batches for _, _, r in batch]
    return float(sum(stars, Fraction(0)) / len(stars))
