"""Bytes and seconds of each exchange and placement, and of MLlib on the same data."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.ml.recommendation import ALS as MllibALS

from bench.conftest import start_spark
from bench.data import DATA
from rddals import ALS, HalfStepDone, plan
from rddals.measure import ShuffleMeter

RANK, ITERATIONS = 10, 3
EXCHANGES = ("shuffle", "broadcast", "join")
PARTITIONERS = ("hash", "range", "balanced", "locality")
#: Name prefix of the stages of MLlib's half-steps.
MLLIB_HALF_STEP = "flatMap at ALS.scala"


@pytest.fixture(scope="module", params=["false", "true"], ids=["plain", "compressed"])
def spark(request):
    """Start Spark without compression, so that shuffle bytes equal sent bytes, and with it."""
    compress = request.param
    session = start_spark(
        request.config, spark_shuffle_compress=compress, spark_broadcast_compress=compress
    )
    yield session
    session.stop()


@pytest.fixture(scope="module", params=DATA)
def data(spark, request):
    columns = DATA[request.param]()
    parts = np.array_split(np.arange(len(columns)), 4)
    slices = [(columns.users[p], columns.products[p], columns.ratings[p]) for p in parts]
    source = spark.sparkContext.parallelize(slices, len(slices)).cache()
    frame = spark.createDataFrame(
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
    yield request.param, source, frame
    source.unpersist()
    frame.unpersist()


@pytest.mark.parametrize("blocks", [4, 8, 32])
@pytest.mark.parametrize(
    ("exchange", "partitioner"),
    [(exchange, partitioner) for exchange in EXCHANGES for partitioner in PARTITIONERS],
)
def bench_exchange(benchmark, data, exchange, partitioner, blocks):
    name, source, _ = data
    compressed = source.context.getConf().get("spark.shuffle.compress") == "true"
    if compressed and (exchange, partitioner) != ("shuffle", "hash"):
        pytest.skip("compression is measured for the shuffle with hash placement only")
    (planned,) = plan(
        source, RANK, exchanges=exchange, partitioners=partitioner, blocks=blocks
    ).placements
    events: list = []

    def train() -> None:
        ALS.train(
            source, RANK, ITERATIONS, 0.1, blocks, seed=1, exchange=exchange,
            userPartitioner=partitioner, productPartitioner=partitioner,
            listeners=[events.append],
        ).unpersist()  # fmt: skip

    with ShuffleMeter(source.context) as meter:
        benchmark.pedantic(train, rounds=1)
    steps = {step.step: step.done for step in meter.measured.steps}
    read = [steps["2 products"].read, steps["2 users"].read]
    if exchange == "broadcast":  # no shuffle: rows go to the executors via the driver
        sent = {
            event.side: event.broadcast_id
            for event in events
            if isinstance(event, HalfStepDone) and event.iteration == 2
        }
        read = [
            steps[f"2 {side}"].results + meter.measured.broadcasts[sent[side]]
            for side in ("users", "products")
        ]
    planned_bytes = [half_step.most_bytes for half_step in planned.half_steps[exchange]]
    seconds = [event.seconds for event in events if isinstance(event, HalfStepDone)][2:-2]
    benchmark.extra_info |= {
        "data": name,
        "blocks": blocks,
        "exchange": exchange,
        "partitioner": partitioner,
        "compressed": compressed,
        "users send, B": read[0],
        "planned, B": planned_bytes[0],
        "products send, B": read[1],
        "planned , B": planned_bytes[1],
        "messages": steps["2 products"].read_records + steps["2 users"].read_records,
        "iteration, s": round(float(np.sum(seconds)) / (ITERATIONS - 2), 2),
        "fit, s": round(planned.fit_seconds, 2),
    }


@pytest.mark.parametrize("blocks", [4, 8, 32])
def bench_mllib(benchmark, data, blocks):
    name, source, frame = data
    if source.context.getConf().get("spark.shuffle.compress") == "true":
        pytest.skip("MLlib is compared without compression only")
    estimator = MllibALS(
        rank=RANK, maxIter=ITERATIONS, regParam=0.1, seed=1, numUserBlocks=blocks,
        numItemBlocks=blocks,
    )  # fmt: skip
    with ShuffleMeter(source.context) as meter:
        benchmark.pedantic(lambda: estimator.fit(frame).userFactors.count(), rounds=1)
    stages = [s for s in meter.measured.stages if s.name.startswith(MLLIB_HALF_STEP)]
    users, products = stages[:2]  # users send first
    benchmark.extra_info |= {
        "data": name,
        "blocks": blocks,
        "users send, B": users.done.written,
        "products send, B": products.done.written,
        "messages": users.done.written_records + products.done.written_records,
    }
