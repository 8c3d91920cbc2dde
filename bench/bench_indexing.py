"""Indexing string keys, compared with Spark's StringIndexer on 10 million ratings."""

from __future__ import annotations

import pytest
from pyspark.ml.feature import StringIndexer
from pyspark.sql.functions import concat, format_string, lit, rand

from bench.turns import turn_by_turn
from rddals.indexer import index_ratings

RATINGS, USERS, PRODUCTS = 10_000_000, 500_000, 50_000


@pytest.fixture(scope="module")
def ratings(session):
    """Cache ratings with keys like ``user-0000123456`` and ``item/4711``, of skewed popularity."""
    numbers = session.range(RATINGS, numPartitions=8)
    frame = numbers.select(
        format_string("user-%010d", (rand(1) ** 2 * USERS).cast("long")).alias("user"),
        concat(lit("item/"), (rand(2) ** 3 * PRODUCTS).cast("long")).alias("item"),
        ((rand(3) * 10).cast("int") / 2).alias("rating"),
    ).cache()
    frame.count()
    yield frame
    frame.unpersist()


def bench_indexing(benchmark, ratings):
    def run_rddals() -> None:
        indexed = index_ratings(ratings)
        assert indexed.ratings.map(len).sum() == RATINGS
        indexed.unpersist()

    def run_spark() -> None:
        indexer = StringIndexer(inputCols=["user", "item"], outputCols=["u", "i"])
        ids = indexer.fit(ratings).transform(ratings).selectExpr("int(u)", "int(i)", "rating")
        ids.write.format("noop").mode("overwrite").save()

    contestants = {"rddals": run_rddals, "StringIndexer": run_spark}
    medians = benchmark.pedantic(turn_by_turn, (contestants,), rounds=1)
    benchmark.extra_info |= {f"{name} s": round(value, 1) for name, value in medians.items()}
    ratio = medians["StringIndexer"] / medians["rddals"]
    benchmark.extra_info["StringIndexer/rddals"] = round(ratio, 2)
