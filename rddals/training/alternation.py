"""The alternation: iterations of a product half-step and a user half-step.

An alternation releases everything that it persists, except the factors. It sends events to
listeners and does not know what they do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from rddals.blocks.factors import FactorBlock
from rddals.blocks.sides import PRODUCTS, USERS
from rddals.config import Settings
from rddals.exchange import EXCHANGES, HalfStep, OwnRows, StepResult, StepRunner
from rddals.rdds.factors import FactorTable
from rddals.rdds.lifetimes import discard
from rddals.rdds.links import Links
from rddals.training.block_step import first_step, solve_step
from rddals.training.events import HalfStepDone, LinksBuilt, Listener, TrainingDone
from rddals.training.segment import converged
from rddals.training.start import Start, start_by_id, start_from, start_of_mllib

FactorTables = tuple[FactorTable, FactorTable]


class Alternation(ABC):
    """Iterations over the links of both sides.

    Attributes
    ----------
    links : pair of Links
        Links of users and of products.
    known : pair of FactorTable, or None
        Factors to start from; ids without one get a random start.
    built : LinksBuilt
        Event of the links, which names the exchange.
    factors : list of RDD of FactorBlock
        Factors of users and of products, persisted; set by `run`.
    history : list of HalfStepDone
        Events of the half-steps so far.
    """

    def __init__(
        self,
        links: tuple[Links, Links],
        settings: Settings,
        listeners: Sequence[Listener],
        known: FactorTables | None,
        built: LinksBuilt,
    ) -> None:
        self.links = links
        self.settings = settings
        self.listeners = listeners
        self.known = known
        self.built = built
        self.factors: list[RDD[FactorBlock] | None] = [None, None]
        self.history: list[HalfStepDone] = []

    def run(self, start_time: float) -> None:
        """Run the iterations; `start_time` is the time at which training started."""
        try:
            self._notify(self.built)
            self._alternate()
            self._notify(
                TrainingDone(
                    iterations=len(self.history) // 2,
                    loss=self.history[-1].loss if self.history else None,
                    seconds=perf_counter() - start_time,
                )
            )
        except BaseException:
            for factors in self.factors:
                if factors is not None:
                    discard(factors)
            raise
        finally:
            self._release()

    @abstractmethod
    def _alternate(self) -> None:
        """Run the iterations and set `factors`."""

    @abstractmethod
    def _release(self) -> None:
        """Release all RDDs except `factors`."""

    def _record(self, half_step: HalfStepDone) -> None:
        self.history.append(half_step)
        self._notify(half_step)

    def _notify(self, event: Any) -> None:
        for listener in self.listeners:
            listener(event)


class ExchangedAlternation(Alternation):
    """Iterations of half-steps. An exchange moves rows between them; each block is one task."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.runner = StepRunner(EXCHANGES[self.built.exchange.exchange], self.links)
        self.penalties = [0.0, 0.0]
        self.gram: NDArray[np.float64] | None = None

    def _alternate(self) -> None:
        settings = self.settings
        self._initialise()
        for iteration in range(1, settings.iterations + 1):
            final = iteration == settings.iterations
            # With a tolerance, any iteration may be the last.
            keep = final or settings.tol > 0
            self._half_step(iteration, PRODUCTS, send=True, keep=keep)
            self._half_step(iteration, USERS, send=not final, keep=keep)
            if final or self._converged():
                break
            if iteration % settings.checkpoint_interval == 0:
                self.runner.cut_lineage()
        self.factors = [self.runner.take(side) for side in (USERS, PRODUCTS)]

    def _initialise(self) -> None:
        untrained = self.settings.iterations == 0
        for side in (PRODUCTS, USERS) if untrained else (USERS,):
            start = self._start(side)
            rdds = () if start.rows is None else (start.rows,)
            step = partial(first_step, start.make, self.settings.objective)
            own_rows = OwnRows(rdds, start.shuffles)
            self._run(HalfStep(side, step, own_rows, send=not untrained, keep=untrained), "start")

    def _start(self, side: int) -> Start:
        settings = self.settings
        arguments = (self.links[side], settings.objective.rank, settings.seed)
        if self.known is not None:
            return start_from(self.known[side], self.links[side], start_by_id(*arguments).make)
        return start_of_mllib(*arguments) if settings.init == "mllib" else start_by_id(*arguments)

    def _half_step(self, iteration: int, side: int, *, send: bool, keep: bool) -> None:
        started = perf_counter()
        links, settings = self.links[side], self.settings
        step = partial(solve_step, settings.objective, settings.kernels, self.gram)
        result = self._run(HalfStep(side, step, send=send, keep=keep), f"{iteration} {links.name}")
        parts: dict[str, float] = {"receive": 0.0, "other": 0.0}
        for report in result.reports:
            parts["receive"] += report.receive_seconds
            parts["other"] += report.step_seconds
            for part, seconds in report.step.seconds.items():
                parts[part] = parts.get(part, 0.0) + seconds
                parts["other"] -= seconds
        squared_errors = sum(r.step.loss for r in result.reports)  # includes this side's penalty
        kernels = {report.step.kernels for report in result.reports} - {""}
        event = HalfStepDone(
            iteration=iteration,
            side=links.name,
            loss=squared_errors + self.penalties[1 - side],
            seconds=perf_counter() - started,
            task_seconds=parts,
            broadcast_id=None if result.delivery is None else result.delivery.broadcast_id,
            kernels=", ".join(sorted(kernels)),
        )
        self._record(event)

    def _run(self, half_step: HalfStep, label: str) -> StepResult:
        result = self.runner.run(half_step, label)
        reports = [report.step for report in result.reports]
        self.penalties[half_step.side] = sum(report.penalty for report in reports)
        if self.settings.objective.implicit:
            self.gram = np.sum([report.gram for report in reports], axis=0)
        return result

    def _converged(self) -> bool:
        previous = self.history[-3].loss if len(self.history) > 3 else None
        return converged(previous, self.history[-1].loss, self.settings.tol)

    def _release(self) -> None:
        self.runner.close()
