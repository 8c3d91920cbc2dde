"""Streams: prediction error and speed, compared with River and with batch training.

MovieLens 100K in time order, in batches of 1,000. Each batch is predicted before it is learned,
including pairs with unknown ids. Predictions are clipped to 1..5, and are 3 before the first batch.
"""

from __future__ import annotations

import gc
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data import in_batches, in_time_order, part, ratings
from bench.local_stream import LocalStream, rmse
from bench.turns import turn_by_turn
from rddals import ALS, RatingBlock, StreamingALS, StreamingModel
from rddals.config import DEFAULT_BIAS_LAMBDA, DEFAULT_LAMBDA

BATCH = 1_000
MILLION = 1_000_000
#: Untimed passes over the three batches before timing.
WARM_UP = 4


@pytest.fixture(scope="module")
def sc(session):
    return session.sparkContext


@pytest.fixture(scope="module")
def stream() -> RatingBlock:
    return in_time_order()


def predicted(sc: Any, model: Any, block: RatingBlock) -> NDArray[np.float64]:
    """Return the predictions of a batch, clipped to 1..5, with NaN where the model has none."""
    pairs = list(zip(block.users.tolist(), block.products.tolist(), strict=True))
    predictions = {
        (r.user, r.product): r.rating for r in model.predictAll(sc.parallelize(pairs, 2)).collect()
    }
    return np.clip([predictions.get(pair, np.nan) for pair in pairs], 1, 5)


@pytest.mark.parametrize("update", ["sgd", "als"])
def bench_error(benchmark, sc, stream, update):
    """Measure the error over the stream, and over the last fifth with the model fixed."""

    def run() -> None:
        als = StreamingALS(update=update, seed=42)
        errors = []
        for batch in in_batches(stream, BATCH):
            prediction: Any = 3.0 if als.model is None else predicted(sc, als.model, batch)
            errors.append(prediction - batch.ratings)
            als.train(sc.parallelize([batch], 1))
            if als.model.ratings == 80_000:
                score_last_fifth(als.model)
        benchmark.extra_info |= {"update": update, "RMSE": rmse(np.concatenate(errors))}

    def score_last_fifth(model: StreamingModel) -> None:
        first, last = part(stream, 0, 80_000), part(stream, 80_000)
        known = np.isin(last.users, first.users) & np.isin(last.products, first.products)
        last = RatingBlock(last.users[known], last.products[known], last.ratings[known])
        trained = ALS.train(sc.parallelize([first], 2), 10, 10, 0.1, seed=42)
        for name, one in (("last fifth", model), ("batch ALS", trained)):
            benchmark.extra_info[name] = rmse(predicted(sc, one, last) - last.ratings)
        trained.unpersist()

    benchmark.pedantic(run, rounds=1)


def bench_planted(benchmark):
    """Check that factors are learned: the error over the last fifth of planted rank-3 ratings."""
    random = np.random.default_rng(0)
    taste, kind = random.normal(size=(400, 3)), random.normal(size=(300, 3)) / np.sqrt(3)
    user, product = np.divmod(random.permutation(400 * 300)[:84_000], 300)
    score = np.einsum("ij,ij->i", taste[user], kind[product])
    planted = RatingBlock.from_columns(user, product, score + 0.3 * random.normal(size=len(score)))

    def run() -> None:
        model, errors = LocalStream(update="sgd", rank=5), []
        for batch in in_batches(planted, BATCH):
            errors.append(model.predict(batch) - batch.ratings)
            model.learn(batch)
        last = np.concatenate(errors)[len(planted) * 4 // 5 :]
        benchmark.extra_info |= {"RMSE": rmse(last), "deviation": rmse(planted.ratings)}

    benchmark.pedantic(run, rounds=1)


def bench_sweeps(benchmark, sc, stream):
    """Compare the loss after streaming and ten sweeps with that of one swept batch."""

    def run() -> None:
        als = StreamingALS(update="als", seed=42)
        for batch in in_batches(stream, BATCH):
            als.train(sc.parallelize([batch], 1))
        at_once = StreamingALS.train(sc.parallelize([stream], 2), update="als", seed=42)
        losses = {
            "stream": loss(stream, als.model),
            "stream and 10 sweeps": loss(stream, als.model.sweep(10)),
            "one batch and 30 sweeps": loss(stream, at_once.sweep(30)),
        }
        benchmark.extra_info |= {name: round(value, 1) for name, value in losses.items()}
        ratio = losses["stream and 10 sweeps"] / losses["one batch and 30 sweeps"] - 1
        benchmark.extra_info["per cent above"] = round(100 * ratio, 3)

    benchmark.pedantic(run, rounds=1)


def loss(block: RatingBlock, model: StreamingModel) -> float:
    """Compute the loss that ``update="als"`` minimises, with its default penalties."""
    total = 0.0
    rows = []
    for side, bias_lambda in zip(model.state.sides, DEFAULT_BIAS_LAMBDA, strict=True):
        table = side.table().collect(model.rank + 2)
        wide = table.rows.astype(np.float64)
        total += DEFAULT_LAMBDA["als"] * np.sum(wide[:, :-2] ** 2) + bias_lambda * np.sum(
            wide[:, -2] ** 2
        )
        rows.append((table.ids, wide))
    (users, U), (products, P) = rows
    u, p = U[np.searchsorted(users, block.users)], P[np.searchsorted(products, block.products)]
    fitted = model.mean + u[:, -2] + p[:, -2] + np.einsum("ij,ij->i", u[:, :-2], p[:, :-2])
    return float(total + np.sum((block.ratings - fitted) ** 2))


def bench_throughput(benchmark, sc):
    """Ratings per second in batches of a million, and of River, which learns one at a time."""
    from river import reco

    columns = ratings()
    batches = in_batches(part(columns, 0, 3 * MILLION), MILLION)
    cached = []
    for batch in batches:
        rdd = sc.parallelize(in_batches(batch, MILLION // 4), 4).cache()
        rdd.count()
        cached.append(rdd)
    few = part(columns, 0, 50_000)
    rows = list(zip(few.users.tolist(), few.products.tolist(), few.ratings.tolist(), strict=True))
    als = StreamingALS(seed=42)
    for rdd in WARM_UP * cached:  # the JVM keeps compiling for this long
        als.train(rdd)
    river = reco.BiasedMF(n_factors=10, seed=42)

    def run_rddals() -> None:
        for rdd in cached:
            als.train(rdd)

    def run_river() -> None:
        for user, product, rating in rows:
            river.learn_one(user, product, rating)

    contestants = {"rddals": run_rddals, "River": run_river}
    medians = benchmark.pedantic(turn_by_turn, (contestants,), rounds=1)
    each = {"rddals": 3 * MILLION / medians["rddals"], "River": len(rows) / medians["River"]}
    benchmark.extra_info |= {f"{name} ratings/s": round(value) for name, value in each.items()}
    benchmark.extra_info["rddals/River"] = round(each["rddals"] / each["River"], 1)


@pytest.mark.parametrize("update", ["sgd", "als"])
def bench_latency(benchmark, sc, update):
    """Seconds per batch of 1,000 ratings by model size."""
    random = np.random.default_rng(0)

    def of_size(users: int, products: int) -> StreamingALS:
        als = StreamingALS(update=update, seed=42)
        user = np.arange(users, dtype=np.int32)
        product = random.permutation(user) % products
        first = RatingBlock.from_columns(user, product, random.integers(1, 6, users))
        als.train(sc.parallelize(in_batches(first, max(BATCH, users // 4)), 4))
        return als

    def batch(users: int, products: int) -> Any:
        drawn = (random.integers(0, size, BATCH) for size in (users, products))
        return sc.parallelize([RatingBlock.from_columns(*drawn, random.integers(1, 6, BATCH))], 1)

    sizes = {"small": (10_000, 1_000), "large": (1_000_000, 100_000)}
    models = {name: of_size(*size) for name, size in sizes.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sizes}

    def run() -> None:
        for turn in range(25):
            for name, size in sizes.items():
                models[name].train(batch(*size))
                if turn >= 5:
                    seconds[name].append(models[name].model.learned.seconds)

    benchmark.pedantic(run, rounds=1)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    benchmark.extra_info |= {"update": update}
    for name, (users, products) in sizes.items():
        benchmark.extra_info[f"{users} x {products} s"] = round(medians[name], 3)
    benchmark.extra_info["large/small"] = round(medians["large"] / medians["small"], 2)


def resident() -> float:
    """Return the resident memory of this process in MB, or nan without /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return np.nan
    return pages * resource.getpagesize() / 2**20


def settled_heap(sc: Any) -> float:
    """Return the JVM heap in MB after Spark has freed unreferenced data.

    Spark's cleaner frees the data that a collection finds item by item, which takes a minute for
    thousands of batches, and only a further collection shows the effect.
    """
    memory = sc._jvm.java.lang.management.ManagementFactory.getMemoryMXBean()
    used = [np.inf]
    while len(used) < 3 or used[-2] - used[-1] > 1:
        gc.collect()
        memory.gc()
        time.sleep(2)
        used.append(memory.getHeapMemoryUsage().getUsed() / 2**20)
    return used[-1]


def bench_many_batches(benchmark, sc):
    """Time and memory of 2,000 batches of 500."""
    columns = ratings()
    batches = in_batches(part(columns, 0, MILLION), 500)
    seconds, memory = [], []

    def run() -> None:
        gc.enable()  # pytest-benchmark disables it, which suits only short runs
        als = StreamingALS(seed=42)
        for number, batch in enumerate(batches, 1):
            als.train(sc.parallelize([batch], 1))
            seconds.append(als.model.learned.seconds)
            if number in (200, 2_000):
                heap = settled_heap(sc)
                memory.append((resident(), heap))

    benchmark.pedantic(run, rounds=1)
    second, last = (sum(seconds[start : start + 100]) for start in (100, 1_900))
    (driver, heap), (driver_after, heap_after) = memory
    benchmark.extra_info |= {
        "second hundred s": round(second, 1),
        "last hundred s": round(last, 1),
        "last/second": round(last / second, 2),
        "driver MB after 200": round(driver, 1),
        "driver MB after 2000": round(driver_after, 1),
        "JVM MB after 200": round(heap),
        "JVM MB after 2000": round(heap_after),
        "persisted RDDs": len(sc._jsc.getPersistentRDDs()),
    }
