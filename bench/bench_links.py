"""Time of building the link blocks, in units of iterations at rank 50."""

from __future__ import annotations

from statistics import median

import pytest

from rddals import ALS, HalfStepDone, LinksBuilt


@pytest.mark.parametrize("precision", ("double", "single"))
@pytest.mark.parametrize("source", ("frame", "batches"))
def bench_links(benchmark, request, source, precision):
    ratings = request.getfixturevalue(source)
    built: list[float] = []
    iterations: list[float] = []

    def train() -> None:
        events: list = []
        ALS.train(
            ratings, 50, 4, 0.1, 2, seed=1, precision=precision, listeners=[events.append]
        ).unpersist()
        built.extend(e.seconds for e in events if isinstance(e, LinksBuilt))
        steps = [e.seconds for e in events if isinstance(e, HalfStepDone)]
        iterations.extend(a + b for a, b in zip(steps[2::2], steps[3::2], strict=True))

    benchmark.pedantic(train, rounds=3, warmup_rounds=1)
    benchmark.extra_info |= {
        "source": source,
        "precision": precision,
        "links s": round(median(built), 2),
        "iteration s": round(median(iterations), 2),
        "links in iterations": round(median(built) / median(iterations), 2),
    }
