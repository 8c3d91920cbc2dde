"""The alternation: the only loop there is.

Products first, from the users' factors, then users. What it persists it releases; what happens it
tells to listeners, which it knows nothing of.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from partitioners import Partitioner
from rddals.blocks.factors import FactorBlock
from rddals.blocks.popularity import Popularity
from rddals.config import Settings
from rddals.exchange import (
    EXCHANGES,
    NOTHING,
    Advance,
    Brought,
    Choice,
    Delivery,
    HalfStepSizes,
    choose,
)
from rddals.rdds.factors import FactorTable
from rddals.rdds.links import PRODUCTS, USERS, Links, build_links
from rddals.rdds.spark import discard, executors_of, labelled
from rddals.rdds.start import Start, start_by_id, start_from, start_of_mllib
from rddals.steps import first_step, solve_step

__all__ = ["HalfStepDone", "LinksBuilt", "Listener", "Trained", "TrainingDone", "train"]

log = logging.getLogger("rddals")


@dataclass(frozen=True, slots=True)
class LinksBuilt:
    """The ratings are read and both sides' link blocks are cached.

    Attributes
    ----------
    ratings, users, products : int
        How many there are.
    exchange : Choice
        The exchange that is used, and why.
    sizes : pair of HalfStepSizes
        Of the half-steps in which users, and products, send.
    seconds : float
    """

    ratings: int
    users: int
    products: int
    exchange: Choice
    sizes: tuple[HalfStepSizes, HalfStepSizes]
    seconds: float


@dataclass(frozen=True, slots=True)
class HalfStepDone:
    """One side has new factors.

    Attributes
    ----------
    iteration : int
        From 1.
    side : str
        "products" or "users".
    loss : float
        The training objective with the new factors: squared errors, weighted if implicit, plus
        both sides' penalties.
    seconds : float
        As the driver saw it.
    task_seconds : dict of str to float
        Summed over the blocks: "receive", "gather", "gram" and "solve", and "other" for the rest
        of the step.
    broadcast_id : int or None
        Spark's number for the broadcast that carries the new factors, if one does; events name it
        so.
    """

    iteration: int
    side: str
    loss: float
    seconds: float
    task_seconds: dict[str, float]
    broadcast_id: int | None = None


@dataclass(frozen=True, slots=True)
class TrainingDone:
    """The factors are in place; sent also when training stops early because of `tol`."""

    iterations: int
    loss: float | None
    seconds: float


Listener = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training leaves: two persisted RDDs, popular ids, and the events it told of."""

    user_factors: RDD[FactorBlock]
    product_factors: RDD[FactorBlock]
    popular: tuple[Popularity, Popularity]
    history: tuple[HalfStepDone, ...]
    links: LinksBuilt


def train(
    source: RDD[Any],
    partitioners: tuple[Partitioner, Partitioner],
    settings: Settings,
    listeners: Sequence[Listener] = (),
    known: tuple[FactorTable, FactorTable] | None = None,
) -> Trained:
    """Factorise the ratings of `source`.

    Parameters
    ----------
    source : RDD
        As `rddals.rdds.ingest.rating_source` gives it.
    partitioners : pair of Partitioner
        For users and for products.
    settings : Settings
    listeners : sequence of callable
        Called on the driver with each `LinksBuilt`, `HalfStepDone` and `TrainingDone`.
    known : pair of FactorTable, optional
        Users' and products' factors to start from; ids they do not know start from the seed.

    Returns
    -------
    Trained
    """
    began = perf_counter()
    with labelled(source.context, "links"):
        links = build_links(source, *partitioners, settings.duplicates)
    try:
        sides = (links.users, links.products)
        return _Alternation(sides, settings, listeners, known, began).run()
    finally:
        links.release()


class _Alternation:
    def __init__(
        self,
        links: tuple[Links, Links],
        settings: Settings,
        listeners: Sequence[Listener],
        known: tuple[FactorTable, FactorTable] | None,
        began: float,
    ) -> None:
        self.links = links
        self.settings = settings
        self.listeners = listeners
        self.began = began
        self.known = known
        self.sizes = half_step_sizes(links, settings.objective.rank)
        if settings.exchange == "auto":
            self.choice = choose(*self.sizes)
        else:
            self.choice = Choice(settings.exchange, "asked for")
        log.info("exchange %s: %s", self.choice.exchange, self.choice.reason)
        self.exchange = EXCHANGES[self.choice.exchange]
        self.delivery: Delivery | None = None
        self.factors: list[RDD[FactorBlock] | None] = [None, None]
        self.penalties = [0.0, 0.0]
        self.gram: NDArray[np.float64] | None = None
        self.history: list[HalfStepDone] = []

    def run(self) -> Trained:
        users, products = self.links
        built = LinksBuilt(
            ratings=sum(s.ratings for s in users.summaries),
            users=sum(s.ids for s in users.summaries),
            products=sum(s.ids for s in products.summaries),
            exchange=self.choice,
            sizes=self.sizes,
            seconds=perf_counter() - self.began,
        )
        try:
            self._tell(built)
            self._alternate()
            self._tell(
                TrainingDone(
                    iterations=len(self.history) // 2,
                    loss=self.history[-1].loss if self.history else None,
                    seconds=perf_counter() - self.began,
                )
            )
        except BaseException:
            for factors in self.factors:
                if factors is not None:
                    discard(factors)
            raise
        finally:
            if self.delivery is not None:
                self.delivery.release()
        user_factors, product_factors = self.factors
        assert user_factors is not None and product_factors is not None
        return Trained(
            user_factors,
            product_factors,
            (users.popular, products.popular),
            tuple(self.history),
            built,
        )

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
        with labelled(self.links[USERS].rdd.context, "start"):
            for side in (PRODUCTS, USERS) if untrained else (USERS,):
                start = self._start(side)
                rdds = () if start.brought is None else (start.brought,)
                step = partial(first_step, start.make, self.settings.objective)
                self._advance(
                    side,
                    step,
                    brought=Brought(rdds, start.shuffles),
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
        links = self.links[side]
        step = partial(solve_step, self.settings.objective, self.gram)
        with labelled(links.rdd.context, f"{iteration} {links.name}"):
            advance = self._advance(side, step, send=send, keep=keep)
        parts: dict[str, float] = {"receive": 0.0, "other": 0.0}
        for report in advance.reports:
            parts["receive"] += report.receive_seconds
            parts["other"] += report.step_seconds
            for part, seconds in report.step.seconds.items():
                parts[part] = parts.get(part, 0.0) + seconds
                parts["other"] -= seconds
        squared_errors = sum(r.step.loss for r in advance.reports)  # with this side's penalty
        done = HalfStepDone(
            iteration=iteration,
            side=links.name,
            loss=squared_errors + self.penalties[1 - side],
            seconds=perf_counter() - started,
            task_seconds=parts,
            broadcast_id=None if self.delivery is None else self.delivery.broadcast_id,
        )
        self.history.append(done)
        self._tell(done)

    def _advance(
        self, side: int, step: Any, *, brought: Brought = NOTHING, send: bool, keep: bool
    ) -> Advance:
        """One step on one side; its delivery and factors take the place of those before."""
        advance = self.exchange.advance(
            self.links[side],
            self.links[1 - side],
            self.delivery,
            step,
            brought=brought,
            send=send,
            keep=keep,
        )
        self.delivery = advance.delivery
        outdated = self.factors[side]
        if keep and outdated is not None:
            discard(outdated)
        if keep:
            self.factors[side] = advance.factors
        reports = [report.step for report in advance.reports]
        self.penalties[side] = sum(report.penalty for report in reports)
        if self.settings.objective.implicit:
            self.gram = np.sum([report.gram for report in reports], axis=0)
        return advance

    def _converged(self) -> bool:
        """Whether the last iteration improved the loss by less than the tolerance."""
        if self.settings.tol == 0 or len(self.history) < 4:
            return False
        before, after = self.history[-3].loss, self.history[-1].loss
        return before - after < self.settings.tol * abs(before)

    def _tell(self, event: Any) -> None:
        for listener in self.listeners:
            listener(event)


def half_step_sizes(links: tuple[Links, Links], rank: int) -> tuple[HalfStepSizes, HalfStepSizes]:
    """Sizes of the half-steps in which users, and products, send."""
    return (
        _sizes(links[USERS], links[PRODUCTS], rank),
        _sizes(links[PRODUCTS], links[USERS], rank),
    )


def _sizes(source: Links, destination: Links, rank: int) -> HalfStepSizes:
    return HalfStepSizes(
        source_rows=sum(s.ids for s in source.summaries),
        needed_rows=sum(s.receives for s in destination.summaries),
        ratings=sum(s.ratings for s in destination.summaries),
        rank=rank,
        executors=executors_of(source.rdd.context),
    )
