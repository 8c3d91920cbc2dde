"""Small data: whole calls compared with MLlib, and iterations with few and many blocks."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.ml.recommendation import ALS as MllibALS
from pyspark.mllib.recommendation import ALS as MLlibALS

from bench.bench_training import Trainer, slope
from bench.data import DATA
from bench.turns import turn_by_turn
from rddals import ALS, Rating

SMALL = ("bundled sample", "MovieLens 100K")
ITERATIONS, LAMBDA = 10, 0.1


@pytest.fixture(scope="module", params=SMALL)
def small(session, request):
    """Return the ratings as a cached RDD of `Rating` with two partitions."""
    columns = DATA[request.param]()
    lists = (columns.users.tolist(), columns.products.tolist(), columns.ratings.tolist())
    rows = [Rating(*row) for row in zip(*lists, strict=True)]
    rdd = session.sparkContext.parallelize(rows, 2).cache()
    rdd.count()
    yield request.param, rdd
    rdd.unpersist()


@pytest.mark.parametrize("rank", (10, 50))
def bench_whole_call(benchmark, small, rank):
    """Time ``ALS.train`` and a count of the user factors, after a warm-up."""
    name, rdd = small

    def run(als: Any) -> None:
        model = als.train(rdd, rank, ITERATIONS, LAMBDA, seed=1)
        model.userFeatures().count()
        if als is ALS:
            model.unpersist()

    contestants = {"rddals": lambda: run(ALS), "MLlib": lambda: run(MLlibALS)}
    turn_by_turn(contestants)  # warm-up, in which the JVM compiles
    medians = benchmark.pedantic(turn_by_turn, (contestants,), rounds=1)
    benchmark.extra_info |= {"data": name, "rank": rank}
    benchmark.extra_info |= {f"{who} s": round(value, 3) for who, value in medians.items()}
    benchmark.extra_info["MLlib/rddals"] = round(medians["MLlib"] / medians["rddals"], 2)


@pytest.mark.parametrize("blocks", (8, 32))
def bench_blocks(benchmark, session, blocks):
    """Time an iteration of MovieLens 100K at rank 10 by number of blocks."""
    columns = DATA["MovieLens 100K"]()
    batches = session.sparkContext.parallelize(
        [(columns.users, columns.products, columns.ratings)], 1
    ).cache()
    frame = session.createDataFrame(
        list(
            zip(
                columns.users.tolist(),
                columns.products.tolist(),
                columns.ratings.tolist(),
                strict=True,
            )
        ),
        ["user", "item", "rating"],
    ).cache()
    frame.count()

    def rddals_trainer(exchange: str, counts: tuple[int, int]) -> Trainer:
        def train(iterations: int) -> None:
            ALS.train(
                batches, 10, iterations, LAMBDA, blocks, seed=1, exchange=exchange, listeners=()
            ).unpersist()

        return Trainer(train, counts)

    def mllib(iterations: int) -> None:
        estimator = MllibALS(
            rank=10, maxIter=iterations, regParam=LAMBDA, seed=1, numUserBlocks=blocks,
            numItemBlocks=blocks,
        )  # fmt: skip
        estimator.fit(frame).userFactors.count()

    contestants = {
        "auto": rddals_trainer("auto", (10, 510)),
        "broadcast": rddals_trainer("broadcast", (2, 12)),
        "shuffle": rddals_trainer("shuffle", (2, 12)),
        "MLlib": Trainer(mllib, (2, 12)),
    }
    turn_by_turn(contestants, slope)
    medians = benchmark.pedantic(turn_by_turn, (contestants, slope), rounds=1)
    benchmark.extra_info |= {"blocks": blocks}
    benchmark.extra_info |= {f"{who} s": round(value, 4) for who, value in medians.items()}
    benchmark.extra_info |= {
        f"MLlib/{who}": round(medians["MLlib"] / medians[who], 2)
        for who in ("auto", "broadcast", "shuffle")
    }
    for cached in (batches, frame):
        cached.unpersist()
