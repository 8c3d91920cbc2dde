"""One batch of a stream: who is touched, one shuffle per half-update, and new rows on top.

The batch is linked as a training's ratings are, and rows travel by the same exchanges: the side
that learns second is shown to the other, which learns and sends its new rows back. Nobody is
written who has no rating in the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from time import perf_counter
from typing import Any

from pyspark import RDD

from rddals.blocks.exact import exact_sum
from rddals.blocks.ratings import RatingBlock
from rddals.blocks.sides import PRODUCTS, USERS
from rddals.config import StreamSettings
from rddals.exchange import EXCHANGES, Choice, Delivery, OwnRows, choose
from rddals.rdds.context import job_label
from rddals.rdds.ingest import read_batches, usable_batches
from rddals.rdds.lifetimes import discard
from rddals.rdds.links import LinkedRatings, NoRatingsError, build_links
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task
from rddals.streaming.block_step import BatchReport, Means, lookup_step, update_step
from rddals.streaming.history import IncrementalLinks, extended_history, incremental_links
from rddals.streaming.state import StreamState
from rddals.training.train import half_step_sizes

__all__ = ["BatchLearned", "learn", "sweep"]

#: Which side learns first and which second: what was found to predict the next batch best.
ORDER = {"sgd": (PRODUCTS, USERS), "als": (USERS, PRODUCTS)}


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
    new_users: int = 0
    new_products: int = 0
    rmse: float | None = None
    exchange: Choice | None = None
    seconds: float = 0.0


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
    number = state.batches + 1
    task_reports = TaskReports(sc)
    try:
        tallied = source.mapPartitionsWithIndex(
            partial(_counted_batches, task_reports, settings.bad_ratings == "skip")
        )
        users, products = state.sides
        linked: LinkedRatings | None = None
        try:
            with job_label(sc, f"batch {number} links"):
                linked = build_links(tallied, users.partitioner, products.partitioner)
        except NoRatingsError:
            pass
        counts, totals = zip(*task_reports.take("tally"), strict=True) if linked else ((), ())
        skipped = sum(task_reports.take("skipped"))
    finally:
        task_reports.close()
    after = replace(
        state,
        total=state.total + sum(totals, Fraction(0)),
        ratings=state.ratings + sum(counts),
        batches=number,
    )
    learned = BatchLearned(number, sum(counts), skipped)
    if linked is not None:
        try:
            after, learned = _learn(linked, state, after, settings, learned)
        finally:
            linked.release()
    return after, replace(learned, seconds=perf_counter() - began)


def sweep(state: StreamState, settings: StreamSettings) -> StreamState:
    """Solve all users, then all products, from all their ratings; as often as asked for."""
    assert state.history is not None
    with job_label(state.sides[USERS].rdds[0].context, "sweep links"):
        links = incremental_links(state.history, None)
    try:
        return _HalfUpdates(links, state, Means(state.mean, state.mean), settings, "sweep").run()
    finally:
        links.release()


def _learn(
    linked: LinkedRatings,
    before: StreamState,
    after: StreamState,
    settings: StreamSettings,
    learned: BatchLearned,
) -> tuple[StreamState, BatchLearned]:
    """The state after a batch that has ratings; its counts are right already."""
    sc = linked.users.rdd.context
    name = f"batch {after.batches}"
    means = Means(before.mean, after.mean)
    if before.history is None:
        rounds = _HalfUpdates(linked, after, means, settings, name)
        after = rounds.run()
    else:
        with job_label(sc, f"{name} links"):
            links = incremental_links(before.history, linked)
        try:
            rounds = _HalfUpdates(links, after, means, settings, name)
            after = rounds.run()
        finally:
            links.release()
        try:
            with job_label(sc, f"{name} history"):
                history = extended_history(before.history, linked, after.ratings)
        except BaseException:
            _release_unheld(after)
            raise
        after = replace(after, history=history)
    return after, replace(
        learned,
        new_users=rounds.new[USERS],
        new_products=rounds.new[PRODUCTS],
        rmse=(rounds.squared_error / learned.ratings) ** 0.5 if before.ratings else None,
        exchange=rounds.choice,
    )


def _release_unheld(state: StreamState) -> None:
    """Free those levels of a state that nobody holds."""
    for levels in state.all_levels:
        levels.retain().release()


class _HalfUpdates:
    """Half-updates, first one side and then the other, over some links."""

    def __init__(
        self,
        links: LinkedRatings | IncrementalLinks,
        state: StreamState,
        means: Means,
        settings: StreamSettings,
        name: str,
    ) -> None:
        self.links = (links.users, links.products)
        self.state = state
        self.means = means
        self.settings = settings
        self.name = name
        self.choice = Choice(settings.exchange, "asked for")
        if settings.exchange == "auto":
            self.choice = choose(*half_step_sizes(self.links, settings.rank + 1))
        self.exchange = EXCHANGES[self.choice.exchange]
        self.delivery: Delivery | None = None
        #: The rows of either side that the links touch, as they are by now.
        self.touched: list[RDD[Any] | None] = [None, None]
        self.new = [0, 0]
        self.squared_error = 0.0

    def run(self) -> StreamState:
        """The state with both sides' new rows on top."""
        first, second = ORDER[self.settings.update]
        iterations = self.settings.iterations
        try:
            show = partial(lookup_step, self.settings, second)
            shown = self._run_step(second, show, self.state.sides[second].rdds, send=True)
            self.new[second] = sum(report.new_ids for report in shown)
            for iteration in range(1, iterations + 1):
                reports = self._update(first, iteration, first=True, send=True)
                self.new[first] += sum(report.new_ids for report in reports)
                self.squared_error += sum(report.squared_error for report in reports)
                self._update(second, iteration, first=False, send=iteration < iterations)
            return self._next_state()
        finally:
            if self.delivery is not None:
                self.delivery.release()
            for rows in self.touched:
                if rows is not None:
                    discard(rows)

    def _update(self, side: int, iteration: int, *, first: bool, send: bool) -> list[BatchReport]:
        """A half-update: one side's rows from the other's."""
        step = partial(update_step, self.settings, side, iteration, first, self.means)
        touched = self.touched[side]
        own = self.state.sides[side].rdds if touched is None else [touched]
        return self._run_step(side, step, own, send=send)

    def _run_step(
        self, side: int, step: Any, own: list[RDD[Any]], *, send: bool
    ) -> list[BatchReport]:
        links, other = self.links[side], self.links[1 - side]
        with job_label(links.rdd.context, f"{self.name} {links.name}"):
            result = self.exchange.run_step(
                links,
                other,
                self.delivery,
                step,
                own_rows=OwnRows(own),
                send=send,
                keep=True,
            )
        self.delivery = result.delivery
        outdated, self.touched[side] = self.touched[side], result.factors
        if outdated is not None:
            discard(outdated)
        return [report.step for report in result.reports]

    def _next_state(self) -> StreamState:
        """Both sides with what was learned on top, and how many ids they have."""
        ids = tuple(had + new for had, new in zip(self.state.ids, self.new, strict=True))
        sides = list(self.state.sides)
        try:
            for side, links in enumerate(self.links):
                rows, self.touched[side] = self.touched[side], None
                assert rows is not None
                written = sum(summary.ids for summary in links.summaries)
                with job_label(links.rdd.context, f"{self.name} levels"):
                    sides[side] = sides[side].with_level(rows, written, ids[side])
        except BaseException:
            if sides[USERS] is not self.state.sides[USERS]:
                sides[USERS].retain().release()
            raise
        return replace(self.state, sides=(sides[USERS], sides[PRODUCTS]), ids=(ids[0], ids[1]))


@spark_task
def _counted_batches(
    task_reports: TaskReports, skip: bool, partition: int, elements: Iterable[Any]
) -> Iterator[RatingBlock]:
    """The ratings of a partition; how many there are, and their sum, are filed as "tally"."""
    count, total = 0, Fraction(0)
    read = partial(usable_batches, task_reports) if skip else read_batches
    for batch in read(partition, elements):
        count += len(batch)
        total += exact_sum(batch.ratings)
        yield batch
    task_reports.add("tally", partition, (count, total))
