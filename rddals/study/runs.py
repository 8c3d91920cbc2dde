"""Running what a study is made of: plans, trainings, and MLlib's."""

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

__all__ = ["Settings", "Study"]

#: Of the stages of MLlib's ALS, those of half-steps.
HALF_STEP_OF_MLLIB = "flatMap at ALS.scala"
#: Of more blocks than these it is not put down which sends how much to which.
MOST_BLOCKS = 128


@dataclass(frozen=True, slots=True)
class Settings:
    """What all trainings of a study have in common."""

    iterations: int
    lambda_: float
    seed: int
    precision: str

    def document(self) -> dict[str, Any]:
        """Their part of ``study.json``."""
        return {
            "iterations": self.iterations,
            "lambda": self.lambda_,
            "seed": self.seed,
            "precision": self.precision,
        }


@dataclass(frozen=True, slots=True)
class Study:
    """Ratings to train on, and how.

    Attributes
    ----------
    frame : DataFrame
        Columns user, product and rating, cached.
    source : RDD
        The same, as `rddals.rdds.ingest.rating_source` gives it.
    settings : Settings
    """

    frame: DataFrame
    source: RDD[Any]
    settings: Settings

    def warm_up(self, asked: Sequence[Combination]) -> None:
        """Train once for nothing: who comes first starts Spark's Python workers, and much else."""
        ALS.train(self.source, asked[0].rank, 1, self.settings.lambda_, seed=0).unpersist()
        if any(each.exchange == MLLIB for each in asked):
            self._fit_mllib(asked[0].rank, 1, 2)

    def run(
        self,
        asked: Sequence[Combination],
        record: Record,
        on_run: Callable[[Combination, dict[str, Any]], None],
    ) -> None:
        """Plan and run combinations, one after the other, each into the record when it is done."""
        for rank, of_rank in groupby(asked, key=lambda each: each.rank):
            combinations = list(of_rank)
            plans = self._plans(combinations, rank)
            for placement in plans.values():
                record.add_placement(_placement(placement))
            for each in combinations:
                if each.exchange == MLLIB:
                    run = self._mllib(each)
                else:
                    run = self._train(each, plans[each.partitioner, each.blocks])
                record.add(run)
                on_run(each, run)

    def _plans(
        self, combinations: Sequence[Combination], rank: int
    ) -> dict[tuple[str, int], PlannedPlacement]:
        ours = [each for each in combinations if each.exchange != MLLIB]
        if not ours:
            return {}
        partitioners = dict.fromkeys(each.partitioner for each in ours)
        blocks = dict.fromkeys(each.blocks for each in ours)
        found = plan(self.source, rank, partitioners=list(partitioners), blocks=list(blocks))
        return {(each.partitioner, each.blocks[0]): each for each in found.placements}

    def _train(self, asked: Combination, planned: PlannedPlacement) -> dict[str, Any]:
        settings, events = self.settings, list[Any]()
        with ShuffleMeter(self.source.context) as meter:
            began = perf_counter()
            ALS.train(
                self.source,
                asked.rank,
                settings.iterations,
                settings.lambda_,
                asked.blocks,
                seed=settings.seed,
                precision=settings.precision,
                exchange=asked.exchange,
                userPartitioner=asked.partitioner,
                productPartitioner=asked.partitioner,
                listeners=[events.append],
            ).unpersist()
            seconds = perf_counter() - began
        measured = meter.measured
        half_steps = [
            _half_step(event, measured) for event in events if isinstance(event, HalfStepDone)
        ]
        (done,) = (event for event in events if isinstance(event, TrainingDone))
        return {
            **asked.document(),
            "auto": asdict(planned.choice),
            "planned": _planned(planned, asked.exchange),
            "measured": _measured(half_steps),
            "task_seconds": {
                part: sum(_middle(half_steps, side, part) for side in SIDE_NAMES) for part in PARTS
            },
            "iteration_seconds": sum(_middle(half_steps, side, "seconds") for side in SIDE_NAMES),
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
        # It refuses the booleans that a Parquet file may have for ratings.
        numbers = self.frame.selectExpr(
            "int(user) user", "int(product) product", "float(rating) rating"
        )
        estimator.fit(numbers).userFactors.count()

    def _mllib(self, asked: Combination) -> dict[str, Any]:
        iterations = self.settings.iterations
        with ShuffleMeter(self.source.context) as meter:
            self._fit_mllib(asked.rank, iterations, asked.blocks)
        stages = meter.measured.stages
        # Users send first; one stage ends one half-step and sends what the next one needs.
        solving = [stage for stage in stages if stage.name.startswith(HALF_STEP_OF_MLLIB)]
        users, products = (stage.done for stage in solving[:2])
        return {
            **asked.document(),
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
    """A placement, block by block."""
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
    """Rows from block to block, where they are few enough to be looked at."""
    if max(placement.blocks) > MOST_BLOCKS:
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
    """What a half-step moved, and what its tasks spent their time on."""
    name = f"{event.iteration} {event.side}"
    # In one task there are no stages for a half-step, and nothing moves.
    step = next((step.done for step in measured.steps if step.step == name), Traffic())
    parts = event.task_seconds
    compute = sum(parts.get(part, 0.0) for part in ("gather", "gram", "solve"))
    # A task waits for what it fetches while it receives.
    serialisation = max(parts["receive"] - step.fetch_wait, 0.0) + parts["other"]
    shuffle = step.fetch_wait + step.write_seconds
    carried = 0
    if event.broadcast_id is not None:
        # New factors go to the driver with the results of tasks, and from there to executors.
        carried = step.results + measured.broadcasts.get(event.broadcast_id, 0)
    return {
        "iteration": event.iteration,
        "side": event.side,
        "seconds": event.seconds,
        "read_bytes": step.read,
        "broadcast_bytes": carried,
        "messages": step.read_records,
        "compute": compute,
        "serialisation": serialisation,
        "shuffle": shuffle,
        "rest": max(step.seconds - compute - serialisation - shuffle, 0.0),
    }


def _measured(half_steps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Bytes and messages of an iteration."""
    users, products = (
        # What a side sends is read where the other is solved, but broadcast where it is itself.
        round(
            _middle(half_steps, other, "read_bytes") + _middle(half_steps, side, "broadcast_bytes")
        )
        for side, other in (SIDE_NAMES, SIDE_NAMES[::-1])
    )
    return {
        "bytes": users + products,
        "users_bytes": users,
        "products_bytes": products,
        "messages": round(sum(_middle(half_steps, side, "messages") for side in SIDE_NAMES)),
    }


def _middle(half_steps: Sequence[dict[str, Any]], side: str, what: str) -> float:
    """The median over iterations, less the first and the last.

    The first is slower, and the last keeps the factors instead of sending them all.
    """
    last = half_steps[-1]["iteration"]
    inner = [
        step[what] for step in half_steps if step["side"] == side and 1 < step["iteration"] < last
    ]
    return float(median(inner))


def _stages(stages: Sequence[StageMeasure]) -> list[dict[str, Any]]:
    """Stages, in seconds since the first began."""
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
