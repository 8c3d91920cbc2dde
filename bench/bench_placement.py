"""Bytes, balance, cost and break-even point of each placement."""

from __future__ import annotations

from math import ceil
from time import perf_counter

import numpy as np
import pytest

from bench.conftest import start_spark
from bench.data import DATA, planted
from rddals import ALS, HalfStepDone, plan

RANK, BLOCKS, ITERATIONS = 10, 32, 6
PARTITIONERS = ("hash", "range", "balanced", "locality")
#: Bandwidth of a one-gigabit network in bytes per second.
NETWORK = 125e6
PLANTED = {"planted communities": planted}


@pytest.fixture(scope="module")
def spark(request):
    session = start_spark(request.config, spark_shuffle_compress="false")
    yield session
    session.stop()


@pytest.mark.parametrize("name", [*PLANTED, *DATA])
def bench_placement(benchmark, spark, name):
    columns = (PLANTED | DATA)[name]()
    parts = np.array_split(np.arange(len(columns)), 4)
    slices = [(columns.users[p], columns.products[p], columns.ratings[p]) for p in parts]
    source = spark.sparkContext.parallelize(slices, len(slices)).cache()
    planned = plan(source, RANK, exchanges="shuffle", partitioners=PARTITIONERS, blocks=BLOCKS)
    placements = {placement.partitioner: placement for placement in planned.placements}
    train(source, "hash")  # warm-up
    seconds = benchmark.pedantic(
        lambda: {each: train(source, each) for each in PARTITIONERS}, rounds=1
    )
    hashed = placements["hash"].bytes_per_iteration("shuffle")
    benchmark.extra_info |= {"ratings": planned.ratings, "blocks": BLOCKS, "rank": RANK}
    for each, placement in placements.items():
        moved = placement.bytes_per_iteration("shuffle")
        sides = (placement.users.ratings, placement.products.ratings)
        benchmark.extra_info |= {
            f"{each}: bytes": moved,
            f"{each}: of hashing's": f"{moved / hashed:.2f}",
            f"{each}: fullest block": ", ".join(f"{load.most / load.mean:.2f}" for load in sides),
            f"{each}: iteration, s": round(seconds[each][0], 3),
            f"{each}: fit, s": round(placement.fit_seconds, 2),
            f"{each}: placing, s": round(seconds[each][1], 2),
        }
        if each != "hash":
            faster, cost = np.subtract(seconds["hash"], seconds[each])
            benchmark.extra_info |= {
                f"{each}: paid back here": break_even(-cost, faster),
                f"{each}: by 1 Gbit/s": break_even(-cost, (hashed - moved) / NETWORK),
            }
    source.unpersist()


def train(source, partitioner):
    """Train; return seconds per iteration (median without first and last) and of placement."""
    events = []
    began = perf_counter()
    ALS.train(
        source, RANK, ITERATIONS, 0.1, BLOCKS, seed=1, exchange="shuffle", precision="single",
        userPartitioner=partitioner, productPartitioner=partitioner, listeners=[events.append],
    ).unpersist()  # fmt: skip
    seconds = perf_counter() - began
    steps = [event.seconds for event in events if isinstance(event, HalfStepDone)]
    iteration = np.median(np.reshape(steps, (ITERATIONS, 2)).sum(axis=1)[1:-1])
    return float(iteration), seconds - events[-1].seconds


def break_even(cost, saved):
    """Return the number of iterations after which the cost is saved, as text."""
    if saved <= 0:
        return "never"
    return f"{max(ceil(cost / saved), 0):,}"
