"""An alternation in one task: segments of iterations, a Spark job each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from math import ceil
from typing import Any

from pyspark import RDD

from rddals.blocks.factors import FactorBlock
from rddals.blocks.sides import PRODUCTS, SIDE_NAMES, USERS
from rddals.blocks.start import id_start, mllib_start
from rddals.errors import RddalsError
from rddals.rdds.context import job_label
from rddals.rdds.lifetimes import cut_lineage, discard, storage_level
from rddals.rdds.one_task import cores_of_a_task, in_one_task
from rddals.rdds.shuffles import Shuffle, with_shuffle_serializer
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task
from rddals.training.alternation import Alternation
from rddals.training.events import HalfStepDone
from rddals.training.segment import LinkJoiner, PlacedRows, Segment, SegmentReport
from rddals.training.start import RowFactory

__all__ = ["LocalAlternation", "segment_iterations"]

#: Seconds that a segment should take, and as few more as whole iterations take: listeners hear of
#: its half-steps when it is done, but each segment reads the links and the rows again.
SEGMENT_SECONDS = 1.0
#: Operations a second that a core reaches with any kernels, until a segment has been timed.
LEAST_RATE = 1e9


def segment_iterations(left: int, seconds: float) -> int:
    """How many of the iterations that are left a segment runs, if one takes so many seconds."""
    return min(left, ceil(SEGMENT_SECONDS / max(seconds, 1e-9)))


class LocalAlternation(Alternation):
    """Runs segments: iterations in one task, on all the cores that it can have.

    Between segments the rows are in a persisted RDD of one partition, without a lineage, so a
    lost executor costs one segment.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.sc = self.links[USERS].rdd.context
        self.cores = cores_of_a_task(self.sc)
        self.task_reports = TaskReports(self.sc)
        self._digests = (self.links[0].digests, self.links[1].digests)
        #: What a segment reads: both sides' links, joined to one piece if several segments do.
        self.blocks: list[RDD[Any]] = [links.rdd for links in self.links]
        #: The rows that the last segment left.
        self.rows: RDD[PlacedRows] | None = None
        #: The last rows, on their way to where they stay.
        self.last_rows: Shuffle | None = None

    def _alternate(self) -> None:
        total = self.settings.iterations
        work = sum(sizes.flops for sizes in self.built.sizes)
        seconds = work / (LEAST_RATE * self.cores.threads)
        if segment_iterations(total, seconds) < total:
            joined = in_one_task(self.blocks).mapPartitions(
                LinkJoiner(self._digests, self.task_reports)
            )
            self.blocks = [joined.persist(storage_level(self.sc))]
        done, converged = 0, False
        while done < total and not converged:
            count = segment_iterations(total - done, seconds)
            with job_label(self.sc, f"iterations {done + 1} to {done + count}"):
                # Where nothing can end it earlier, it is known to be the last.
                self._run(count, last=done + count == total and self.settings.tol == 0)
            reports = self._reports(done)
            converged = len(reports) < 2 * count
            seconds = 2 * sum(report.seconds for report in reports) / len(reports)
            done += len(reports) // 2
        if self.last_rows is None:
            assert self.rows is not None
            with job_label(self.sc, "factors"):
                self._place(self.rows)

    def _run(self, count: int, *, last: bool) -> None:
        """Run `count` iterations, from the rows that there are."""
        segment = Segment(
            objective=self.settings.objective,
            kernels=self.settings.kernels,
            threads=self.cores.threads,
            digests=self._digests,
            start=self._start(),
            iterations=count,
            tol=self.settings.tol,
            loss=self.history[-1].loss if self.history else None,
            task_reports=self.task_reports,
        )
        rows: list[RDD[Any]] = [] if self.rows is None else [self.rows]
        if self.rows is None and self.known is not None:
            rows = [self.known[USERS].blocks]
        made = self.cores.of(in_one_task([*self.blocks, *rows]).mapPartitions(segment))
        if last:
            self._place(made)
            return
        cut_lineage(made)
        outdated, self.rows = self.rows, made
        if outdated is not None:
            discard(outdated)

    def _start(self) -> RowFactory:
        settings, users = self.settings, self.links[USERS]
        rank, seed = settings.objective.rank, settings.seed
        if settings.init == "id" or self.known is not None:
            return partial(id_start, rank=rank, seed=seed, side=USERS)
        blocks = users.partitioner.num_blocks
        return partial(mllib_start, rank=rank, seed=seed, side=USERS, blocks=blocks)

    def _reports(self, done: int) -> list[SegmentReport]:
        """What the segment after the first `done` iterations reports; listeners are told."""
        for error in self.task_reports.take("links"):
            raise error
        (filed,) = self.task_reports.take("segment")
        if isinstance(filed, RddalsError):
            raise filed
        receive, reports = filed
        for number, report in enumerate(reports):
            before = 0.0 if number else receive
            parts = {"receive": before, **report.solution_seconds}
            parts["other"] = report.seconds - sum(report.solution_seconds.values())
            self._done(
                HalfStepDone(
                    iteration=done + 1 + number // 2,
                    side=SIDE_NAMES[report.side],
                    loss=report.loss,
                    seconds=before + report.seconds,
                    task_seconds=parts,
                    kernels=report.kernels,
                )
            )
        result: list[SegmentReport] = reports
        return result

    def _place(self, made: RDD[PlacedRows]) -> None:
        """Leave the rows, which may be still to be made, in the partitions of their blocks."""
        self.last_rows = Shuffle(made.mapPartitions(_by_block), self.links[USERS].partitions)
        rows = self.last_rows.rdd
        factors = [
            with_shuffle_serializer(
                rows.mapPartitions(partial(_of_side, side), preservesPartitioning=True)
            )
            for side in (USERS, PRODUCTS)
        ]
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
    return ((of_block.block, of_block) for of_block in rows)


@spark_task
def _of_side(side: int, rows: Iterable[tuple[int, PlacedRows]]) -> Iterator[FactorBlock]:
    return (of_block.rows for _, of_block in rows if of_block.side == side)
