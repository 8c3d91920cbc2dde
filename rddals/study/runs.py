"""Running a study: plans, rddals trainings and MLlib trainings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from statistics import median
from time import perf_counter
from typing import Any

from pyspark import RDD
from pyspark.sql import DataFrame

from rddals import ALS, HalfStepDone, TrainingDone
from rddals.blocks.sides import SIDE_NAMES
from rddals.measure import Measured, ShuffleMeter, StageMeasure, Traffic
from rddals.planning.forecast import PlannedPlacement
from rddals.planning.planner import plan
from rddals.study.grid import MLLIB, Combination
from rddals.study.record import PARTS, Record

#: Name prefix of the stages of MLlib's half-steps.
MLLIB_HALF_STEP = "flatMap at ALS.scala"
#: Most blocks for which the rows between each pair of blocks are recorded.
MAX_DETAILED_BLOCKS = 128


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings that all trainings of a study share."""

    iterations: int
    lambda_: float
    seed: int
    precision: str

    def document(self) -> dict[str, Any]:
        """Return the settings as a field of ``study.json``."""
        return {
            "iterations": self.iterations,
            "lambda": self.lambda_,
            "seed": self.seed,
            "precision": self.precision,
        }


@dataclass(frozen=True, slots=True)
class Study:
    """Cached ratings of a study as a frame and from `rating_source`, and its settings."""

    frame: DataFrame
    source: RDD[Any]
    settings: Settings

    def warm_up(self, combinations: Sequence[Combination]) -> None:
        """Train once unmeasured, since the first training also starts Spark's Python workers."""
        ALS.train(self.source, combinations[0].rank, 1, self.settings.lambda_, seed=0).unpersist()
        if any(each.exchange == MLLIB for each in combinations):
            self._fit_mllib(combinations[0].rank, 1, 2)

    def run(
        self,
        combinations: Sequence[Combination],
        record: Record,
        on_run: Callable[[Combination, dict[str, Any]], None],
    ) -> None:
        """Plan and run combinations in turn, and record each when it finishes."""
        for rank, same_rank in groupby(combinations, key=lambda each: each.rank):
            group = list(same_rank)
            plans = self._plans(group, rank)
            for placement in plans.values():
                record.add_placement(_placement(placement))
            for each in group:
                if each.exchange == MLLIB:
                    run = self._mllib(each)
                else:
                    run = self._train(each, plans[each.partitioner, each.blocks])
                record.add(run)
                on_run(each, run)

    def _plans(
        self, combinations: Sequence[Combination], rank: int
    ) -> dict[tuple[str, int], PlannedPlacement]:
        rddals_runs = [each for each in combinations if each.exchange != MLLIB]
        if not rddals_runs:
            return {}
        partitioners = dict.fromkeys(each.partitioner for each in rddals_runs)
        blocks = dict.fromkeys(each.blocks for each in rddals_runs)
        planned = plan(self.source, rank, partitioners=list(partitioners), blocks=list(blocks))
        return {(each.partitioner, each.blocks[0]): each for each in planned.placements}

    def _train(self, combination: Combination, planned: PlannedPlacement) -> dict[str, Any]:
        settings, events = self.settings, list[Any]()
        with ShuffleMeter(self.source.context) as meter:
            began = perf_counter()
            ALS.train(
                self.source,
                combination.rank,
                settings.iterations,
                settings.lambda_,
                combination.blocks,
                seed=settings.seed,
                precision=settings.precision,
                exchange=combination.exchange,
                userPartitioner=combination.partitioner,
                productPartitioner=combination.partitioner,
                listeners=[events.append],
            ).unpersist()
            seconds = perf_counter() - began
        measured = meter.measured
        half_steps = [
            _half_step(event, measured) for event in events if isinstance(event, HalfStepDone)
        ]
        (done,) = (event for event in events if isinstance(event, TrainingDone))
        return {
            **asdict(combination),
            "auto": asdict(planned.choice),
            "planned": _planned(planned, combination.exchange),
            "measured": _measured(half_steps),
            "task_seconds": {
                part: sum(_median(half_steps, side, part) for side in SIDE_NAMES) for part in PARTS
            },
            "iteration_seconds": sum(_median(half_steps, side, "seconds") for side in SIDE_NAMES),
            "placing_seconds": seconds - done.seconds,
            "training_seconds": seconds,
            "loss": done.loss,
            "half_steps": half_steps,
            "stages": _stages(measured.stages),
        }

    def _fit_mllib(self, rank: int, iterations: int, blocks: int) -> None:
        from pyspark.ml.recommendation import ALS as MllibALS

        estimator = MllibALS(
            rank=rank,
            maxIter=iterations,
            regParam=self.settings.lambda_,
            seed=self.settings.seed,
            numUserBlocks=blocks,
            numItemBlocks=blocks,
            itemCol="product",
        )
        # MLlib rejects boolean ratings, which a Parquet file may contain.
        numbers = self.frame.selectExpr(
            "int(user) user", "int(product) product", "float(rating) rating"
        )
        estimator.fit(numbers).userFactors.count()

    def _mllib(self, combination: Combination) -> dict[str, Any]:
        iterations = self.settings.iterations
        with ShuffleMeter(self.source.context) as meter:
            self._fit_mllib(combination.rank, iterations, combination.blocks)
        stages = meter.measured.stages
        # Users send first. Each of these stages ends a half-step and writes the next one's input.
        solving = [stage for stage in stages if stage.name.startswith(MLLIB_HALF_STEP)]
        users, products = (stage.done for stage in solving[:2])
        return {
            **asdict(combination),
            "auto": None,
            "planned": None,
            "measured": {
                "bytes": users.written + products.written,
                "users_bytes": users.written,
                "products_bytes": products.written,
                "messages": users.written_records + products.written_records,
            },
            "task_seconds": dict.fromkeys(PARTS),
            "iteration_seconds": (solving[-1].ended - solving[1].ended) / (iterations - 1),
            "placing_seconds": None,
            "training_seconds": stages[-1].ended - stages[0].began,
            "loss": None,
            "half_steps": [],
            "stages": _stages(stages),
        }


def _placement(placement: PlannedPlacement) -> dict[str, Any]:
    """Return a placement as an entry of ``study.json``, with counts by block."""
    assert placement.footprints is not None
    return {
        "partitioner": placement.partitioner,
        "blocks": placement.blocks[0],
        "fit_seconds": placement.fit_seconds,
        **{
            side: {
                "ids": counted.ids.tolist(),
                "ratings": counted.ratings.tolist(),
                "sent": counted.sent.tolist(),
                "rows_between": _rows_between(placement, side),
            }
            for side, counted in zip(SIDE_NAMES, placement.footprints, strict=True)
        },
    }


def _rows_between(placement: PlannedPlacement, side: str) -> list[list[int]] | None:
    """Return the rows sent between each pair of blocks, or None for too many blocks."""
    if max(placement.blocks) > MAX_DETAILED_BLOCKS:
        return None
    rows: list[list[int]] = placement.rows_between(side).tolist()
    return rows


def _planned(placement: PlannedPlacement, exchange: str) -> dict[str, Any]:
    users, products = placement.half_steps[exchange]
    return {
        "least_bytes": users.least_bytes + products.least_bytes,
        "most_bytes": users.most_bytes + products.most_bytes,
        "users_bytes": users.most_bytes,
        "products_bytes": products.most_bytes,
        "messages": users.records + products.records,
    }


def _half_step(event: HalfStepDone, measured: Measured) -> dict[str, Any]:
    """Return the data movement and the task time of a half-step."""
    name = f"{event.iteration} {event.side}"
    # With the local exchange a half-step has no stages and moves nothing.
    step = next((step.done for step in measured.steps if step.step == name), Traffic())
    parts = event.task_seconds
    compute = sum(parts.get(part, 0.0) for part in ("gather", "gram", "solve"))
    # The receive time includes the time spent waiting for fetches.
    serialisation = max(parts["receive"] - step.fetch_wait, 0.0) + parts["other"]
    shuffle = step.fetch_wait + step.write_seconds
    broadcast_bytes = 0
    if event.broadcast_id is not None:
        # New factors travel to the driver in task results, and from there to the executors.
        broadcast_bytes = step.results + measured.broadcasts.get(event.broadcast_id, 0)
    return {
        "iteration": event.iteration,
        "side": event.side,
        "seconds": event.seconds,
        "read_bytes": step.read,
        "broadcast_bytes": broadcast_bytes,
        "messages": step.read_records,
        "compute": compute,
        "serialisation": serialisation,
        "shuffle": shuffle,
        "rest": max(step.seconds - compute - serialisation - shuffle, 0.0),
    }


def _measured(half_steps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return bytes and messages per iteration."""
    users, products = (
        # A shuffle is read when the other side is solved; a broadcast is sent when its own side is.
        round(
            _median(half_steps, other, "read_bytes") + _median(half_steps, side, "broadcast_bytes")
        )
        for side, other in (SIDE_NAMES, SIDE_NAMES[::-1])
    )
    return {
        "bytes": users + products,
        "users_bytes": users,
        "products_bytes": products,
        "messages": round(sum(_median(half_steps, side, "messages") for side in SIDE_NAMES)),
    }


def _median(half_steps: Sequence[dict[str, Any]], side: str, name: str) -> float:
    """Return the median of a field over all iterations except the first and the last.

    The first iteration is slower, and the last one retains the factors instead of sending them.
    """
    last = half_steps[-1]["iteration"]
    inner = [
        step[name] for step in half_steps if step["side"] == side and 1 < step["iteration"] < last
    ]
    return float(median(inner))


def _stages(stages: Sequence[StageMeasure]) -> list[dict[str, Any]]:
    """Return stages as entries of ``study.json``, timed from the start of the first."""
    first = stages[0].began
    return [
        {
            "stage": stage.stage,
            "name": stage.name,
            "step": stage.step,
            "tasks": stage.done.tasks,
            "began": stage.began - first,
            "ended": stage.ended - first,
            "task_seconds": list(stage.task_seconds),
            "read": stage.done.read,
            "written": stage.done.written,
        }
        for stage in stages
    ]
