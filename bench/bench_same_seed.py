"""Largest differences from MLlib in factors and predictions, with the same seed and blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pyspark.mllib.recommendation import ALS as MLlibALS

from bench.data import DATA
from rddals import ALS

RANK, ITERATIONS = 10, 5
#: Most users and products whose predictions are compared.
PREDICTED = 2000
TRAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "explicit": ("train", {"lambda_": 0.05}),
    "implicit": ("trainImplicit", {"lambda_": 0.1, "alpha": 2.0}),
    "nonnegative": ("train", {"lambda_": 0.05, "nonnegative": True}),
}


@pytest.mark.parametrize("blocks", [1, 2, 5])
@pytest.mark.parametrize("kind", TRAIN)
@pytest.mark.parametrize("data", DATA)
def bench_same_seed(benchmark, session, data, kind, blocks):
    columns = DATA[data]()
    lists = (columns.users.tolist(), columns.products.tolist(), columns.ratings.tolist())
    rows = list(zip(*lists, strict=True))
    source = session.sparkContext.parallelize(rows, 4).cache()
    method, settings = TRAIN[kind]

    def both() -> list[Any]:
        return [
            getattr(als, method)(source, RANK, ITERATIONS, blocks=blocks, seed=blocks, **settings)
            for als in (ALS, MLlibALS)
        ]

    rddals_model, mllib_model = benchmark.pedantic(both, rounds=1)
    factors, predictions = differences(rddals_model, mllib_model)
    benchmark.extra_info |= {
        "data": data,
        "ratings": len(rows),
        "": f"{kind}, {blocks} blocks",
        "factors": f"{factors:.1e}",
        "predictions": f"{predictions:.1e}",
    }
    rddals_model.unpersist()
    for features in (mllib_model.userFeatures(), mllib_model.productFeatures()):
        features.unpersist()
    source.unpersist()


def differences(model: Any, other_model: Any) -> tuple[float, float]:
    """Return the largest differences in the factors and in the predictions."""
    worst, rows = 0.0, []
    for side in ("userFeatures", "productFeatures"):
        (ids, own), (other_ids, other) = (
            as_arrays(getattr(m, side)()) for m in (model, other_model)
        )
        np.testing.assert_array_equal(ids, other_ids)
        worst = max(worst, float(np.abs(own - other).max()))
        rows.append((own[:PREDICTED], other[:PREDICTED]))
    (users, other_users), (products, other_products) = rows
    predicted = users @ products.T - other_users @ other_products.T
    return worst, float(np.abs(predicted).max())


def as_arrays(features: Any) -> tuple[Any, Any]:
    ids, rows = zip(*sorted(features.mapValues(list).collect()), strict=True)
    return np.array(ids), np.array(rows)
