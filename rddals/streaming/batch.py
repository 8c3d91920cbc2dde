"""Learning of one batch of a stream, with one shuffle per half-update.

The batch is linked as in training, and rows travel by the same exchanges. The side that learns
second first sends its current rows; the other side learns from them and sends its new rows back.
Only ids with a rating in the batch are written, as a new level.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
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
from rddals.exchange import EXCHANGES, Choice, HalfStep, OwnRows, StepRunner, choose
from rddals.rdds.context import job_label
from rddals.rdds.ingest import read_batches, usable_batches
from rddals.rdds.lifetimes import undo_on_failure
from rddals.rdds.links import LinkedRatings, NoRatingsError, build_links
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task
from rddals.streaming.block_step import BatchReport, Means, lookup_step, update_step
from rddals.streaming.history import extended_history, incremental_links
from rddals.streaming.state import StreamState
from rddals.training.train import sizes_of_links

#: The side that learns first and the side that learns second. This order predicts the next batch
#: best.
ORDER = {"sgd": (PRODUCTS, USERS), "als": (USERS, PRODUCTS)}


@dataclass(frozen=True, slots=True)
class BatchLearned:
    """Result of learning one batch.

    Attributes
    ----------
    batch : int
        Number of the batch, from 1.
    ratings : int
        Number of ratings learned.
    skipped : int
        Number of bad ratings skipped.
    new_users, new_products : int
        Numbers of ids that no earlier batch had.
    rmse : float or None
        Root mean square error of the previous model over the batch's ratings, with predictions
        not clipped. None without a previous model or without ratings.
    exchange : Choice or None
        The exchange that was used, and the reason; None without ratings.
    seconds : float
        Duration.
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
    """Learn one batch of ratings, which come from `rddals.rdds.ingest.rating_source`.

    `state` stays valid; levels that the new state does not use belong to its holders.
    """
    start = perf_counter()
    sc = source.context
    number = state.batches + 1
    with closing(TaskReports(sc)) as task_reports:
        counted = source.mapPartitionsWithIndex(
            partial(_counted_batches, task_reports, settings.bad_ratings == "skip")
        )
        users, products = state.sides
        linked: LinkedRatings | None = None
        try:
            with job_label(sc, f"batch {number} links"):
                linked = build_links(counted, users.partitioner, products.partitioner)
        except NoRatingsError:
            pass
        counts, totals = zip(*task_reports.take("tally"), strict=True) if linked else ((), ())
        skipped = sum(task_reports.take("skipped"))
    after = replace(
        state,
        total=state.total + sum(totals, Fraction(0)),
        ratings=state.ratings + sum(counts),
        batches=number,
    )
    learned = BatchLearned(number, sum(counts), skipped)
    if linked is not None:
        try:
            after, learned = _learn_linked(linked, state, after, settings, learned)
        finally:
            linked.release()
    return after, replace(learned, seconds=perf_counter() - start)


def sweep(state: StreamState, settings: StreamSettings) -> StreamState:
    """Solve all users, then all products, from all their ratings, `iterations` times."""
    assert state.history is not None
    with job_label(state.sides[USERS].rdds[0].context, "sweep links"):
        links = incremental_links(state.history, None)
    try:
        return _HalfUpdates(links, state, Means(state.mean, state.mean), settings, "sweep").run()
    finally:
        links.release()


def _learn_linked(
    linked: LinkedRatings,
    before: StreamState,
    after: StreamState,
    settings: StreamSettings,
    learned: BatchLearned,
) -> tuple[StreamState, BatchLearned]:
    """Return the state and the result of a batch with ratings, whose counts are already set."""
    sc = linked.users.rdd.context
    name = f"batch {after.batches}"
    means = Means(before.mean, after.mean)
    if before.history is None:
        updates = _HalfUpdates(linked, after, means, settings, name)
        after = updates.run()
    else:
        with job_label(sc, f"{name} links"):
            links = incremental_links(before.history, linked)
        try:
            updates = _HalfUpdates(links, after, means, settings, name)
            after = updates.run()
        finally:
            links.release()
        with undo_on_failure() as undo, job_label(sc, f"{name} history"):
            for levels in after.all_levels:
                undo.callback(levels.discard)
            history = extended_history(before.history, linked, after.ratings)
        after = replace(after, history=history)
    return after, replace(
        learned,
        new_users=updates.new[USERS],
        new_products=updates.new[PRODUCTS],
        rmse=(updates.squared_error / learned.ratings) ** 0.5 if before.ratings else None,
        exchange=updates.choice,
    )


class _HalfUpdates:
    """Half-updates of the two sides in turn, over the same links."""

    def __init__(
        self,
        links: LinkedRatings,
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
        self.choice = Choice(settings.exchange, "requested")
        if settings.exchange == "auto":
            self.choice = choose(*sizes_of_links(self.links, settings.rank + 1))
        self.runner = StepRunner(EXCHANGES[self.choice.exchange], self.links)
        self.new = [0, 0]
        self.squared_error = 0.0

    def run(self) -> StreamState:
        """Run all half-updates and return the state with both sides' new rows as levels."""
        first, second = ORDER[self.settings.update]
        iterations = self.settings.iterations
        try:
            lookup = partial(lookup_step, self.settings, second)
            reports = self._run(second, lookup, send=True)
            self.new[second] = sum(report.new_ids for report in reports)
            for iteration in range(1, iterations + 1):
                reports = self._update(first, iteration, first=True, send=True)
                self.new[first] += sum(report.new_ids for report in reports)
                self.squared_error += sum(report.squared_error for report in reports)
                self._update(second, iteration, first=False, send=iteration < iterations)
            return self._next_state()
        finally:
            self.runner.close()

    def _update(self, side: int, iteration: int, *, first: bool, send: bool) -> list[BatchReport]:
        """Update one side's rows from the other's."""
        step = partial(update_step, self.settings, side, iteration, first, self.means)
        return self._run(side, step, send=send)

    def _run(self, side: int, step: Any, *, send: bool) -> list[BatchReport]:
        updated = self.runner.factors[side]
        own = OwnRows(self.state.sides[side].rdds if updated is None else [updated])
        half_step = HalfStep(side, step, own, send=send, keep=True)
        result = self.runner.run(half_step, f"{self.name} {self.links[side].name}")
        return [report.step for report in result.reports]

    def _next_state(self) -> StreamState:
        """Return the state with the new rows as levels and the new id counts."""
        ids = tuple(count + new for count, new in zip(self.state.ids, self.new, strict=True))
        sides = list(self.state.sides)
        with undo_on_failure() as undo:
            for side, links in enumerate(self.links):
                rows = self.runner.take(side)
                written = sum(summary.ids for summary in links.summaries)
                with job_label(links.rdd.context, f"{self.name} levels"):
                    sides[side] = sides[side].with_level(rows, written, ids[side])
                undo.callback(sides[side].discard)
        return replace(self.state, sides=(sides[USERS], sides[PRODUCTS]), ids=(ids[0], ids[1]))


@spark_task
def _counted_batches(
    task_reports: TaskReports, skip: bool, partition: int, elements: Iterable[Any]
) -> Iterator[RatingBlock]:
    """Yield a partition's ratings, and report their number and sum as "tally"."""
    count, total = 0, Fraction(0)
    read = partial(usable_batches, task_reports) if skip else read_batches
    for batch in read(partition, elements):
        count += len(batch)
        total += exact_sum(batch.ratings)
        yield batch
    task_reports.add("tally", partition, (count, total))
