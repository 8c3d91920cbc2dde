"""One batch of a stream: who was touched, one shuffle per half-update, and new rows on top.

The batch is linked as a training's ratings are, and its rows travel by the same exchanges: users'
to the products, which learn first, and products' to the users. Nothing else is moved, and nobody
is written who has no rating in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from time import perf_counter
from typing import Any

from pyspark import RDD

from rddals.config import StreamSettings
from rddals.exchange import EXCHANGES, Advance, Brought, Choice, Delivery, choose
from rddals.rdds.ingest import usable_batches
from rddals.rdds.levels import Levels
from rddals.rdds.links import PRODUCTS, USERS, LinkedRatings, NoRatingsError, build_links
from rddals.rdds.spark import ReportBook, discard, labelled
from rddals.rdds.stream_state import StreamState
from rddals.stream_steps import BatchReport, learn_step, show_step
from rddals.training import half_step_sizes

__all__ = ["BatchLearned", "learn"]


@dataclass(frozen=True, slots=True)
class BatchLearned:
    """What became of one batch.

    Attributes
    ----------
    batch : int
        From 1.
    ratings : int
    skipped : int
        Bad ratings that were left out.
    new_users, new_products : int
        Ids that no batch before had.
    rmse : float or None
        The error of the model before it learned the batch: the root of the mean square over all
        its ratings, predictions as they are. None if there was no model, or no rating.
    exchange : Choice or None
        The exchange that was used, and why; None if there was no rating.
    seconds : float
    """

    batch: int
    ratings: int
    skipped: int
    new_users: int
    new_products: int
    rmse: float | None
    exchange: Choice | None
    seconds: float


def learn(
    source: RDD[Any], state: StreamState, settings: StreamSettings
) -> tuple[StreamState, BatchLearned]:
    """Learn from one batch.

    Parameters
    ----------
    source : RDD
        As `rddals.rdds.ingest.rating_source` gives it.
    state : StreamState
        It stays valid; levels that the new state has no use for are left to its holders.
    settings : StreamSettings

    Returns
    -------
    tuple of StreamState and BatchLearned

    Raises
    ------
    RddalsError
        As training does.
    """
    began = perf_counter()
    sc = source.context
    book = ReportBook(sc)
    batch = state.batches + 1
    try:
        if settings.bad_ratings == "skip":
            source = source.mapPartitionsWithIndex(partial(usable_batches, book))
        users, products = state.sides
        try:
            with labelled(sc, f"batch {batch} links"):
                links = build_links(source, users.partitioner, products.partitioner)
        except NoRatingsError:
            skipped = sum(book.take("skipped"))
            learned = BatchLearned(batch, 0, skipped, 0, 0, None, None, perf_counter() - began)
            return replace(state, batches=batch), learned
        skipped = sum(book.take("skipped"))
    finally:
        book.close()
    try:
        new_state, learned = _Batch(links, state, settings).learn()
    finally:
        links.release()
    return new_state, replace(learned, skipped=skipped, seconds=perf_counter() - began)


class _Batch:
    """One batch while it is learned."""

    def __init__(self, links: LinkedRatings, state: StreamState, settings: StreamSettings) -> None:
        self.links = (links.users, links.products)
        self.state = state
        self.settings = settings
        self.choice = Choice(settings.exchange, "asked for")
        if settings.exchange == "auto":
            self.choice = choose(*half_step_sizes(self.links, settings.rank + 1))
        self.exchange = EXCHANGES[self.choice.exchange]
        self.delivery: Delivery | None = None
        #: The rows of either side that the batch touches, as they are by now.
        self.touched: list[RDD[Any] | None] = [None, None]

    def learn(self) -> tuple[StreamState, BatchLearned]:
        try:
            shown = self._show_users()
            ratings = sum(s.ratings for s in self.links[USERS].summaries)
            state = replace(
                self.state,
                total=self.state.total + sum((report.total for report in shown), Fraction(0)),
                ratings=self.state.ratings + ratings,
                batches=self.state.batches + 1,
            )
            iterations = self.settings.iterations
            for iteration in range(1, iterations + 1):
                final = iteration == iterations
                reports = self._update(PRODUCTS, iteration, state.mean, send=True)
                if iteration == 1:
                    learning = reports
                self._update(USERS, iteration, state.mean, send=not final)
            new = (sum(r.new_ids for r in shown), sum(r.new_ids for r in learning))
            error = sum(report.squared_error for report in learning)
            state = replace(state, **self._grown(new))
        except BaseException:
            for rows in self.touched:
                if rows is not None:
                    discard(rows)
            raise
        finally:
            if self.delivery is not None:
                self.delivery.release()
        learned = BatchLearned(
            batch=state.batches,
            ratings=ratings,
            skipped=0,
            new_users=new[USERS],
            new_products=new[PRODUCTS],
            rmse=(error / ratings) ** 0.5 if self.state.ratings else None,
            exchange=self.choice,
            seconds=0.0,
        )
        return state, learned

    def _show_users(self) -> list[BatchReport]:
        """Users of the batch, with the rows they have, are shown to its products."""
        step = partial(show_step, self.settings.rank)
        return self._advance(USERS, step, self.state.sides[USERS].rdds, send=True)

    def _update(self, side: int, iteration: int, mean: float, *, send: bool) -> list[BatchReport]:
        """A half-update: one side's rows from the other's."""
        step = partial(
            learn_step,
            self.settings,
            side,
            iteration,
            mean,
            self.state.mean,
        )
        touched = self.touched[side]
        own = self.state.sides[side].rdds if touched is None else [touched]
        return self._advance(side, step, own, send=send)

    def _advance(self, side: int, step: Any, own: Any, *, send: bool) -> list[BatchReport]:
        links, other = self.links[side], self.links[1 - side]
        with labelled(links.rdd.context, f"batch {self.state.batches + 1} {links.name}"):
            advance: Advance = self.exchange.advance(
                links, other, self.delivery, step, brought=Brought(own), send=send, keep=True
            )
        self.delivery = advance.delivery
        outdated, self.touched[side] = self.touched[side], advance.factors
        if outdated is not None:
            discard(outdated)
        return [report.step for report in advance.reports]

    def _grown(self, new: tuple[int, int]) -> dict[str, Any]:
        """Both sides with what the batch wrote on top, and how many ids they have."""
        sides: list[Levels] = []
        ids: list[int] = []
        try:
            for side, links in enumerate(self.links):
                ids.append(self.state.ids[side] + new[side])
                rows, self.touched[side] = self.touched[side], None
                assert rows is not None
                touched = sum(summary.ids for summary in links.summaries)
                with labelled(links.rdd.context, f"batch {self.state.batches + 1} levels"):
                    sides.append(self.state.sides[side].grown(rows, touched, ids[side]))
        except BaseException:
            for grown in sides:
                discard(grown.rdds[-1])  # the one level that no other state has
            raise
        return {"sides": tuple(sides), "ids": tuple(ids)}
