"""Summing up Spark's events by stage and by step."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby
from statistics import median
from typing import Any

from rddals.errors import EventLogError
from rddals.rdds.context import STEP

__all__ = ["Measured", "StageMeasure", "StepMeasure", "Traffic", "summarise"]

#: Events that are parsed. All others are skipped.
PARSED_EVENTS = frozenset(
    "SparkListener" + name
    for name in (
        *("StageSubmitted", "StageCompleted", "TaskEnd", "BlockUpdated"),
        *("LogStart", "ApplicationEnd"),
    )
)
EVENT = re.compile(r'\s*{\s*"Event"\s*:\s*"([^"]*)')
DRIVER = "driver"
BROADCAST_PIECE = re.compile(r"broadcast_(\d+)_piece")
MILLISECOND, NANOSECOND = 1e-3, 1e-9


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


def summarise(lines: Iterable[str]) -> Measured:
    """Sum up the events of a log.

    Parameters
    ----------
    lines : iterable of str
        Lines of an event log, one JSON event each.

    Raises
    ------
    EventLogError
        At the first line that is not an event. The message contains the line number.
    """
    events = _Events()
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            continue  # the last line of a log that is being written may be incomplete
        named = EVENT.match(line)
        # Most events are of other kinds and long: skip them before parsing.
        if named and named[1] not in PARSED_EVENTS:
            continue
        try:
            if line.strip():
                events.add(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            expected = f"a valid {named[1]}" if named else "an event"
            raise EventLogError(f"line {number} is not {expected}") from None
    return events.summary()


class _Events:
    """Accumulator of events."""

    def __init__(self) -> None:
        self.stages: dict[int, _Stage] = defaultdict(_Stage)
        self.arrived: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.spark = ""
        self.finished = False

    def add(self, event: Mapping[str, Any]) -> None:
        kind = event["Event"].removeprefix("SparkListener")
        if kind == "TaskEnd":
            self.stages[event["Stage ID"]].add(event)
        elif kind in ("StageSubmitted", "StageCompleted"):
            info = event["Stage Info"]
            self.stages[info["Stage ID"]].describe(info, event.get("Properties"))
        elif kind == "BlockUpdated":
            info = event["Block Updated Info"]
            piece = BROADCAST_PIECE.match(info["Block ID"])
            if piece:  # an executor has stored a piece of a broadcast
                executor = info["Block Manager ID"]["Executor ID"]
                self.arrived[int(piece[1])][executor] += info["Memory Size"] + info["Disk Size"]
        elif kind == "LogStart":
            self.spark = event.get("Spark Version", "")
        elif kind == "ApplicationEnd":
            self.finished = True

    def summary(self) -> Measured:
        ran = [stage.summary(number) for number, stage in self.stages.items() if stage.ended]
        return Measured(
            tuple(sorted(ran, key=lambda s: (s.began, s.stage))),
            _broadcasts(self.arrived),
            self.spark,
            self.finished,
        )


def _broadcasts(arrived: Mapping[int, Mapping[str, int]]) -> dict[int, int]:
    """Return bytes by broadcast id. The driver counts only if there is no executor."""
    return {
        number: sum(
            count
            for executor, count in counts.items()
            if executor != DRIVER or set(counts) == {DRIVER}
        )
        for number, counts in arrived.items()
    }


@dataclass
class _Stage:
    """Accumulator of the events of one stage."""

    name: str = ""
    step: str | None = None
    done: list[Traffic] = field(default_factory=list)
    retried: list[Traffic] = field(default_factory=list)
    failed: list[Traffic] = field(default_factory=list)
    partitions: set[int] = field(default_factory=set)
    peak_memory: int = 0
    began: float = float("inf")
    ended: float = 0.0

    def describe(self, info: Mapping[str, Any], properties: Mapping[str, str] | None) -> None:
        self.name = info["Stage Name"]
        if properties is not None:
            self.step = properties.get(STEP, self.step)

    def add(self, event: Mapping[str, Any]) -> None:
        task, metrics = event["Task Info"], event.get("Task Metrics")
        self.began = min(self.began, task["Launch Time"] * MILLISECOND)
        self.ended = max(self.ended, task["Finish Time"] * MILLISECOND)
        # Adding raises TypeError here for metrics that are not numbers, while the line is known.
        traffic = Traffic() + _traffic(task, metrics or {})
        if event["Task End Reason"]["Reason"] != "Success":
            self.failed.append(traffic)
            return
        # Spark before 3.3 does not log the partition id; the index equals it there.
        partition = task.get("Partition ID", task["Index"])
        (self.retried if partition in self.partitions else self.done).append(traffic)
        self.partitions.add(partition)
        if metrics:
            self.peak_memory = max(self.peak_memory, metrics.get("Peak Execution Memory", 0))

    def summary(self, number: int) -> StageMeasure:
        seconds = [task.seconds for task in self.done] or [0.0]
        return StageMeasure(
            stage=number,
            name=self.name,
            step=self.step,
            done=Traffic.total(self.done),
            retried=Traffic.total(self.retried),
            failed=Traffic.total(self.failed),
            task_seconds=(min(seconds), median(seconds), max(seconds)),
            peak_memory=self.peak_memory,
            began=self.began,
            ended=self.ended,
        )


def _traffic(task: Mapping[str, Any], metrics: Mapping[str, Any]) -> Traffic:
    """Return the traffic of one task. Tasks lost with their executor have no metrics."""
    read = metrics.get("Shuffle Read Metrics", {})
    write = metrics.get("Shuffle Write Metrics", {})
    return Traffic(
        tasks=1,
        read_local=read.get("Local Bytes Read", 0),
        read_remote=read.get("Remote Bytes Read", 0),
        read_records=read.get("Total Records Read", 0),
        written=write.get("Shuffle Bytes Written", 0),
        written_records=write.get("Shuffle Records Written", 0),
        spilled_memory=metrics.get("Memory Bytes Spilled", 0),
        spilled_disk=metrics.get("Disk Bytes Spilled", 0),
        results=metrics.get("Result Size", 0),
        fetch_wait=read.get("Fetch Wait Time", 0) * MILLISECOND,
        write_seconds=write.get("Shuffle Write Time", 0) * NANOSECOND,
        seconds=(task["Finish Time"] - task["Launch Time"]) * MILLISECOND,
    )
