"""Plans against measured trainings, and errors."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

import rddals
from partitioners import HashPartitioner, RangePartitioner
from rddals import (
    ALS,
    LinksBuilt,
    RatingBlock,
    RatingError,
    RatingTypeError,
    SettingError,
)
from rddals.measure import ShuffleMeter
from rddals.planning import statistics
from rddals.planning.forecast import Load
from rddals.planning.statistics import cores

RANK = 10


def skewed(users, products, count, seed=3):
    """Return a batch of ratings; a few products have most of them."""
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, users, count).astype(np.int32),
        (rng.random(count) ** 4 * products).astype(np.int32),
        rng.integers(1, 6, count).astype(np.float32),
    )


@pytest.fixture(scope="module", params=["dense", "skewed", "sparse"])
def source(_spark, request):
    batch = {
        "dense": skewed(60, 40, 2_000),
        "skewed": skewed(900, 300, 20_000),
        "sparse": skewed(5_000, 5_000, 6_000),
    }[request.param]
    rdd = _spark.parallelize([batch], 1).persist()
    yield rdd
    rdd.unpersist()


@pytest.fixture(scope="module")
def plan(source):
    return rddals.plan(source, RANK, partitioners=("hash", "locality"), blocks=(4, 8, 32))


@pytest.mark.parametrize(
    ("partitioner", "blocks"), [("hash", 4), ("hash", 8), ("hash", 32), ("locality", 8)]
)
def test_shuffle_moves_exactly_the_planned_bytes(sc, source, plan, blocks, partitioner):
    events = []
    with ShuffleMeter(sc) as meter:
        ALS.train(
            source, RANK, 1, 0.1, blocks, seed=1, exchange="shuffle",
            userPartitioner=partitioner, productPartitioner=partitioner, listeners=[events.append],
        ).unpersist()  # fmt: skip
    (planned,) = [
        p for p in plan.placements if (p.partitioner, p.blocks[0]) == (partitioner, blocks)
    ]
    users_send, products_send = planned.half_steps["shuffle"]
    steps = {step.step: step.done for step in meter.measured.steps}
    for half_step, received in (
        (users_send, steps["1 products"]),
        (products_send, steps["1 users"]),
    ):
        assert received.read == half_step.least_bytes == half_step.most_bytes
        assert received.read_records == half_step.records
    links = next(event for event in events if isinstance(event, LinksBuilt))
    assert (plan.ratings, plan.users, plan.products) == (
        links.ratings, links.users, links.products,
    )  # fmt: skip
    for half_step, sizes in zip(planned.half_steps["shuffle"], links.sizes, strict=True):
        assert (half_step.rows_held, half_step.rows_sent) == (
            sizes.source_rows,
            sizes.needed_rows,
        )


def test_join_stays_within_its_planned_bounds(sc, source, plan):
    blocks = 8
    with ShuffleMeter(sc) as meter:
        ALS.train(source, RANK, 1, 0.1, blocks, seed=1, exchange="join", listeners=()).unpersist()
    planned = next(p for p in plan.placements if (p.partitioner, p.blocks[0]) == ("hash", blocks))
    steps = {step.step: step.done for step in meter.measured.steps}
    for half_step, received in zip(
        planned.half_steps["join"], (steps["1 products"], steps["1 users"]), strict=True
    ):
        assert half_step.least_bytes < received.read <= half_step.most_bytes
        assert received.read_records == half_step.records


def test_planned_choice_is_that_of_training(sc, source, plan):
    events = []
    ALS.train(source, RANK, 0, 0.1, 8, listeners=[events.append]).unpersist()
    planned = next(p for p in plan.placements if (p.partitioner, p.blocks[0]) == ("hash", 8))
    assert events[0].exchange == planned.choice


def test_plan_reads_ratings_once_and_releases_everything(sc, small_matrix, footprint, tmp_path):
    folder = tmp_path / "read"
    folder.mkdir()

    def logged(partition, rows):
        (folder / f"{partition} {time.time_ns()}").touch()
        return rows

    source = sc.parallelize(small_matrix, 3).mapPartitionsWithIndex(logged)
    rddals.plan(source, 2, partitioners=("range", "balanced", "locality"), blocks=(1, 2, 3))
    assert sorted(path.name[0] for path in folder.iterdir()) == ["0", "1", "2"]
    assert not footprint.remaining("persisted RDD", "shuffle file", "broadcast file", "thread")


def test_small_matrix(sc, small_matrix):
    # Even products are rated by five users, odd ones by six (tests/unit/test_choice.py).
    result = rddals.plan(sc.parallelize(small_matrix, 2), 3, blocks=2, executors=4)
    (placement,) = result.placements
    users_send = {name: steps[0] for name, steps in placement.half_steps.items()}
    assert {name: step.payload for name, step in users_send.items()} == {
        "shuffle": 11 * 12,
        "broadcast": 7 * 12 * 5,
        "join": 21 * 24,
        "local": 0,
    }
    assert users_send["shuffle"].replication == pytest.approx(11 / 7)
    assert placement.products.rows == Load(mean=5.5, most=6.0)
    assert placement.products.ratings.mean == 21 / 2
    assert (result.rank, result.ratings, result.users, result.products) == (3, 21, 7, 8)
    assert placement.bytes_per_iteration("broadcast") == (7 + 8) * 12 * 5
    assert result.document()["placements"][0]["blocks"] == (2, 2)


def test_rating_block_is_planned_like_an_rdd(sc):
    block = RatingBlock(*skewed(90, 30, 2_000))
    options = {"partitioners": ("hash", "range", "balanced", "locality"), "blocks": (3, 8)}
    block_plan = rddals.plan(block, 4, **options, duplicates="last")
    rdd_plan = rddals.plan(sc.parallelize([block], 1), 4, **options, duplicates="last")
    assert (block_plan.ratings, block_plan.users, block_plan.products) == (
        rdd_plan.ratings, rdd_plan.users, rdd_plan.products,
    )  # fmt: skip
    assert block_plan.executors == rdd_plan.executors == 1
    for own, other in zip(block_plan.placements, rdd_plan.placements, strict=True):
        assert own.half_steps == other.half_steps
        assert (own.partitioner, own.blocks, own.choice.exchange) == (
            other.partitioner, other.blocks, other.choice.exchange,
        )  # fmt: skip
        for sender in ("users", "products"):
            assert (own.rows_between(sender) == other.rows_between(sender)).all()
            assert getattr(own, sender).ratings == getattr(other, sender).ratings
    assert rddals.plan(block, 4).placements[0].blocks == (cores(), cores())
    assert cores() == sc._jvm.java.lang.Runtime.getRuntime().availableProcessors()


@pytest.mark.parametrize(
    ("quota", "count"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("1 100000", 1), (None, 8)],
)
def test_cores_respect_the_cgroup_quota(tmp_path, monkeypatch, quota, count):
    path = tmp_path / "cpu.max"
    if quota is not None:
        path.write_text(f"{quota}\n")
    monkeypatch.setattr(statistics, "CPU_QUOTA", path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert cores() == count


def test_sides_with_different_partitioners(sc, small_matrix):
    source = sc.parallelize(small_matrix, 2)
    pair = (HashPartitioner(3), RangePartitioner([20, 50]))

    def parity(id_):
        return id_ % 2

    result = rddals.plan(source, 2, partitioners=[pair, ("hash", parity)], exchanges="shuffle")
    assert [p.partitioner for p in result.placements] == [
        "HashPartitioner, RangePartitioner",
        "hash, parity",
    ]
    assert result.placements[0].blocks == (3, 3)
    assert list(result.placements[0].half_steps) == ["shuffle"]


def test_duplicates_count_as_in_training(sc):
    twice = [(1, 2, 3.0), (1, 2, 4.0), (1, 3, 1.0)]
    source = sc.parallelize(twice, 2)
    assert rddals.plan(source, 2, blocks=1).ratings == 3
    assert rddals.plan(source, 2, blocks=1, duplicates="last").ratings == 2


def invalid_block(id_):
    return 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 0}, "Rank of the feature matrices must be positive but got 0"),
        ({"exchanges": ["shuffle", "post"]}, "of shuffle, broadcast, join, local, but got 'post'"),
        ({"partitioners": ["hash", "modulo"]}, "partitioners must be .* but got 'modulo'"),
        ({"exchanges": []}, "nothing to plan: exchanges are empty"),
        ({"partitioners": []}, "nothing to plan: partitioners or blocks are empty"),
        ({"partitioners": [("hash",)]}, "is not a pair of partitioners"),
        ({"blocks": 0}, "blocks must be -1 or positive but got 0"),
        ({"blocks": [4, "8"]}, "blocks must be an integer but got '8'"),
        ({"blocks": 4, "partitioners": HashPartitioner(3)}, "has 3 blocks but 4 were requested"),
        ({"executors": 0}, "executors must be a positive integer but got 0"),
        ({"duplicates": "first"}, "duplicates must be .keep. or"),
        ({"partitioners": invalid_block, "blocks": 2}, r"returned block 7 for id \d+, outside"),
    ],
)
def test_invalid_arguments_raise(sc, small_matrix, options, words, footprint):
    with pytest.raises(SettingError, match=words):
        rddals.plan(sc.parallelize(small_matrix, 1), **{"rank": 2, **options})
    assert not footprint.remaining("persisted RDD", "shuffle file", "thread")


def test_invalid_ratings_raise(sc):
    with pytest.raises(RatingTypeError, match="an RDD or a DataFrame"):
        rddals.plan([(1, 2, 3.0)], 2)
    with pytest.raises(RatingError, match="rating nan is not a finite"):
        rddals.plan(sc.parallelize([(1, 2, float("nan"))]), 2)
    with pytest.raises(RatingError, match="the RatingBlock, row 0: rating nan is not a finite"):
        rddals.plan(RatingBlock(*np.ones((2, 1), np.int32), np.array([np.nan])), 2)
    with pytest.raises(RatingError, match="RatingBlock is empty: there is nothing to plan"):
        rddals.plan(RatingBlock.empty(), 2)
    with pytest.raises(SettingError, match=r"userCol='u' name columns of a DataFrame, but .* Rati"):
        rddals.plan(RatingBlock(*skewed(2, 2, 2)), 2, userCol="u")
    for empty in (sc.emptyRDD(), sc.parallelize([], 2)):
        with pytest.raises(RatingError, match="RDD is empty: there is nothing to plan"):
            rddals.plan(empty, 2, partitioners=("hash", "balanced"))
        with pytest.raises(RatingError, match="RDD is empty: there is nothing to plan"):
            rddals.plan(empty, 2, partitioners="locality")
