"""The contract: an exchange delivers to each block the source rows it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import InBlock, LinkBlock
from rddals.errors import RddalsError, SingularSystemError
from rddals.rdds.links import Links, check_digest, one_per_block
from rddals.rdds.spark import ReportBook, Shuffle

__all__ = [
    "Advance",
    "BlockTask",
    "Brought",
    "Delivery",
    "Exchange",
    "Solved",
    "Step",
    "TaskReport",
]

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Solved:
    """What a step makes of one block: its new rows, and a report of its own for the driver."""

    rows: Rows
    report: Any


class Step(Protocol):
    """Makes the rows of one block; pure, and sent to the workers.

    It gets the source rows that the block needs. The first step of a training has none; it gets
    the rows of its own that were brought to the block to start from, or None.
    """

    def __call__(self, in_block: InBlock, received: Any) -> Solved: ...


class Delivery(ABC):
    """Rows that are on their way to the blocks of the other side.

    Attributes
    ----------
    broadcast_id : int or None
        Spark's number for the broadcast that carries them, if one does.
    """

    broadcast_id: int | None = None

    @abstractmethod
    def release(self) -> None:
        """Free what the delivery holds, once nothing will read it again."""

    def cut_lineage(self) -> None:  # noqa: B027 - most deliveries have none
        """Forget how the delivery came about."""


class Brought(Delivery):
    """Rows in the blocks of their own side, for a first step to start from.

    Parameters
    ----------
    rdd : RDD of (int, FactorBlock)
        Each pair in the partition of its block.
    shuffles : sequence of Shuffle
        What it is made from and is freed with it.
    """

    def __init__(self, rdd: RDD[tuple[int, FactorBlock]], shuffles: Sequence[Shuffle] = ()) -> None:
        self.rdd = rdd
        self._shuffles = shuffles

    def release(self) -> None:
        for shuffle in self._shuffles:
            shuffle.release()


@dataclass(frozen=True, slots=True)
class Advance:
    """The outcome of one step on one side.

    Attributes
    ----------
    delivery : Delivery or None
        The new rows on their way, if they were to be sent.
    factors : RDD of FactorBlock or None
        The new rows in place, if they were to be kept: partitioned by block and persisted.
    reports : tuple of TaskReport
        One per block, in order.
    """

    delivery: Delivery | None
    factors: RDD[FactorBlock] | None
    reports: tuple[TaskReport, ...]


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One block's report: the step's own, and where the task's seconds went."""

    block: int
    step: Any
    receive_seconds: float
    step_seconds: float
    error: RddalsError | None = None


class Exchange(ABC):
    """Moves factor rows between the sides.

    Every exchange gives each destination block the same array of source rows in the same
    canonical order, so that a model does not depend on the exchange it was trained with.
    """

    name: str

    @abstractmethod
    def advance(
        self,
        links: Links,
        other: Links,
        delivery: Delivery | None,
        step: Step,
        *,
        send: bool,
        keep: bool,
    ) -> Advance:
        """Run `step` on every block of one side, with what was delivered to it.

        Parameters
        ----------
        links : Links
            The side that the step works on.
        other : Links
            The other side, which the new rows are sent to.
        delivery : Delivery or None
            What the other side sent. For a first step, what was brought there to start from, or
            None. It is used up: the exchange frees it, at the latest when the delivery that
            follows from it is released.
        step : Step
        send, keep : bool
            Whether the new rows are delivered onwards, and whether they are kept in place.

        Raises
        ------
        RddalsError
            The first error that a step raised, whatever block it came from.
        """


class BlockTask:
    """What happens in the worker that holds one block; the part every exchange shares."""

    def __init__(self, links: Links, step: Step, book: ReportBook) -> None:
        self._digests = links.digests
        self._step = step
        self._book = book

    def receive(self, records: Iterable[Any]) -> tuple[LinkBlock | None, list[Any], float]:
        """The link block among a task's records, everything else, and the seconds it took."""
        start = perf_counter()
        link_block, others = None, []
        for record in records:
            if isinstance(record, LinkBlock):
                link_block = record
            else:
                others.append(record)
        return link_block, others, perf_counter() - start

    def solve(
        self, link_block: LinkBlock, deliver: Any, receive_seconds: float
    ) -> Iterator[FactorBlock]:
        """The block's new factors; none if the step failed, which the driver is told.

        `deliver` is called without arguments and gives the in-block to solve and its rows.
        """
        started = perf_counter()
        block = link_block.block
        try:
            check_digest(link_block, self._digests[block])
            in_block, rows = deliver()
            received = perf_counter()
            solved = self._step(in_block, rows)
        except RddalsError as error:
            # Raised here, Spark would try again and then bury it in a Java traceback.
            self._book.file("step", block, TaskReport(block, None, receive_seconds, 0.0, error))
            return
        self._book.file(
            "step",
            block,
            TaskReport(
                block,
                solved.report,
                receive_seconds + received - started,
                perf_counter() - received,
            ),
        )
        yield FactorBlock(in_block.ids, solved.rows)


def brought_rows(records: Iterable[tuple[int, FactorBlock]]) -> FactorBlock | None:
    """What `Brought` has for one block."""
    blocks = [block for _, block in records]
    return FactorBlock.merged(blocks, blocks[0].rows.shape[1]) if blocks else None


def collect_reports(book: ReportBook, links: Links) -> tuple[TaskReport, ...]:
    """The reports of a finished step; raises the errors among them, as one if they are alike."""
    reports: tuple[TaskReport, ...] = one_per_block(book.take("step"), links.partitioner)
    errors = [report.error for report in reports if report.error is not None]
    singular = [error for error in errors if isinstance(error, SingularSystemError)]
    if singular and len(singular) == len(errors):
        raise SingularSystemError.joined(singular)
    for error in errors:
        raise error
    return reports
