"""Top-10 queries for all users, compared with MLlib and ``implicit``, and for one user."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.ml.recommendation import ALS as MllibALS

from bench.data import ratings
from bench.turns import turn_by_turn
from rddals import ALS

RANK, NUM = 50, 10
#: Number of products of the in-memory model.
CATALOGUE = 100_000


def bench_recommend(benchmark, frame, batches):
    peer = pytest.importorskip("implicit.cpu.topk")
    model = ALS.train(batches, RANK, 2, 0.1, 2, seed=1, precision="single")
    users, products = (block.rows for block in model.collected_factors())
    mllib_model = MllibALS(rank=RANK, maxIter=1, regParam=0.1, seed=1).fit(frame)
    contestants = {
        "rddals": lambda: model.recommendProductsForUsers(NUM).count(),
        "MLlib": lambda: (
            mllib_model.recommendForAllUsers(NUM).write.format("noop").mode("overwrite").save()
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
    """Time single requests to an in-memory model, in microseconds, over 1,000 users."""
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
