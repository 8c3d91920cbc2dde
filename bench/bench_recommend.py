"""The ten best products for every user, beside MLlib and ``implicit``."""

from __future__ import annotations

from statistics import median
from time import perf_counter

import numpy as np
import pytest
from pyspark.ml.recommendation import ALS as MllibALS

from rddals import ALS

RANK, NUM, ROUNDS = 50, 10, 3


def bench_recommend(benchmark, frame, batches):
    peer = pytest.importorskip("implicit.cpu.topk")
    model = ALS.train(batches, RANK, 2, 0.1, 2, seed=1, precision="single")
    users, products = (block.rows for block in model.collected_factors())
    theirs = MllibALS(rank=RANK, maxIter=1, regParam=0.1, seed=1).fit(frame)
    contestants = {
        "rddals": lambda: model.recommendProductsForUsers(NUM).count(),
        "MLlib": lambda: (
            theirs.recommendForAllUsers(NUM).write.format("noop").mode("overwrite").save()
        ),
        "implicit": lambda: peer.topk(
            np.ascontiguousarray(products), np.ascontiguousarray(users), NUM, num_threads=2
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}

    def turns() -> None:
        for name, run in contestants.items():
            start = perf_counter()
            run()
            seconds[name].append(perf_counter() - start)

    benchmark.pedantic(turns, rounds=ROUNDS, warmup_rounds=1)
    medians = {name: median(values[1:]) for name, values in seconds.items()}
    benchmark.extra_info |= {f"{name} s": round(value, 2) for name, value in medians.items()}
    benchmark.extra_info |= {
        f"{rival}/rddals": round(medians[rival] / medians["rddals"], 1)
        for rival in ("MLlib", "implicit")
    }
    model.unpersist()
