"""Summing up Spark's events by stage and by step."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rddals.errors import EventLogError
from rddals.measure.measures import Measured, StageMeasure, Traffic
from rddals.rdds.context import STEP

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


def summarise(lines: Iterable[str]) -> Measured:
    """Sum up the events of a log, one JSON event per line.

    The first line that is not an event raises `EventLogError`, which contains its number.
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
