"""Ratings that change when they are computed again: an error, never a model."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest

from rddals import ALS, InconsistentRatingsError, LinksBuilt
from rddals.exchange import EXCHANGES

OWN = dict(blocks=2, seed=5, lambda_=0.1)


def changing_stars(sc, small_matrix):
    """The small matrix with other ratings whenever it is computed."""

    def computed(rows):
        rng = np.random.default_rng(int.from_bytes(os.urandom(8), "big"))
        return ((user, product, float(rng.uniform(1, 5))) for user, product, _ in rows)

    return sc.parallelize(small_matrix, 2).mapPartitions(computed)


def changing_rows(sc, small_matrix, log):
    """The small matrix, short of one rating more every time it is computed."""

    def computed(partition, rows):
        rows = list(rows)
        if partition == 0:
            (log / os.urandom(8).hex()).touch()
            rows = rows[len(list(log.iterdir())) :]
        return rows

    return sc.parallelize(small_matrix, 2).mapPartitionsWithIndex(computed)


def shuffles(local_dir):
    """Ids of the shuffles that have files."""
    names = (path.name for path in local_dir.rglob("shuffle_*"))
    return {int(re.match(r"shuffle_(\d+)_", name)[1]) for name in names}


def lose(sc, local_dir, *, shuffle):
    """A listener that loses the cached links and, if so asked, what they were built from.

    The shuffle is given up through Spark. Were its files merely deleted, a local Spark would
    take its only executor for lost, and never find it again.
    """
    before = shuffles(local_dir)

    def listener(event):
        if not isinstance(event, LinksBuilt):
            return
        for rdd in dict(sc._jsc.getPersistentRDDs()).values():
            rdd.unpersist(True)
        if shuffle:
            lost = shuffles(local_dir) - before
            assert lost
            for id_ in lost:
                sc._jsc.sc().cleaner().get().doCleanupShuffle(id_, True)

    return listener


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_links_that_cannot_be_rebuilt_are_an_error(
    sc, small_matrix, local_dir, footprint, exchange
):
    ratings = changing_stars(sc, small_matrix)
    listener = lose(sc, local_dir, shuffle=True)
    with pytest.raises(InconsistentRatingsError, match="Persist"):
        ALS.train(ratings, 2, 1, exchange=exchange, listeners=[listener], **OWN)
    assert not footprint.left()


def test_so_are_ratings_that_are_gone(sc, small_matrix, local_dir, tmp_path):
    ratings = changing_rows(sc, small_matrix, tmp_path)
    listener = lose(sc, local_dir, shuffle=True)
    with pytest.raises(InconsistentRatingsError, match="Persist"):
        ALS.train(ratings, 2, 1, exchange="shuffle", listeners=[listener], **OWN)


def test_the_same_ratings_again_are_none(sc, small_matrix, local_dir):
    ratings = sc.parallelize(small_matrix, 2)
    expected = ALS.train(ratings, 2, 1, listeners=(), exchange="shuffle", **OWN).history
    listener = lose(sc, local_dir, shuffle=True)
    model = ALS.train(ratings, 2, 1, listeners=[listener], exchange="shuffle", **OWN)
    assert [done.loss for done in model.history] == [done.loss for done in expected]


def test_links_are_rebuilt_from_the_ratings_as_they_were(sc, small_matrix, local_dir):
    """As long as the shuffle is there, the changing source is not asked again."""
    ratings = changing_stars(sc, small_matrix)
    listener = lose(sc, local_dir, shuffle=False)
    model = ALS.train(ratings, 2, 2, listeners=[listener], exchange="shuffle", **OWN)
    losses = [done.loss for done in model.history]
    assert losses == sorted(losses, reverse=True)
