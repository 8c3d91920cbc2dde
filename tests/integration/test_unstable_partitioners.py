"""Partitioners that place an id differently in another process raise an error."""

from __future__ import annotations

import os

import pytest
from pyspark.rdd import portable_hash

from partitioners import FunctionPartitioner, Partitioner
from rddals import ALS, SettingError, StreamingALS, UnknownIdError


def by_process(driver):
    """Return a function that places ids on the driver elsewhere than on the workers."""
    return lambda id_: (id_ + (os.getpid() == driver)) % 4


class ByProcess(Partitioner):
    def __init__(self, num_blocks, driver):
        super().__init__(num_blocks)
        self.driver = driver

    def _place(self, ids):
        return ((ids + (os.getpid() == self.driver)) % self.num_blocks).astype("int32")

    def _parameters(self):
        return self.num_blocks, self.driver


UNSTABLE = {
    "hash of text": lambda id_: hash(str(id_)) % 4,
    "hash of text, in arrays": FunctionPartitioner(
        4, lambda ids: [hash(str(id_)) % 4 for id_ in ids.tolist()], vectorized=True
    ),
    "hash of a tuple of text": lambda id_: hash((str(id_), "user")) % 4,
    "process": by_process(os.getpid()),
    "class": ByProcess(4, os.getpid()),
}


@pytest.mark.parametrize("partitioner", UNSTABLE.values(), ids=UNSTABLE)
@pytest.mark.parametrize("side", ["user", "product"])
def test_unstable_placement_raises(sc, ratings, footprint, partitioner, side):
    blocks = {} if isinstance(partitioner, Partitioner) else {f"{side}Blocks": 4}
    rdd = sc.parallelize(ratings, 3)
    with pytest.raises(SettingError, match=r"places id \d+ in block \d on a worker, and in block"):
        ALS.train(rdd, 2, 1, seed=1, listeners=(), **{f"{side}Partitioner": partitioner}, **blocks)
    assert not footprint.remaining()


def test_unstable_placement_of_a_stream_raises(sc, ratings, footprint):
    stream = StreamingALS(rank=2, userPartitioner=by_process(os.getpid()), userBlocks=4)
    with pytest.raises(SettingError, match="the same block in every process"):
        stream.train(sc.parallelize(ratings, 3))
    assert not footprint.remaining()


def test_function_that_fails_on_the_driver_keeps_its_text(sc, ratings, monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.raises(SettingError, match="PYTHONHASHSEED"):
        ALS.train(
            sc.parallelize(ratings, 3),
            2,
            1,
            listeners=(),
            userPartitioner=lambda id_: portable_hash(str(id_)) % 4,
            userBlocks=4,
        )


def test_ids_are_found_wherever_the_workers_put_them(sc, ratings):
    """One id is placed differently, so the check may miss it."""
    many = [(user, product, 1.0) for user in range(400) for product in range(3)]
    driver = os.getpid()
    model = ALS.train(
        sc.parallelize(many, 3),
        2,
        1,
        listeners=(),
        userPartitioner=lambda id_: (id_ + (id_ == 398 and os.getpid() != driver)) % 4,
        userBlocks=4,
    )
    assert model.predict(398, 0) == pytest.approx(model.predict(397, 0), abs=0.1)
    with pytest.raises(UnknownIdError):
        model.predict(400, 0)


def test_function_that_fails_later_loses_no_id(sc, ratings):
    failing = []  # the workers have a copy of their own

    def place(id_):
        if failing:
            raise OSError("the table of blocks is gone")
        return id_ % 4

    model = ALS.train(
        sc.parallelize(ratings, 3), 2, 1, listeners=(), userPartitioner=place, userBlocks=4
    )
    pairs = [(user, product) for user, product, _ in ratings[:5]]
    expected = [model.predict(*pair) for pair in pairs]
    failing.append(True)
    assert [model.predict(*pair) for pair in pairs] == expected
