"""Spark's events, summed up by stage and by step."""

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

__all__ = ["Measured", "StageMeasure", "StepMeasure", "Traffic", "measured"]

#: Of events of SQL, the one that names a DataFrame's operation is not looked at; these are.
EVENTS = frozenset(
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
    """What some tasks read, wrote and took.

    Attributes
    ----------
    tasks : int
    read_local, read_remote : int
        Bytes of shuffles read from the task's own executor, and over the network.
    read_records : int
    written, written_records : int
        Bytes and records of shuffles.
    spilled_memory, spilled_disk : int
        Bytes that did not fit in memory, before and after they were serialised.
    results : int
        Bytes sent to the driver.
    fetch_wait, write_seconds, seconds : float
        Seconds that tasks waited for what they read, spent on writing shuffles, and took in all.
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
        """Bytes of shuffles that were read, from near and far."""
        return self.read_local + self.read_remote

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            *(getattr(self, each.name) + getattr(other, each.name) for each in fields(Traffic))
        )

    @classmethod
    def total(cls, parts: Iterable[Traffic]) -> Traffic:
        """All of them together."""
        return sum(parts, start=cls())


@dataclass(frozen=True, slots=True)
class StageMeasure:
    """One stage, all its attempts together.

    Attributes
    ----------
    stage : int
    name : str
        As Spark calls it: an operation, and the line of the program it stands in.
    step : str or None
        What rddals ran it for, if rddals did.
    done : Traffic
        Tasks that succeeded, each partition's first.
    again : Traffic
        Tasks that succeeded for a partition that was done: speculation, or a lost executor.
    failed : Traffic
        Tasks that failed or were killed.
    task_seconds : tuple of float
        The least, the median and the greatest time of a task in `done`.
    peak_memory : int
        Most bytes that one task held for sorting and aggregating.
    began, ended : float
        Seconds since the epoch: the launch of the first task, and the end of the last.
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
    """The stages of one step of a training.

    Attributes
    ----------
    step : str
        "links", "start", or an iteration and the side that is solved: "3 products".
    done, again, failed : Traffic
        As in `StageMeasure`.
    began, ended : float
    """

    step: str
    done: Traffic
    retried: Traffic
    failed: Traffic
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What a program moved.

    Attributes
    ----------
    stages : tuple of StageMeasure
        Those of which a task has ended, in the order in which they began.
    broadcasts : dict of int to int
        Bytes of every broadcast that arrived at executors, by Spark's number for it: values that
        programs broadcast, and the code of stages, which Spark does. Empty if the events do not
        tell, as those of Spark's own event log mostly do not.
    spark : str
        The version of Spark, if the events tell.
    finished : bool
        Whether they tell of the program's end. One that runs still has told of a part, and so has
        one that was killed.
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
        """Stages that rddals ran for one step together, step by step."""
        named = [stage for stage in self.stages if stage.step is not None]
        return tuple(
            StepMeasure(str(step), *_together(list(stages)))
            for step, stages in groupby(named, key=lambda stage: stage.step)
        )

    @property
    def total(self) -> Traffic:
        """All that was done, once."""
        return Traffic.total(stage.done for stage in self.stages)

    @property
    def retried(self) -> Traffic:
        """What was done once more."""
        return Traffic.total(stage.retried for stage in self.stages)

    @property
    def failed(self) -> Traffic:
        """What was done in vain."""
        return Traffic.total(stage.failed for stage in self.stages)

    def document(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        document = asdict(self)
        del document["broadcasts"]
        return {
            **document,
            "broadcast": self.broadcast,
            "steps": [asdict(step) for step in self.steps],
            "total": asdict(self.total),
        }


def _together(stages: list[StageMeasure]) -> tuple[Traffic, Traffic, Traffic, float, float]:
    return (
        Traffic.total(stage.done for stage in stages),
        Traffic.total(stage.retried for stage in stages),
        Traffic.total(stage.failed for stage in stages),
        min(stage.began for stage in stages),
        max(stage.ended for stage in stages),
    )


def measured(lines: Iterable[str]) -> Measured:
    """Sum up events.

    Parameters
    ----------
    lines : iterable of str
        One event in JSON each, as Spark logs them.

    Raises
    ------
    EventLogError
        For the first line that is no event; it has its number.
    """
    events = _Events()
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            continue  # of a file that is being written, the last line may be a part of one
        named = EVENT.match(line)
        # Most of a log are other events, and longer ones: they need not be parsed.
        if named and named[1] not in EVENTS:
            continue
        try:
            if line.strip():
                events.add(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            what = f"no {named[1]} as Spark writes it" if named else "no event"
            raise EventLogError(f"line {number} is {what}") from None
    return events.summary()


class _Events:
    """Events, while they come in."""

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
            self.stages[info["Stage ID"]].tell(info, event.get("Properties"))
        elif kind == "BlockUpdated":
            info = event["Block Updated Info"]
            piece = BROADCAST_PIECE.match(info["Block ID"])
            if piece:  # of a broadcast, that an executor has now
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
    """Bytes of every broadcast at executors: the driver is none, unless there is no other."""
    return {
        number: sum(
            count for executor, count in at.items() if executor != DRIVER or set(at) == {DRIVER}
        )
        for number, at in arrived.items()
    }


@dataclass
class _Stage:
    """A stage, while its events come in."""

    name: str = ""
    step: str | None = None
    done: list[Traffic] = field(default_factory=list)
    retried: list[Traffic] = field(default_factory=list)
    failed: list[Traffic] = field(default_factory=list)
    partitions: set[int] = field(default_factory=set)
    peak_memory: int = 0
    began: float = float("inf")
    ended: float = 0.0

    def tell(self, info: Mapping[str, Any], properties: Mapping[str, str] | None) -> None:
        self.name = info["Stage Name"]
        if properties is not None:
            self.step = properties.get(STEP, self.step)

    def add(self, event: Mapping[str, Any]) -> None:
        task, metrics = event["Task Info"], event.get("Task Metrics")
        self.began = min(self.began, task["Launch Time"] * MILLISECOND)
        self.ended = max(self.ended, task["Finish Time"] * MILLISECOND)
        # What is no number fails to add up here, where its line is known.
        traffic = Traffic() + _traffic(task, metrics or {})
        if event["Task End Reason"]["Reason"] != "Success":
            self.failed.append(traffic)
            return
        # Spark before 3.3 does not tell the partition, which is the index then.
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
    """One task's; a task that was lost with its executor has no metrics."""
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
