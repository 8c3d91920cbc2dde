"""Half-steps on one core, without Spark."""

from __future__ import annotations

import numpy as np
import pytest

threadpoolctl = pytest.importorskip("threadpoolctl")

from bench.data import ratings  # noqa: E402
from partitioners import HashPartitioner  # noqa: E402
from rddals import RatingBlock  # noqa: E402
from rddals.blocks.links import InBlock, link  # noqa: E402
from rddals.config import Objective  # noqa: E402
from rddals.kernels.flops import flops  # noqa: E402
from rddals.kernels.half_step import gram, half_step  # noqa: E402

RANKS = (10, 50, 100)
PRECISIONS = ("single", "double")
KERNELS = ("native", "numpy")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with threadpoolctl.threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def gemm_rate():
    """Return the GFlop/s of a large matrix product by precision."""
    from time import perf_counter

    rates = {}
    for precision, dtype in (("single", np.float32), ("double", np.float64)):
        a = np.ones((1500, 1500), dtype=dtype)
        seconds = []
        for _ in range(5):
            start = perf_counter()
            a @ a
            seconds.append(perf_counter() - start)
        rates[precision] = 2 * 1500**3 / min(seconds) / 1e9
    return rates


def equal_degrees(rows: int, degree: int, sources: int = 15_000) -> InBlock:
    """Build an in-block whose rows all have `degree` random sources."""
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(rows), degree)
    products = random.integers(sources, size=rows * degree)
    stars = random.integers(1, 6, size=rows * degree)
    block = RatingBlock.from_columns(users, products, stars)
    return link(0, block, 0, HashPartitioner(1)).in_block


def source_rows(in_block: InBlock, rank: int) -> np.ndarray:
    rows = np.random.default_rng(1).normal(size=(len(in_block.source_ids), rank))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def total_flops(in_block: InBlock, objective: Objective) -> float:
    """Return the operations of a half-step, in the cheaper form of each row's system."""
    return float(flops(in_block.degrees, objective.rank).sum())


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("degree", (10, 100, 1000))
@pytest.mark.parametrize("rank", RANKS)
def bench_degree(benchmark, gemm_rate, rank, degree, precision, kernels):
    in_block = equal_degrees(max(20, 400_000 // degree), degree)
    objective = Objective(rank=rank, lambda_=0.1, precision=precision)
    rows = source_rows(in_block, rank)
    benchmark.pedantic(
        half_step, (in_block, rows, objective), {"kernels": kernels}, rounds=5, warmup_rounds=1
    )
    rate = total_flops(in_block, objective) / benchmark.stats.stats.median / 1e9
    benchmark.extra_info |= {
        "rank": rank,
        "degree": degree,
        "precision": precision,
        "kernels": kernels,
        "GFlop/s": round(rate, 1),
        "of gemm": f"{rate / gemm_rate[precision]:.0%}",
        "µs/row": round(benchmark.stats.stats.median / len(in_block.ids) * 1e6, 2),
    }


@pytest.fixture(scope="module")
def both_sides():
    everything = ratings()
    return [link(0, everything, side, HashPartitioner(1)).in_block for side in (0, 1)]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", ("explicit", "implicit"))
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("rank", RANKS)
def bench_iteration(benchmark, gemm_rate, both_sides, rank, precision, kind, kernels):
    objective = Objective(
        rank=rank, lambda_=0.1, precision=precision, implicit=kind == "implicit", alpha=1.0
    )
    inputs = [(block, source_rows(block, rank)) for block in both_sides]
    parts: dict[str, float] = {}

    def iteration():
        parts.update(gather=0.0, gram=0.0, solve=0.0)
        for block, rows in inputs:
            shared = gram(rows) if objective.implicit else None
            solution = half_step(block, rows, objective, shared, kernels=kernels)
            for part, spent in solution.seconds.items():
                parts[part] += spent

    benchmark.pedantic(iteration, rounds=3, warmup_rounds=1)
    seconds = benchmark.stats.stats.median
    rate = sum(total_flops(block, objective) for block, _ in inputs) / seconds / 1e9
    benchmark.extra_info |= {
        "rank": rank,
        "kind": kind,
        "precision": precision,
        "kernels": kernels,
        "iteration s": round(seconds, 3),
        "GFlop/s": round(rate, 1),
        "of gemm": f"{rate / gemm_rate[precision]:.0%}",
        **{f"{part} s": round(seconds, 3) for part, seconds in parts.items()},
    }
