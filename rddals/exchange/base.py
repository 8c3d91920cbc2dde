"""The contract: an exchange delivers to each block the source rows it needs."""

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

__all__ = [
    "BlockResult",
    "BlockTask",
    "Delivery",
    "Exchange",
    "OwnRows",
    "Step",
    "StepReport",
    "StepResult",
]

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BlockResult:
    """What a step makes of one block.

    Attributes
    ----------
    kept : FactorBlock
        The block's new rows.
    report : object
        For the driver.
    sent : FactorBlock, optional
        The rows that the other side chooses from, for the block's `LinkBlock.ids`; those that are
        kept if left out.
    """

    kept: FactorBlock
    report: Any
    sent: FactorBlock | None = None


class Step(Protocol):
    """Makes the rows of one block; pure, and sent to the workers.

    It gets the links, the rows of its own that were brought to the block, oldest first, and the
    source rows that the block needs; None if nothing was sent yet.
    """

    def __call__(
        self, block: LinkBlock, own: Sequence[FactorBlock], received: Rows | None
    ) -> BlockResult: ...


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


@dataclass(frozen=True, slots=True)
class OwnRows:
    """Rows of a side that are brought to the blocks they belong to.

    Attributes
    ----------
    rdds : sequence of RDD of FactorBlock
        Each block in the partition of its number. Where several know an id, the last one is
        right.
    shuffles : sequence of Shuffle
        What they are made from and are freed with.
    """

    rdds: Sequence[RDD[FactorBlock]] = ()
    shuffles: Sequence[Shuffle] = ()

    def release(self) -> None:
        """Free the shuffles."""
        for shuffle in self.shuffles:
            shuffle.release()


@dataclass(frozen=True, slots=True)
class StepResult:
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
    reports: tuple[StepReport, ...]


@dataclass(frozen=True, slots=True)
class StepReport:
    """One block's report: the step's own, and where the task's seconds went."""

    block: int
    step: Any
    receive_seconds: float
    step_seconds: float
    error: RddalsError | None = None


#: Nothing is brought.
NO_ROWS = OwnRows()


class Exchange(ABC):
    """Moves factor rows between the sides.

    Every exchange gives each destination block the same array of source rows in the same
    canonical order, so that a model does not depend on the exchange it was trained with.
    """

    name: str

    @abstractmethod
    def run_step(
        self,
        links: Links,
        other: Links,
        delivery: Delivery | None,
        step: Step,
        *,
        own_rows: OwnRows = NO_ROWS,
        send: bool,
        keep: bool,
    ) -> StepResult:
        """Run `step` on every block of one side, with what was delivered to it.

        Parameters
        ----------
        links : Links
            The side that the step works on.
        other : Links
            The other side, which the new rows are sent to.
        delivery : Delivery or None
            What the other side sent; None for a first step.
        step : Step
        brought : Brought
            Rows of this side's own. Like the delivery they are used up: the exchange frees both,
            at the latest when the delivery that follows from them is released. If it fails, it
            frees what was brought, and leaves the delivery to the caller.
        send, keep : bool
            Whether the new rows are delivered onwards, and whether they are kept in place.

        Raises
        ------
        RddalsError
            The first error that a step raised, whatever block it came from.
        """


@dataclass(frozen=True, slots=True)
class Received:
    """What reaches the task of one block: its links, rows of its own, messages; in how long."""

    link_block: LinkBlock
    own: Sequence[FactorBlock]
    messages: Sequence[Any]
    seconds: float


class BlockTask:
    """What happens in the worker that holds one block; the part every exchange shares."""

    def __init__(self, links: Links, step: Step, task_reports: TaskReports) -> None:
        self._digests = links.digests
        self._step = step
        self._task_reports = task_reports

    def receive(self, records: Iterable[Any]) -> Received | None:
        """A task's records, told apart; None past the last block of this side."""
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
        """The block's new rows to keep and to send; none if the step failed.

        The driver is told why. `deliver` gives the links to solve and their source rows.
        """
        started = perf_counter()
        block = received.link_block.block
        try:
            check_digest(received.link_block, self._digests[block])
            link_block, rows = deliver()
            delivered = perf_counter()
            solved = self._step(link_block, received.own, rows)
        except RddalsError as error:
            # Raised here, Spark would try again and then bury it in a Java traceback.
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
    """The reports of a finished step; raises the errors among them, as one if they are alike."""
    reports: tuple[StepReport, ...] = one_per_block(task_reports.take("step"), links.partitioner)
    errors = [report.error for report in reports if report.error is not None]
    singular = [error for error in errors if isinstance(error, SingularSystemError)]
    if singular and len(singular) == len(errors):
        raise SingularSystemError.joined(singular)
    for error in errors:
        raise error
    return reports
