"""Exchange interface: deliver to each block the source rows it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import LinkBlock
from rddals.errors import RddalsError, SingularSystemError
from rddals.rdds.links import Links, check_digest, one_per_block
from rddals.rdds.shuffles import Shuffle
from rddals.rdds.task_reports import TaskReports

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BlockResult:
    """Result of a step on one block.

    Attributes
    ----------
    kept : FactorBlock
        New rows of the block.
    report : object
        Report for the driver.
    sent : FactorBlock, optional
        Rows to send to the other side, for the block's `LinkBlock.ids`; `kept` by default.
    """

    kept: FactorBlock
    report: Any
    sent: FactorBlock | None = None


class Step(Protocol):
    """Pure function that computes the rows of one block, run on the workers.

    It receives the links, the block's own rows, oldest first, and the source rows that the block
    needs, or None if there is no delivery.
    """

    def __call__(
        self, block: LinkBlock, own: Sequence[FactorBlock], received: Rows | None
    ) -> BlockResult: ...


class Delivery(ABC):
    """Rows in transit to the blocks of the other side.

    Attributes
    ----------
    broadcast_id : int or None
        Spark's id of the broadcast that carries the rows, if any.
    """

    broadcast_id: int | None = None

    @abstractmethod
    def release(self) -> None:
        """Free the data of the delivery. It cannot be read afterwards."""

    def cut_lineage(self) -> None:  # noqa: B027 - optional to override
        """Store the data and drop its lineage. The default does nothing."""


@dataclass(frozen=True, slots=True)
class OwnRows:
    """Rows of a side, in the partitions of their blocks.

    Attributes
    ----------
    rdds : sequence of RDD of FactorBlock
        RDDs with each block in the partition of its number. For an id in several of them, the
        last one is current.
    shuffles : sequence of Shuffle
        Shuffles that the RDDs read, released with them.
    """

    rdds: Sequence[RDD[FactorBlock]] = ()
    shuffles: Sequence[Shuffle] = ()

    def release(self) -> None:
        """Free the shuffles."""
        for shuffle in self.shuffles:
            shuffle.release()


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of a step on one side.

    Attributes
    ----------
    delivery : Delivery or None
        New rows in transit, if `send` was true.
    factors : RDD of FactorBlock or None
        New rows partitioned by block and persisted, if `keep` was true.
    reports : tuple of StepReport
        Reports of the blocks, in order.
    """

    delivery: Delivery | None
    factors: RDD[FactorBlock] | None
    reports: tuple[StepReport, ...]


@dataclass(frozen=True, slots=True)
class StepReport:
    """Report of one block: the step's own report, and the seconds of the task by part."""

    block: int
    step: Any
    receive_seconds: float
    step_seconds: float
    error: RddalsError | None = None


#: No rows of the side's own.
NO_ROWS = OwnRows()


@dataclass(frozen=True, slots=True)
class HalfStep:
    """A step to run on one side.

    Attributes
    ----------
    side : int
        `USERS` or `PRODUCTS`.
    step : Step
        Function that computes the rows of one block.
    own_rows : OwnRows
        Rows that the side has already.
    send, keep : bool
        Whether to send the new rows to the other side, and whether to keep them in an RDD.
    """

    side: int
    step: Step
    own_rows: OwnRows = NO_ROWS
    send: bool = False
    keep: bool = False


class Exchange(ABC):
    """Method of moving factor rows between the sides.

    Every exchange gives each destination block the same array of source rows in the same
    canonical order, so the model does not depend on the exchange.
    """

    name: str

    @abstractmethod
    def run_step(
        self, sides: tuple[Links, Links], delivery: Delivery | None, half_step: HalfStep
    ) -> StepResult:
        """Run a step on every block of one side, with the delivered rows; None for a first step.

        The exchange releases the delivery and the side's own rows, at the latest when the resulting
        delivery is released; on failure it releases the own rows only. It raises the first error of
        a step on any block.
        """


@dataclass(frozen=True, slots=True)
class Received:
    """Input of one block's task: links, own rows and messages, and the seconds to read them."""

    link_block: LinkBlock
    own: Sequence[FactorBlock]
    messages: Sequence[Any]
    seconds: float


class BlockTask:
    """Task of one block in a worker; the part shared by all exchanges."""

    def __init__(self, links: Links, step: Step, task_reports: TaskReports) -> None:
        self._digests = links.digests
        self._step = step
        self._task_reports = task_reports

    def receive(self, records: Iterable[Any]) -> Received | None:
        """Sort a task's records by kind; return None for a partition without a block."""
        start = perf_counter()
        link_block, own, messages = None, [], []
        for record in records:
            if isinstance(record, LinkBlock):
                link_block = record
            elif isinstance(record, FactorBlock):
                own.append(record)
            else:
                messages.append(record)
        if link_block is None:
            return None
        return Received(link_block, own, messages, perf_counter() - start)

    def solve(
        self, received: Received, deliver: Callable[[], tuple[LinkBlock, Rows | None]]
    ) -> Iterator[tuple[FactorBlock, FactorBlock]]:
        """Yield the block's new rows to keep and to send; nothing if the step fails.

        Errors are reported to the driver. `deliver` returns the links to solve and their source
        rows.
        """
        started = perf_counter()
        block = received.link_block.block
        try:
            check_digest(received.link_block, self._digests[block])
            link_block, rows = deliver()
            delivered = perf_counter()
            solved = self._step(link_block, received.own, rows)
        except RddalsError as error:
            # If raised here, Spark would retry the task and wrap the error in a Java traceback.
            self._task_reports.add(
                "step", block, StepReport(block, None, received.seconds, 0.0, error)
            )
            return
        self._task_reports.add(
            "step",
            block,
            StepReport(
                block,
                solved.report,
                received.seconds + delivered - started,
                perf_counter() - delivered,
            ),
        )
        yield solved.kept, solved.kept if solved.sent is None else solved.sent


def collect_reports(task_reports: TaskReports, links: Links) -> tuple[StepReport, ...]:
    """Return the reports of a finished step, or raise its errors; singular systems as one error."""
    reports: tuple[StepReport, ...] = one_per_block(task_reports.take("step"), links.partitioner)
    errors = [report.error for report in reports if report.error is not None]
    singular = [error for error in errors if isinstance(error, SingularSystemError)]
    if singular and len(singular) == len(errors):
        raise SingularSystemError.joined(singular)
    for error in errors:
        raise error
    return reports
