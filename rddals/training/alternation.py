"""The alternation: products from the users' factors, then users, over and over.

What an alternation persists it releases; it tells listeners what happens, and knows nothing of
them.
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
from rddals.exchange import EXCHANGES, NO_ROWS, Delivery, OwnRows, StepResult
from rddals.rdds.context import job_label
from rddals.rdds.factors import FactorTable
from rddals.rdds.lifetimes import discard
from rddals.rdds.links import Links
from rddals.training.block_step import first_step, solve_step
from rddals.training.events import HalfStepDone, LinksBuilt, Listener, TrainingDone
from rddals.training.segment import converged
from rddals.training.start import Start, start_by_id, start_from, start_of_mllib

__all__ = ["Alternation", "ExchangedAlternation"]

Known = tuple[FactorTable, FactorTable]


class Alternation(ABC):
    """Iterations over links.

    Attributes
    ----------
    factors : list of RDD of FactorBlock
        Users' and products', persisted, once it has run.
    history : list of HalfStepDone
    """

    def __init__(
        self,
        links: tuple[Links, Links],
        settings: Settings,
        listeners: Sequence[Listener],
        known: Known | None,
        built: LinksBuilt,
    ) -> None:
        self.links = links
        self.settings = settings
        self.listeners = listeners
        self.known = known
        self.built = built
        self.factors: list[RDD[FactorBlock] | None] = [None, None]
        self.history: list[HalfStepDone] = []

    def run(self, began: float) -> None:
        """Iterate; `began` is when the training did."""
        try:
            self._notify(self.built)
            self._alternate()
            self._notify(
                TrainingDone(
                    iterations=len(self.history) // 2,
                    loss=self.history[-1].loss if self.history else None,
                    seconds=perf_counter() - began,
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
        """Run the iterations and leave `factors`."""

    @abstractmethod
    def _release(self) -> None:
        """Free all but `factors`."""

    def _done(self, half_step: HalfStepDone) -> None:
        self.history.append(half_step)
        self._notify(half_step)

    def _notify(self, event: Any) -> None:
        for listener in self.listeners:
            listener(event)


class ExchangedAlternation(Alternation):
    """Runs one half-step after another, each block in a task, and has the rows exchanged."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.exchange = EXCHANGES[self.built.exchange.exchange]
        self.delivery: Delivery | None = None
        self.penalties = [0.0, 0.0]
        self.gram: NDArray[np.float64] | None = None

    def _alternate(self) -> None:
        settings = self.settings
        self._initialise()
        for iteration in range(1, settings.iterations + 1):
            final = iteration == settings.iterations
            # With a tolerance any iteration may turn out to be the last.
            keep = final or settings.tol > 0
            self._half_step(iteration, PRODUCTS, send=True, keep=keep)
            self._half_step(iteration, USERS, send=not final, keep=keep)
            if final or self._converged():
                return
            if iteration % settings.checkpoint_interval == 0 and self.delivery is not None:
                self.delivery.cut_lineage()

    def _initialise(self) -> None:
        untrained = self.settings.iterations == 0
        with job_label(self.links[USERS].rdd.context, "start"):
            for side in (PRODUCTS, USERS) if untrained else (USERS,):
                start = self._start(side)
                rdds = () if start.rows is None else (start.rows,)
                step = partial(first_step, start.make, self.settings.objective)
                self._run_step(
                    side,
                    step,
                    own_rows=OwnRows(rdds, start.shuffles),
                    send=not untrained,
                    keep=untrained,
                )

    def _start(self, side: int) -> Start:
        settings = self.settings
        asked = (self.links[side], settings.objective.rank, settings.seed)
        if self.known is not None:
            return start_from(self.known[side], self.links[side], start_by_id(*asked).make)
        return start_of_mllib(*asked) if settings.init == "mllib" else start_by_id(*asked)

    def _half_step(self, iteration: int, side: int, *, send: bool, keep: bool) -> None:
        started = perf_counter()
        links, settings = self.links[side], self.settings
        step = partial(solve_step, settings.objective, settings.kernels, self.gram)
        with job_label(links.rdd.context, f"{iteration} {links.name}"):
            result = self._run_step(side, step, send=send, keep=keep)
        parts: dict[str, float] = {"receive": 0.0, "other": 0.0}
        for report in result.reports:
            parts["receive"] += report.receive_seconds
            parts["other"] += report.step_seconds
            for part, seconds in report.step.seconds.items():
                parts[part] = parts.get(part, 0.0) + seconds
                parts["other"] -= seconds
        squared_errors = sum(r.step.loss for r in result.reports)  # with this side's penalty
        kernels = {report.step.kernels for report in result.reports} - {""}
        done = HalfStepDone(
            iteration=iteration,
            side=links.name,
            loss=squared_errors + self.penalties[1 - side],
            seconds=perf_counter() - started,
            task_seconds=parts,
            broadcast_id=None if self.delivery is None else self.delivery.broadcast_id,
            kernels=", ".join(sorted(kernels)),
        )
        self._done(done)

    def _run_step(
        self, side: int, step: Any, *, own_rows: OwnRows = NO_ROWS, send: bool, keep: bool
    ) -> StepResult:
        """One step on one side; its delivery and factors take the place of those before."""
        result = self.exchange.run_step(
            self.links[side],
            self.links[1 - side],
            self.delivery,
            step,
            own_rows=own_rows,
            send=send,
            keep=keep,
        )
        self.delivery = result.delivery
        outdated = self.factors[side]
        if keep and outdated is not None:
            discard(outdated)
        if keep:
            self.factors[side] = result.factors
        reports = [report.step for report in result.reports]
        self.penalties[side] = sum(report.penalty for report in reports)
        if self.settings.objective.implicit:
            self.gram = np.sum([report.gram for report in reports], axis=0)
        return result

    def _converged(self) -> bool:
        before = self.history[-3].loss if len(self.history) > 3 else None
        return converged(before, self.history[-1].loss, self.settings.tol)

    def _release(self) -> None:
        if self.delivery is not None:
            self.delivery.release()
