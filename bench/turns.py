"""Round-robin measurement, so that drifts in machine speed affect all contestants alike."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

__all__ = ["seconds_of", "turn_by_turn"]

ROUNDS = 3


def seconds_of(run: Callable[[], object]) -> float:
    """Return the duration of a call in seconds."""
    start = perf_counter()
    run()
    return perf_counter() - start


def turn_by_turn(
    contestants: dict[str, Any], measure: Callable[[Any], float] = seconds_of
) -> dict[str, float]:
    """Measure contestants in turn; return each median over `ROUNDS` rounds after a warm-up."""
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(1 + ROUNDS):
        for name, contestant in contestants.items():
            measured[name].append(measure(contestant))
    return {name: median(values[1:]) for name, values in measured.items()}
