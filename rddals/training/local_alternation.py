"""The alternation of the local exchange: iterations in one task, split into segments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from math import ceil
from typing import Any

from pyspark import RDD

from rddals.blocks.factors import FactorBlock
from rddals.blocks.sides import PRODUCTS, USERS
from rddals.blocks.start import id_start, mllib_start
from rddals.errors import RddalsError
from rddals.rdds.context import job_label
from rddals.rdds.lifetimes import cut_lineage, discard, storage_level
from rddals.rdds.one_task import cores_of_a_task, in_one_task
from rddals.rdds.shuffles import Shuffle, map_blocks
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task
from rddals.training.alternation import Alternation
from rddals.training.events import HalfStepDone
from rddals.training.segment import PlacedRows, Segment, joined_in_task
from rddals.training.start import RowFactory

#: Target seconds of a segment, rounded up to whole iterations. A short segment sends its events to
#: listeners soon; but each segment reads the links and the rows again.
SEGMENT_SECONDS = 1.0
#: Operations per second and core that all kernels reach; used until a segment has been timed.
LEAST_RATE = 1e9


def segment_iterations(remaining: int, seconds: float) -> int:
    """Return the iterations of the next segment, if one iteration takes `seconds`."""
    return min(remaining, ceil(SEGMENT_SECONDS / max(seconds, 1e-9)))


class LocalAlternation(Alternation):
    """Segments of iterations, each a Spark job of one task on all cores that it can have.

    Between segments the rows are in a persisted RDD of one partition without a lineage, so a lost
    executor costs one segment.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.sc = self.links[USERS].rdd.context
        self.cores = cores_of_a_task(self.sc)
        self.task_reports = TaskReports(self.sc)
        self._digests = (self.links[0].digests, self.links[1].digests)
        #: Links of both sides, for a segment to read; joined into one record if there are several.
        self.blocks: list[RDD[Any]] = [links.rdd for links in self.links]
        #: Rows from the previous segment.
        self.rows: RDD[PlacedRows] | None = None
        #: Shuffle of the last segment's rows to the partitions of their blocks.
        self.last_rows: Shuffle | None = None

    def _alternate(self) -> None:
        total = self.settings.iterations
        work = sum(sizes.flops for sizes in self.built.sizes)
        seconds = work / (LEAST_RATE * self.cores.threads)
        if segment_iterations(total, seconds) < total:
            join = partial(joined_in_task, self._digests, self.task_reports)
            joined = in_one_task(self.blocks).mapPartitions(join)
            self.blocks = [joined.persist(storage_level(self.sc))]
        done, converged = 0, False
        while done < total and not converged:
            count = segment_iterations(total - done, seconds)
            with job_label(self.sc, f"iterations {done + 1} to {done + count}"):
                # With a tolerance, only the segment's reports show whether it is the last.
                self._run(count, last=done + count == total and self.settings.tol == 0)
            half_steps = self._half_steps()
            converged = len(half_steps) < 2 * count
            solving = sum(step.seconds - step.task_seconds["receive"] for step in half_steps)
            seconds = 2 * solving / len(half_steps)
            done += len(half_steps) // 2
        if self.last_rows is None:
            assert self.rows is not None
            with job_label(self.sc, "factors"):
                self._place(self.rows)

    def _run(self, count: int, *, last: bool) -> None:
        """Run a segment of `count` iterations, from the current rows."""
        segment = Segment(
            objective=self.settings.objective,
            kernels=self.settings.kernels,
            threads=self.cores.threads,
            digests=self._digests,
            start=self._start(),
            first=len(self.history) // 2 + 1,
            iterations=count,
            tol=self.settings.tol,
            loss=self.history[-1].loss if self.history else None,
            task_reports=self.task_reports,
        )
        rows: list[RDD[Any]] = [] if self.rows is None else [self.rows]
        if self.rows is None and self.known is not None:
            rows = [self.known[USERS].blocks]
        result = self.cores.of(in_one_task([*self.blocks, *rows]).mapPartitions(segment))
        if last:
            self._place(result)
            return
        cut_lineage(result)
        previous, self.rows = self.rows, result
        if previous is not None:
            discard(previous)

    def _start(self) -> RowFactory:
        settings, users = self.settings, self.links[USERS]
        rank, seed = settings.objective.rank, settings.seed
        if settings.init == "id" or self.known is not None:
            return partial(id_start, rank=rank, seed=seed, side=USERS)
        blocks = users.partitioner.num_blocks
        return partial(mllib_start, rank=rank, seed=seed, side=USERS, blocks=blocks)

    def _half_steps(self) -> list[HalfStepDone]:
        """Return the segment's half-steps, and send them to the listeners."""
        for error in self.task_reports.take("links"):
            raise error
        (outcome,) = self.task_reports.take("segment")
        if isinstance(outcome, RddalsError):
            raise outcome
        for half_step in outcome:
            self._record(half_step)
        return outcome

    def _place(self, segment_rows: RDD[PlacedRows]) -> None:
        """Compute a segment's rows, and move them to the partitions of their blocks."""
        self.last_rows = Shuffle(
            segment_rows.mapPartitions(_by_block), self.links[USERS].partitions
        )
        rows = self.last_rows.rdd
        factors = [map_blocks(rows, partial(_side_rows, side)) for side in (USERS, PRODUCTS)]
        cut_lineage(*factors)
        self.factors[:] = factors

    def _release(self) -> None:
        if self.last_rows is not None:
            self.last_rows.release()
        if self.rows is not None:
            discard(self.rows)
        if len(self.blocks) == 1:
            self.blocks[0].unpersist()
        self.task_reports.close()


@spark_task
def _by_block(rows: Iterable[PlacedRows]) -> Iterator[tuple[int, PlacedRows]]:
    return ((placed.block, placed) for placed in rows)


@spark_task
def _side_rows(side: int, rows: Iterable[tuple[int, PlacedRows]]) -> Iterator[FactorBlock]:
    return (placed.rows for _, placed in rows if placed.side == side)
