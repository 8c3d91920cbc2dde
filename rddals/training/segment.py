"""A segment: iterations that run one after another in one task, from all blocks of both sides.

Nothing is exchanged but through the memory of the task. Its cores share the rows of each
half-step. What reaches the task is both sides' link blocks, and the users' rows: those of the
segment before, those of another model, or none, and then they start from the seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.factors import FactorBlock
from rddals.blocks.joined_links import JoinedLinks
from rddals.blocks.links import LinkBlock
from rddals.blocks.sides import PRODUCTS, USERS
from rddals.config import Kernels, Objective
from rddals.errors import RddalsError
from rddals.kernels.half_step import Solution, gram, half_step, penalty
from rddals.rdds.links import check_digest
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task
from rddals.training.start import RowFactory

__all__ = ["LinkJoiner", "PlacedRows", "Segment", "SegmentReport", "converged"]

Rows = NDArray[np.float32]


class PlacedRows(NamedTuple):
    """Rows of a block, as a segment gives them and the next one takes them."""

    side: int
    block: int
    rows: FactorBlock


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """What the driver learns of one half-step of a segment.

    Attributes
    ----------
    side : int
    loss : float
        The training objective, both sides' penalties included.
    seconds : float
    solution_seconds : dict of str to float
    kernels : str
    """

    side: int
    loss: float
    seconds: float
    solution_seconds: dict[str, float]
    kernels: str


@dataclass(frozen=True, slots=True)
class Segment:
    """What a task is to do; sent to the workers.

    Attributes
    ----------
    objective : Objective
    kernels : Kernels
    threads : int
    digests : pair of tuple of int
        What the ratings of every block of users, and of products, must add up to.
    start : callable
        Makes the first rows of those users that none are brought for.
    iterations : int
        At least one.
    tol, loss : float, float or None
        Stop once an iteration improves the loss by less than this fraction; and the loss so far.
    book : ReportBook
        Where the reports go, or the error that ends the segment.
    """

    objective: Objective
    kernels: Kernels
    threads: int
    digests: tuple[tuple[int, ...], tuple[int, ...]]
    start: RowFactory
    iterations: int
    tol: float
    loss: float | None
    task_reports: TaskReports

    @spark_task
    def __call__(self, records: Iterable[Any]) -> Iterator[PlacedRows]:
        """Both sides' rows after the last iteration."""
        started = perf_counter()
        blocks, known_rows = [], []
        links: JoinedLinks | None = None
        for record in records:
            if isinstance(record, LinkBlock):
                blocks.append(record)
            elif isinstance(record, JoinedLinks):
                links = record
            elif isinstance(record, FactorBlock):
                known_rows.append(record)
            elif record.side == USERS:
                known_rows.append(record.rows)
        if links is None and not blocks:  # they could not be joined, and the driver knows why
            return
        try:
            if links is None:
                links = join_links(blocks, self.digests)
            pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else nullcontext()
            with pool as threads:
                run = _Run(self, links, known_rows, threads)
                receive = perf_counter() - started
                run.alternate()
        except RddalsError as error:
            # Raised here, Spark would try again and then bury it in a Java traceback.
            self.task_reports.add("segment", 0, error)
            return
        self.task_reports.add("segment", 0, (receive, run.reports))
        for side in (USERS, PRODUCTS):
            for block, rows in enumerate(links.split_by_block(side, run.rows[side])):
                yield PlacedRows(side, block, rows)


class _Run:
    """The rows of both sides while a segment runs."""

    def __init__(
        self,
        segment: Segment,
        links: JoinedLinks,
        known_rows: list[FactorBlock],
        threads: Any,
    ) -> None:
        self.segment = segment
        self.threads = threads
        self.in_blocks = links.in_blocks
        self.reports: list[SegmentReport] = []
        #: Those of users, and of products; the latter are solved first.
        self.rows = [self._first_rows(known_rows), np.empty((0, 0), dtype=np.float32)]

    def _first_rows(self, known_rows: Sequence[FactorBlock]) -> Rows:
        ids = self.in_blocks[USERS].ids
        rank = self.segment.objective.rank
        rows, known = FactorBlock.latest([FactorBlock.merged(known_rows, rank)], ids, rank)
        if not known.all():
            unknown = ids[~known]
            ascending = np.argsort(unknown)
            made = np.empty((len(unknown), rank), dtype=np.float32)
            made[ascending] = self.segment.start(unknown[ascending])
            rows[~known] = made
        return rows

    def alternate(self) -> None:
        """Run the iterations, or fewer if they converge."""
        objective, loss = self.segment.objective, self.segment.loss
        other_penalty = penalty(self.in_blocks[USERS], self.rows[USERS], objective)
        for _ in range(self.segment.iterations):
            for side in (PRODUCTS, USERS):
                started = perf_counter()
                solution = self._solve(side)
                self.rows[side] = solution.rows
                self.reports.append(
                    SegmentReport(
                        side,
                        solution.loss + other_penalty,
                        perf_counter() - started,
                        solution.seconds,
                        solution.kernels,
                    )
                )
                other_penalty = solution.penalty
            before, loss = loss, self.reports[-1].loss
            if converged(before, loss, self.segment.tol):
                return

    def _solve(self, side: int) -> Solution:
        source_rows, objective = self.rows[1 - side], self.segment.objective
        return half_step(
            self.in_blocks[side],
            source_rows,
            objective,
            gram(source_rows) if objective.implicit else None,
            kernels=self.segment.kernels,
            threads=self.threads,
        )


def converged(before: float | None, after: float, tol: float) -> bool:
    """Whether an iteration improved the loss by less than the tolerance."""
    return tol > 0 and before is not None and before - after < tol * abs(before)


def join_links(
    blocks: Sequence[LinkBlock], digests: tuple[tuple[int, ...], tuple[int, ...]]
) -> JoinedLinks:
    """Both sides' links in one piece, checked against what they must add up to."""
    ordered = sorted(blocks, key=lambda block: block.block)
    for block in ordered:
        check_digest(block, digests[block.side][block.block])
    users, products = (
        [block.in_block for block in ordered if block.side == side] for side in (USERS, PRODUCTS)
    )
    return JoinedLinks.of(users, products)


@dataclass(frozen=True, slots=True)
class LinkJoiner:
    """What a task does to join the links that several segments read; sent to the workers.

    An error is filed, and the first segment gets no links.
    """

    digests: tuple[tuple[int, ...], tuple[int, ...]]
    task_reports: TaskReports

    @spark_task
    def __call__(self, blocks: Iterable[LinkBlock]) -> Iterator[JoinedLinks]:
        """One record."""
        try:
            yield join_links(list(blocks), self.digests)
        except RddalsError as error:
            self.task_reports.add("links", 0, error)
