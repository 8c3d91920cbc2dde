"""Seconds per iteration, end to end, beside MLlib and the library ``implicit``.

The same ratings in the same Spark context, and turn by turn, so that a drift of the machine
touches all alike. An iteration is the slope between a short and a long training, which leaves out
reading, building and all that happens once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
from pyspark.ml.recommendation import ALS as MllibALS
from threadpoolctl import threadpool_limits

from bench.turns import seconds_of, turn_by_turn
from rddals import ALS, HalfStepDone

BLOCKS = 2
LAMBDA, ALPHA = 0.1, 1.0
#: Iterations of a short and a long training by rank, for MLlib and for everybody else: far enough
#: apart that what varies from training to training does not show in the slope.
MLLIB_COUNTS = {10: (2, 12), 50: (1, 5), 100: (1, 3)}
COUNTS = {10: (2, 22), 50: (2, 10), 100: (2, 8)}


class Trainer(NamedTuple):
    """Trains for some iterations; `counts` are those of a short and a long training."""

    train: Callable[[int], None]
    counts: tuple[int, int]


def slope(trainer: Trainer) -> float:
    """Seconds per iteration."""
    short, long = (seconds_of(partial(trainer.train, count)) for count in trainer.counts)
    return (long - short) / (trainer.counts[1] - trainer.counts[0])


def ours(batches, rank: int, precision: str, parts: dict, **options) -> Trainer:
    kind = ALS.trainImplicit if "alpha" in options else ALS.train

    def train(iterations: int) -> None:
        events: list = []
        kind(
            batches, rank, iterations, LAMBDA, BLOCKS, seed=1, precision=precision,
            listeners=[events.append], **options,
        ).unpersist()  # fmt: skip
        steps = [e for e in events if isinstance(e, HalfStepDone)][2:]
        if steps:
            parts[precision] = {
                name: sum(s.task_seconds[name] for s in steps) / len(steps) * 2 / BLOCKS
                for name in steps[0].task_seconds
            }

    return Trainer(train, COUNTS[rank])


def mllib(frame, rank: int, **options) -> Trainer:
    def train(iterations: int) -> None:
        estimator = MllibALS(
            rank=rank, maxIter=iterations, regParam=LAMBDA, seed=1,
            numUserBlocks=BLOCKS, numItemBlocks=BLOCKS, **options,
        )  # fmt: skip
        estimator.fit(frame).userFactors.count()

    return Trainer(train, MLLIB_COUNTS[rank])


def tell(benchmark, rank: int, kind: str, medians: dict, parts: dict) -> None:
    """File the medians, their ratios and where our time goes, per core and iteration."""
    benchmark.extra_info |= {"rank": rank, "kind": kind}
    for name, seconds in medians.items():
        benchmark.extra_info[f"{name} s"] = round(seconds, 3)
    for precision in ("double", "single"):
        for rival in [name for name in medians if name not in ("double", "single")]:
            ratio = medians[rival] / medians[precision]
            benchmark.extra_info[f"{rival}/{precision}"] = round(ratio, 1)
        where = parts[precision]
        where["idle"] = medians[precision] - sum(where.values())
        for name, seconds in where.items():
            benchmark.extra_info[f"{precision}: {name} s"] = round(seconds, 2)


def implicit_als(columns, rank: int, conjugate_gradient: bool) -> Trainer:
    peer = pytest.importorskip("implicit")
    import scipy.sparse

    matrix = scipy.sparse.csr_matrix((columns.ratings, (columns.users, columns.products)))

    def train(iterations: int) -> None:
        with threadpool_limits(1, "blas"):  # as it asks for: its own threads share the cores
            peer.als.AlternatingLeastSquares(
                factors=rank, iterations=iterations, regularization=LAMBDA, alpha=ALPHA,
                use_cg=conjugate_gradient, num_threads=2, random_state=1,
            ).fit(matrix, show_progress=False)  # fmt: skip

    return Trainer(train, COUNTS[rank])


@pytest.mark.parametrize("rank", (10, 50, 100))
@pytest.mark.parametrize("kind", ("explicit", "implicit"))
def bench_iteration(benchmark, columns, frame, batches, kind, rank):
    parts: dict = {}
    implicit = kind == "implicit"
    contestants = {
        precision: ours(batches, rank, precision, parts, **({"alpha": ALPHA} if implicit else {}))
        for precision in ("double", "single")
    }
    if implicit:
        contestants["MLlib"] = mllib(frame, rank, implicitPrefs=True, alpha=ALPHA)
        contestants["implicit (CG)"] = implicit_als(columns, rank, True)
        contestants["implicit (Cholesky)"] = implicit_als(columns, rank, False)
    else:
        contestants["MLlib"] = mllib(frame, rank)
    medians = benchmark.pedantic(turn_by_turn, (contestants, slope), rounds=1)
    tell(benchmark, rank, kind, medians, parts)
