"""Ratings that change when they are recomputed raise an error."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest

from rddals import ALS, InconsistentRatingsError, LinksBuilt
from rddals.exchange import EXCHANGES

OWN = dict(blocks=2, seed=5, lambda_=0.1)


def changing_stars(sc, small_matrix):
    """Return the small matrix with new random ratings at every computation."""

    def computed(rows):
        rng = np.random.default_rng(int.from_bytes(os.urandom(8), "big"))
        return ((user, product, float(rng.uniform(1, 5))) for user, product, _ in rows)

    return sc.parallelize(small_matrix, 2).mapPartitions(computed)


def changing_rows(sc, small_matrix, log):
    """Return the small matrix with one rating fewer at every computation."""

    def computed(partition, rows):
        rows = list(rows)
        if partition == 0:
            (log / os.urandom(8).hex()).touch()
            rows = rows[len(list(log.iterdir())) :]
        return rows

    return sc.parallelize(small_matrix, 2).mapPartitionsWithIndex(computed)


def shuffles(local_dir):
    """Return the ids of the shuffles that have files."""
    names = (path.name for path in local_dir.rglob("shuffle_*"))
    return {int(re.match(r"shuffle_(\d+)_", name)[1]) for name in names}


def drop_links(sc, local_dir, *, shuffle):
    """Return a listener that drops the cached links and, on request, their shuffle.

    Spark itself removes the shuffle: if only its files were deleted, a local Spark would give up
    its only executor.
    """
    before = shuffles(local_dir)

    def listener(event):
        if not isinstance(event, LinksBuilt):
            return
        for rdd in dict(sc._jsc.getPersistentRDDs()).values():
            rdd.unpersist(True)
        if shuffle:
            removed = shuffles(local_dir) - before
            assert removed
            for id_ in removed:
                sc._jsc.sc().cleaner().get().doCleanupShuffle(id_, True)

    return listener


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_changed_ratings_raise(sc, small_matrix, local_dir, footprint, exchange):
    ratings = changing_stars(sc, small_matrix)
    listener = drop_links(sc, local_dir, shuffle=True)
    with pytest.raises(InconsistentRatingsError, match="Persist"):
        ALS.train(ratings, 2, 1, exchange=exchange, listeners=[listener], **OWN)
    assert not footprint.remaining()


def test_missing_ratings_raise(sc, small_matrix, local_dir, tmp_path):
    ratings = changing_rows(sc, small_matrix, tmp_path)
    listener = drop_links(sc, local_dir, shuffle=True)
    with pytest.raises(InconsistentRatingsError, match="Persist"):
        ALS.train(ratings, 2, 1, exchange="shuffle", listeners=[listener], **OWN)


def test_unchanged_ratings_rebuild_the_links(sc, small_matrix, local_dir):
    ratings = sc.parallelize(small_matrix, 2)
    expected = ALS.train(ratings, 2, 1, listeners=(), exchange="shuffle", **OWN).history
    listener = drop_links(sc, local_dir, shuffle=True)
    model = ALS.train(ratings, 2, 1, listeners=[listener], exchange="shuffle", **OWN)
    assert [done.loss for done in model.history] == [done.loss for done in expected]


def test_links_are_rebuilt_from_shuffle_files(sc, small_matrix, local_dir):
    """While the shuffle exists, the changing source is not read again."""
    ratings = changing_stars(sc, small_matrix)
    listener = drop_links(sc, local_dir, shuffle=False)
    model = ALS.train(ratings, 2, 2, listeners=[listener], exchange="shuffle", **OWN)
    losses = [done.loss for done in model.history]
    assert losses == sorted(losses, reverse=True)
