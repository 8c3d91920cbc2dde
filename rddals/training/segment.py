"""A segment: successive iterations in one task, over all blocks of both sides.

The sides exchange rows through the task's memory, and its cores share the rows of each half-step.
The task reads both sides' link blocks and the users' rows, which come from the previous segment,
from another model, or else from the seed.
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
from rddals.blocks.sides import PRODUCTS, SIDE_NAMES, USERS
from rddals.config import Kernels, Objective
from rddals.errors import RddalsError
from rddals.kernels.half_step import Solution, gram, half_step, penalty
from rddals.rdds.links import check_digest
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task
from rddals.training.events import HalfStepDone
from rddals.training.start import RowFactory

Rows = NDArray[np.float32]


class PlacedRows(NamedTuple):
    """Rows of one block, as output by a segment and read by the next one."""

    side: int
    block: int
    rows: FactorBlock


@dataclass(frozen=True, slots=True)
class Segment:
    """Function that runs a segment in a task.

    Attributes
    ----------
    objective : Objective
    kernels : Kernels
    threads : int
    digests : pair of tuple of int
        Expected digest of every block of users, and of products.
    start : callable
        Function from ids to their first rows, for users without a row.
    first, iterations : int
        Number of the first iteration, and how many there are, at least one.
    tol, loss : float, float or None
        Tolerance: stop when an iteration improves the loss by less than this fraction. Loss of the
        previous iteration, if there is one.
    task_reports : TaskReports
        Receives the half-steps' events, or the error that ends the segment.
    """

    objective: Objective
    kernels: Kernels
    threads: int
    digests: tuple[tuple[int, ...], tuple[int, ...]]
    start: RowFactory
    first: int
    iterations: int
    tol: float
    loss: float | None
    task_reports: TaskReports

    @spark_task
    def __call__(self, records: Iterable[Any]) -> Iterator[PlacedRows]:
        """Yield the rows of both sides after the last iteration."""
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
        if links is None and not blocks:  # `joined_in_task` has reported an error
            return
        try:
            if links is None:
                links = join_links(blocks, self.digests)
            pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else nullcontext()
            with pool as threads:
                run = _Run(self, links, known_rows, threads)
                run.alternate(perf_counter() - started)
        except RddalsError as error:
            # If the task raised it, Spark would retry and then bury it in a Java traceback.
            self.task_reports.add("segment", 0, error)
            return
        self.task_reports.add("segment", 0, run.half_steps)
        for side in (USERS, PRODUCTS):
            for block, rows in enumerate(links.split_by_block(side, run.rows[side])):
                yield PlacedRows(side, block, rows)


class _Run:
    """Rows of both sides during a segment."""

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
        self.half_steps: list[HalfStepDone] = []
        #: Rows of users and of products; the products are solved first.
        self.rows = [self._first_rows(known_rows), np.empty((0, 0), dtype=np.float32)]

    def _first_rows(self, known_rows: Sequence[FactorBlock]) -> Rows:
        ids = self.in_blocks[USERS].ids
        rank = self.segment.objective.rank
        rows, known = FactorBlock.latest([FactorBlock.merged(known_rows, rank)], ids, rank)
        if not known.all():
            unknown = ids[~known]
            ascending = np.argsort(unknown)
            new_rows = np.empty((len(unknown), rank), dtype=np.float32)
            new_rows[ascending] = self.segment.start(unknown[ascending])
            rows[~known] = new_rows
        return rows

    def alternate(self, receive: float) -> None:
        """Run the iterations; stop early on convergence.

        The first half-step counts the seconds to `receive` the task's records.
        """
        objective, loss = self.segment.objective, self.segment.loss
        other_penalty = penalty(self.in_blocks[USERS], self.rows[USERS], objective)
        first = self.segment.first
        for iteration in range(first, first + self.segment.iterations):
            for side in (PRODUCTS, USERS):
                started = perf_counter()
                solution = self._solve(side)
                self.rows[side] = solution.rows
                seconds = perf_counter() - started
                parts = {"receive": receive, **solution.seconds}
                parts["other"] = seconds - sum(solution.seconds.values())
                self.half_steps.append(
                    HalfStepDone(
                        iteration=iteration,
                        side=SIDE_NAMES[side],
                        loss=solution.loss + other_penalty,
                        seconds=receive + seconds,
                        task_seconds=parts,
                        kernels=solution.kernels,
                    )
                )
                receive, other_penalty = 0.0, solution.penalty
            previous, loss = loss, self.half_steps[-1].loss
            if converged(previous, loss, self.segment.tol):
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
    """Return whether an iteration improved the loss by less than the tolerance."""
    return tol > 0 and before is not None and before - after < tol * abs(before)


def join_links(
    blocks: Sequence[LinkBlock], digests: tuple[tuple[int, ...], tuple[int, ...]]
) -> JoinedLinks:
    """Join both sides' link blocks into one record, after checking their digests."""
    ordered = sorted(blocks, key=lambda block: block.block)
    for block in ordered:
        check_digest(block, digests[block.side][block.block])
    users, products = (
        [block.in_block for block in ordered if block.side == side] for side in (USERS, PRODUCTS)
    )
    return JoinedLinks.of(users, products)


@spark_task
def joined_in_task(
    digests: tuple[tuple[int, ...], tuple[int, ...]],
    task_reports: TaskReports,
    blocks: Iterable[LinkBlock],
) -> Iterator[JoinedLinks]:
    """Join the links in a task, if several segments read them; yield one record.

    An error is reported to the driver, and the task yields no links.
    """
    try:
        yield join_links(list(blocks), digests)
    except RddalsError as error:
        task_reports.add("links", 0, error)
