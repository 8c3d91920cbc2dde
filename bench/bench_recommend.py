"""The ten best products: for every user, beside MLlib and ``implicit``; for one, without Spark."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.ml.recommendation import ALS as MllibALS

from bench.data import ratings
from bench.turns import turn_by_turn
from rddals import ALS

RANK, NUM = 50, 10
#: Products of the catalogue that one process serves from.
CATALOGUE = 100_000


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
    medians = benchmark.pedantic(turn_by_turn, (contestants,), rounds=1)
    benchmark.extra_info |= {f"{name} s": round(value, 2) for name, value in medians.items()}
    benchmark.extra_info |= {
        f"{rival}/rddals": round(medians[rival] / medians["rddals"], 1)
        for rival in ("MLlib", "implicit")
    }
    model.unpersist()


@pytest.mark.parametrize("rank", [10, RANK])
@pytest.mark.parametrize("feedback", ["explicit", "implicit"])
def bench_local(benchmark, session, rank, feedback):
    """One request at a time, as a server has them; in microseconds, of 1,000 users."""
    columns = ratings(products=CATALOGUE)
    source = session.sparkContext.parallelize([(columns.users, columns.products, columns.ratings)])
    train = ALS.train if feedback == "explicit" else ALS.trainImplicit
    model = train(source, rank, 5, 0.1, 2, seed=1, precision="single")
    local = model.toLocal()
    model.unpersist()
    random = np.random.default_rng(1)
    users, products = (
        random.choice(side.ids, 1000).tolist() for side in (local.users, local.products)
    )
    seen = random.choice(local.products.ids, 50).tolist()
    requests = {
        "predict": lambda: [local.predict(u, p) for u, p in zip(users, products, strict=True)],
        "recommend": lambda: [local.recommend(u, NUM) for u in users],
        "exclude 50": lambda: [local.recommend(u, NUM, exclude=seen) for u in users],
    }
    medians = benchmark.pedantic(turn_by_turn, (requests,), rounds=1)
    benchmark.extra_info |= {"": f"{feedback}, rank {rank}", "products": len(local.products.ids)}
    benchmark.extra_info |= {
        f"{name} us": round(seconds * 1e3, 1) for name, seconds in medians.items()
    }
