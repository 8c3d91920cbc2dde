"""What each placement saves, how level it is, what fitting it costs, and when that is paid back."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest

from bench.conftest import started
from bench.data import DATA, planted
from rddals import ALS, HalfStepDone, plan

RANK, BLOCKS, ITERATIONS = 10, 32, 6
PARTITIONERS = ("hash", "range", "balanced", "locality")
#: Bytes a second of a network of one gigabit.
NETWORK = 125e6
PLANTED = {"planted communities": planted}


@pytest.fixture(scope="module")
def spark(request):
    session = started(request.config, spark_shuffle_compress="false")
    yield session
    session.stop()


@pytest.mark.parametrize("name", [*PLANTED, *DATA])
def bench_placement(benchmark, spark, name):
    columns = (PLANTED | DATA)[name]()
    parts = np.array_split(np.arange(len(columns)), 4)
    slices = [(columns.users[p], columns.products[p], columns.ratings[p]) for p in parts]
    source = spark.sparkContext.parallelize(slices, len(slices)).cache()
    planned = plan(source, RANK, exchanges="shuffle", partitioners=PARTITIONERS, blocks=BLOCKS)
    of = {placement.partitioner: placement for placement in planned.placements}
    iteration_seconds(source, "hash")  # to warm up
    seconds = benchmark.pedantic(
        lambda: {each: iteration_seconds(source, each) for each in PARTITIONERS}, rounds=1
    )
    hashed = of["hash"].bytes_per_iteration("shuffle")
    benchmark.extra_info |= {"ratings": planned.ratings, "blocks": BLOCKS, "rank": RANK}
    for each, placement in of.items():
        moved = placement.bytes_per_iteration("shuffle")
        sides = (placement.users.ratings, placement.products.ratings)
        benchmark.extra_info |= {
            f"{each}: bytes": moved,
            f"{each}: of hashing's": f"{moved / hashed:.2f}",
            f"{each}: fullest block": ", ".join(f"{load.most / load.mean:.2f}" for load in sides),
            f"{each}: iteration, s": round(seconds[each], 3),
            f"{each}: fit, s": round(placement.fit_seconds, 2),
            f"{each}: paid back here": paid_back(
                placement.fit_seconds, seconds["hash"] - seconds[each]
            ),
            f"{each}: by 1 Gbit/s": paid_back(placement.fit_seconds, (hashed - moved) / NETWORK),
        }
    source.unpersist()


def iteration_seconds(source, partitioner):
    """An iteration by the driver's clock: the median of all but the first."""
    events = []
    ALS.train(
        source, RANK, ITERATIONS, 0.1, BLOCKS, seed=1, exchange="shuffle", precision="single",
        userPartitioner=partitioner, productPartitioner=partitioner, listeners=[events.append],
    ).unpersist()  # fmt: skip
    steps = [event.seconds for event in events if isinstance(event, HalfStepDone)]
    return float(np.median(np.reshape(steps, (ITERATIONS, 2)).sum(axis=1)[1:]))


def paid_back(cost, saved):
    """After how many iterations."""
    if cost < 0.01:
        return "at once"
    return f"{ceil(cost / saved):,}" if saved > 0 else "never"
