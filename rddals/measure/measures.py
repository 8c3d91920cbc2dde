"""Measures of a Spark program: traffic of stages and of training steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from typing import Any


@dataclass(frozen=True, slots=True)
class Traffic:
    """Totals of a set of tasks.

    Attributes
    ----------
    tasks : int
        Number of tasks.
    read_local, read_remote : int
        Shuffle bytes read from the task's own executor, and over the network.
    read_records : int
        Shuffle records read.
    written, written_records : int
        Shuffle bytes and records written.
    spilled_memory, spilled_disk : int
        Bytes spilled, before and after serialisation.
    results : int
        Bytes sent to the driver.
    fetch_wait, write_seconds, seconds : float
        Seconds spent waiting for shuffle reads, writing shuffles, and in total.
    """

    tasks: int = 0
    read_local: int = 0
    read_remote: int = 0
    read_records: int = 0
    written: int = 0
    written_records: int = 0
    spilled_memory: int = 0
    spilled_disk: int = 0
    results: int = 0
    fetch_wait: float = 0.0
    write_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def read(self) -> int:
        """Shuffle bytes read, local and remote."""
        return self.read_local + self.read_remote

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            *(getattr(self, each.name) + getattr(other, each.name) for each in fields(Traffic))
        )

    @classmethod
    def total(cls, parts: Iterable[Traffic]) -> Traffic:
        """Add up `parts`."""
        return sum(parts, start=cls())


@dataclass(frozen=True, slots=True)
class StageMeasure:
    """One stage, over all its attempts.

    Attributes
    ----------
    stage : int
        Spark's stage id.
    name : str
        Spark's stage name: the operation and its line in the program.
    step : str or None
        Step of the rddals training that ran the stage, if any.
    done : Traffic
        First successful task of each partition.
    retried : Traffic
        Further successful tasks of a partition, from speculation or lost executors.
    failed : Traffic
        Tasks that failed or were killed.
    task_seconds : tuple of float
        Minimum, median and maximum duration of the tasks in `done`.
    peak_memory : int
        Peak execution memory of a task in bytes, for sorting and aggregation.
    began, ended : float
        Launch of the first task and end of the last, in seconds since the epoch.
    """

    stage: int
    name: str
    step: str | None
    done: Traffic
    retried: Traffic
    failed: Traffic
    task_seconds: tuple[float, float, float]
    peak_memory: int
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class StepMeasure:
    """Stages of one training step.

    Attributes
    ----------
    step : str
        "links", "start", or an iteration and its solved side: "3 products".
    done, retried, failed : Traffic
        Sums over the stages, as in `StageMeasure`.
    began, ended : float
        Start and end, as in `StageMeasure`.
    """

    step: str
    done: Traffic
    retried: Traffic
    failed: Traffic
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of a Spark program.

    Attributes
    ----------
    stages : tuple of StageMeasure
        Stages with at least one finished task, by start time.
    broadcasts : dict of int to int
        Bytes received by executors, by Spark's broadcast id. Includes the stage code that Spark
        broadcasts. Empty unless the log has block updates, which Spark omits by default.
    spark : str
        Spark version, or an empty string if the events lack it.
    finished : bool
        Whether the events include the end of the program. False while it runs, or if it was
        killed.
    """

    stages: tuple[StageMeasure, ...]
    broadcasts: dict[int, int]
    spark: str
    finished: bool

    @property
    def broadcast(self) -> int:
        """Bytes of all broadcasts."""
        return sum(self.broadcasts.values())

    @property
    def steps(self) -> tuple[StepMeasure, ...]:
        """Stages grouped by training step, in order."""
        named = [stage for stage in self.stages if stage.step is not None]
        return tuple(
            StepMeasure(str(step), *_combined(list(stages)))
            for step, stages in groupby(named, key=lambda stage: stage.step)
        )

    @property
    def total(self) -> Traffic:
        """First successful tasks of all stages."""
        return Traffic.total(stage.done for stage in self.stages)

    @property
    def retried(self) -> Traffic:
        """Further successful tasks of all stages."""
        return Traffic.total(stage.retried for stage in self.stages)

    @property
    def failed(self) -> Traffic:
        """Failed and killed tasks of all stages."""
        return Traffic.total(stage.failed for stage in self.stages)

    def document(self) -> dict[str, Any]:
        """Return the measurements as a JSON document."""
        document = asdict(self)
        del document["broadcasts"]
        return {
            **document,
            "broadcast": self.broadcast,
            "steps": [asdict(step) for step in self.steps],
            "total": asdict(self.total),
        }


def _combined(stages: list[StageMeasure]) -> tuple[Traffic, Traffic, Traffic, float, float]:
    return (
        Traffic.total(stage.done for stage in stages),
        Traffic.total(stage.retried for stage in stages),
        Traffic.total(stage.failed for stage in stages),
        min(stage.began for stage in stages),
        max(stage.ended for stage in stages),
    )
