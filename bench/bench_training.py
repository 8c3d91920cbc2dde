"""Seconds per iteration, end to end, compared with MLlib and the library ``implicit``.

All train on the same ratings in the same Spark context, in turn, so that drifts in machine speed
affect them alike. The time of an iteration is the slope between a short and a long training, which
excludes one-time work such as reading the ratings and building the blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
from pyspark.ml.recommendation import ALS as MllibALS
from threadpoolctl import threadpool_limits

from bench.turns import seconds_of, turn_by_turn
from rddals import ALS, HalfStepDone

LAMBDA, ALPHA = 0.1, 1.0
#: Numbers of blocks that MLlib is run with. The faster one is reported.
MLLIB_BLOCKS = (2, 4)
#: Iterations of a short and a long training by rank, far enough apart that the variation between
#: trainings does not affect the slope.
MLLIB_COUNTS = {10: (2, 12), 50: (1, 5), 100: (1, 3)}
COUNTS = {10: (2, 32), 50: (2, 14), 100: (2, 8)}
LOCAL_COUNTS = {10: (10, 210), 50: (5, 55), 100: (2, 22)}


class Trainer(NamedTuple):
    """A training function, and the iterations of its short and its long training."""

    train: Callable[[int], None]
    counts: tuple[int, int]


def slope(trainer: Trainer) -> float:
    """Return the seconds per iteration."""
    short, long = (seconds_of(partial(trainer.train, count)) for count in trainer.counts)
    return (long - short) / (trainer.counts[1] - trainer.counts[0])


class Variant(NamedTuple):
    """Precision and exchange of an rddals training."""

    precision: str
    exchange: str

    @property
    def name(self) -> str:
        """Name in the tables."""
        return self.precision if self.exchange == "auto" else f"{self.exchange} {self.precision}"

    def trainer(self, batches: Any, rank: int, parts: dict[str, Any], **options: Any) -> Trainer:
        """Build a trainer that records the task seconds per iteration in ``parts[self.name]``."""
        kind = ALS.trainImplicit if "alpha" in options else ALS.train

        def train(iterations: int) -> None:
            events: list[Any] = []
            kind(
                batches, rank, iterations, LAMBDA, seed=1, precision=self.precision,
                exchange=self.exchange, listeners=[events.append], **options,
            ).unpersist()  # fmt: skip
            steps = [e for e in events if isinstance(e, HalfStepDone)][2:]
            names = {name for step in steps for name in step.task_seconds}
            parts[self.name] = {
                name: 2 * sum(s.task_seconds.get(name, 0.0) for s in steps) / max(1, len(steps))
                for name in sorted(names)
            }

        counts = LOCAL_COUNTS if self.exchange == "auto" else COUNTS
        return Trainer(train, counts[rank])


VARIANTS = [
    Variant(precision, exchange)
    for exchange in ("auto", "shuffle")
    for precision in ("double", "single")
]


def mllib(frame: Any, rank: int, blocks: int, **options: Any) -> Trainer:
    def train(iterations: int) -> None:
        estimator = MllibALS(
            rank=rank, maxIter=iterations, regParam=LAMBDA, seed=1,
            numUserBlocks=blocks, numItemBlocks=blocks, **options,
        )  # fmt: skip
        estimator.fit(frame).userFactors.count()

    return Trainer(train, MLLIB_COUNTS[rank])


def implicit_als(columns: Any, rank: int, conjugate_gradient: bool) -> Trainer:
    peer = pytest.importorskip("implicit")
    import scipy.sparse

    matrix = scipy.sparse.csr_matrix((columns.ratings, (columns.users, columns.products)))

    def train(iterations: int) -> None:
        with threadpool_limits(1, "blas"):  # as implicit recommends: its own threads use all cores
            peer.als.AlternatingLeastSquares(
                factors=rank, iterations=iterations, regularization=LAMBDA, alpha=ALPHA,
                use_cg=conjugate_gradient, num_threads=2, random_state=1,
            ).fit(matrix, show_progress=False)  # fmt: skip

    return Trainer(train, COUNTS[rank])


@pytest.mark.parametrize("rank", (10, 50, 100))
@pytest.mark.parametrize("kind", ("explicit", "implicit"))
def bench_iteration(benchmark, columns, frame, batches, kind, rank):
    parts: dict[str, Any] = {}
    implicit = kind == "implicit"
    options = {"alpha": ALPHA} if implicit else {}
    contestants = {each.name: each.trainer(batches, rank, parts, **options) for each in VARIANTS}
    if implicit:
        options["implicitPrefs"] = True
        contestants["CG"] = implicit_als(columns, rank, True)
        contestants["Cholesky"] = implicit_als(columns, rank, False)
    for blocks in MLLIB_BLOCKS:
        contestants[f"MLlib, {blocks} blocks"] = mllib(frame, rank, blocks, **options)
    medians = benchmark.pedantic(turn_by_turn, (contestants, slope), rounds=1)
    medians["MLlib"] = min(medians[f"MLlib, {blocks} blocks"] for blocks in MLLIB_BLOCKS)
    benchmark.extra_info |= {"rank": rank, "kind": kind}
    benchmark.extra_info |= {f"{name} s": round(value, 4) for name, value in medians.items()}
    for each in VARIANTS:
        for rival in ("MLlib", "CG", "Cholesky"):
            if rival in medians:
                ratio = medians[rival] / medians[each.name]
                benchmark.extra_info[f"{rival}/{each.name}"] = round(ratio, 2)
    for name, seconds_of_part in parts.items():
        for part, seconds in seconds_of_part.items():
            benchmark.extra_info[f"{name}: {part} s"] = round(seconds, 3)
