"""What the commands that plan and measure shuffles do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import rddals
from rddals.cli.failures import InputError
from rddals.cli.lists import numbers, words
from rddals.cli.options import SparkOptions
from rddals.cli.output import Output
from rddals.exchange.choice import readable_bytes
from rddals.measure import Measured, Traffic, read_event_log
from rddals.planning.expectation import expected_plan
from rddals.planning.forecast import NAMES, Plan, PlannedPlacement, PlannedSide
from rddals.rdds.placement import PARTITIONERS
from rddals.sources.faults import Ratings
from rddals.sources.local_reader import LocalFileRatings, read_local_ratings
from rddals.sources.paths import quoted
from rddals.sources.readers import read_ratings

__all__ = ["Grid", "expect", "measure", "only_without_data", "plan"]


@dataclass(frozen=True, slots=True)
class Grid:
    """What is to be combined with what."""

    rank: int
    exchanges: tuple[str, ...]
    partitioners: tuple[str, ...]
    blocks: tuple[int, ...]

    @classmethod
    def checked(cls, rank: int, exchanges: str, partitioners: str, blocks: str) -> Grid:
        """Lists as the command line has them, separated by commas."""
        return cls(
            rank,
            words("--exchange", exchanges, NAMES),
            words("--partitioner", partitioners, PARTITIONERS),
            numbers("--blocks", blocks, least=-1),
        )


def plan(
    where: SparkOptions,
    output: Output,
    paths: Sequence[str],
    grid: Grid,
    executors: int | None,
    columns: Sequence[str] | None,
) -> None:
    """Plan trainings on ratings."""

    def planned(source: Ratings | LocalFileRatings, ratings: Any) -> Plan:
        output.fact("ratings", f"{quoted(source.paths)} ({source.description})")
        with output.busy("planning"):
            return rddals.plan(
                ratings,
                grid.rank,
                exchanges=grid.exchanges,
                partitioners=grid.partitioners,
                blocks=grid.blocks,
                executors=executors,
            )

    source: Ratings | LocalFileRatings
    local = None if where.is_configured else read_local_ratings(paths, columns)
    if local is not None:
        source, found = local, planned(local, local.block)
    else:
        with where.session(output) as spark:
            with output.busy("looking at the ratings"):
                source = ratings = read_ratings(spark, paths, columns)
            with ratings.locating_faults():
                found = planned(ratings, ratings.frame)
    _print_plan(output, found)
    output.result({"paths": list(source.paths), **found.document()})


def only_without_data(**options: object) -> None:
    """Refuse options that describe ratings where there are some."""
    for name, value in options.items():
        if value is not None:
            raise InputError(f"--{name} describes ratings that are not there; pass it or RATINGS")


def expect(output: Output, grid: Grid, sizes: dict[str, Any], degrees: str) -> None:
    """Plan trainings on ratings that are not there."""
    for name, value in sizes.items():
        if value is None:
            raise InputError(f"pass RATINGS, or --{name} and what else describes them: --help")
    if grid.partitioners != ("hash",):
        raise InputError("without RATINGS, --partitioner is hash: nothing else can be foretold")
    blocks = None if grid.blocks == (-1,) else grid.blocks
    found = expected_plan(
        **sizes, rank=grid.rank, degrees=degrees, exchanges=grid.exchanges, blocks=blocks
    )
    output.fact("degrees", f"{degrees}, ids hashed: expected values")
    _print_plan(output, found)
    output.result({"degrees": degrees, **found.document()})


def _print_plan(output: Output, plan: Plan) -> None:
    output.fact(
        "counted",
        f"{plan.ratings:,} of {plan.products:,} products by {plan.users:,} users, rank {plan.rank}",
    )
    output.section(
        "What moves",
        "In an iteration, and in the half-steps in which users, and products, send; without "
        "compression. To how many blocks a row goes, on average.",
    )
    output.table(
        ("partitioner", "blocks", "exchange", "iteration", "users", "products", "messages", "rows"),
        [
            row
            for placement in plan.placements
            for exchange in placement.half_steps
            if (row := _moves(placement, exchange))
        ],
        left=(0, 2),
    )
    output.section(
        "How it is spread",
        "The heaviest block beside the mean: its ratings, the rows that it needs, and the "
        "estimated time of solving it on one core here. Memory of the largest task.",
    )
    output.table(
        ("partitioner", "blocks", "solved", "ratings", "rows", "time", "memory"),
        [
            (placement.partitioner, _blocks(placement), name, *_spread(side))
            for placement in plan.placements
            for name, side in (("products", placement.products), ("users", placement.users))
        ],
        left=(0, 2),
    )
    output.section("What auto would take", "And why, by the rows alone, without their envelopes.")
    output.table(
        ("partitioner", "blocks", "exchange", "reason"),
        [(p.partitioner, _blocks(p), p.choice.exchange, p.choice.reason) for p in plan.placements],
        left=(0, 2, 3),
    )
    output.fact("planned", f"in {plan.seconds:.1f} s")


def _blocks(placement: PlannedPlacement) -> str:
    users, products = placement.blocks
    return f"{users:,}" if users == products else f"{users:,} x {products:,}"


def _moves(placement: PlannedPlacement, exchange: str) -> tuple[str, ...]:
    users, products = placement.half_steps[exchange]
    bound = "" if users.least_bytes == users.most_bytes else "<= "
    return (
        placement.partitioner,
        _blocks(placement),
        exchange,
        bound + readable_bytes(placement.bytes_per_iteration(exchange)),
        bound + readable_bytes(users.most_bytes),
        bound + readable_bytes(products.most_bytes),
        f"{users.records + products.records:,}",
        f"{users.replication:,.1f}, {products.replication:,.1f}",
    )


def _spread(side: PlannedSide) -> tuple[str, ...]:
    return (
        f"{side.ratings.most:,.0f} / {side.ratings.mean:,.0f}",
        f"{side.rows.most:,.0f} / {side.rows.mean:,.0f}",
        f"{_readable_time(side.seconds.most)} / {_readable_time(side.seconds.mean)}",
        readable_bytes(side.task_bytes.most),
    )


def _readable_time(seconds: float) -> str:
    for unit, size in (("us", 1e-6), ("ms", 1e-3), ("s", 1.0)):
        if seconds < 1000 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 3600:,.1f} h"


def measure(output: Output, path: str) -> None:
    """What a program has moved, from the log of its events."""
    with output.busy("reading the log"):
        found = read_event_log(path)
    output.fact("log", f"{path}, of Spark {found.spark}")
    if not found.finished:
        output.fact("unfinished", "the program still runs, or was killed: this is of what it told")
    if found.steps:
        output.section("Steps of trainings", "Of rddals: links, start, then sides that are solved.")
        output.table(
            ("step", "tasks", *TRAFFIC),
            [(step.step, f"{step.done.tasks:,}", *_traffic(step.done)) for step in found.steps],
        )
    output.section("Stages", "As on Spark's pages; seconds of a task: least, median, greatest.")
    output.table(
        ("stage", "name", "tasks", *TRAFFIC, "of a task"),
        [
            (
                str(stage.stage),
                f"rddals: {stage.step}" if stage.step else stage.name,
                f"{stage.done.tasks:,}",
                *_traffic(stage.done),
                ", ".join(f"{seconds:.2g}" for seconds in stage.task_seconds),
            )
            for stage in found.stages
        ],
        left=(1,),
    )
    _print_totals(output, found)
    output.result({"log": path, **found.document()})


TRAFFIC = ("read", "remote", "written", "records", "spilled", "waited", "seconds")


def _traffic(traffic: Traffic) -> tuple[str, ...]:
    return (
        readable_bytes(traffic.read),
        readable_bytes(traffic.read_remote),
        readable_bytes(traffic.written),
        f"{traffic.written_records:,}",
        readable_bytes(traffic.spilled_disk),
        f"{traffic.fetch_wait:.2f} s",
        f"{traffic.seconds:.2f}",
    )


def _print_totals(output: Output, found: Measured) -> None:
    total = found.total
    output.fact(
        "in all",
        f"{readable_bytes(total.written)} written to shuffles, {readable_bytes(total.read)} read, "
        f"in {total.tasks:,} tasks of {total.seconds:,.1f} s together",
    )
    for label, traffic in (("retried", found.retried), ("failed", found.failed)):
        if traffic.tasks:
            output.fact(
                label,
                f"{traffic.tasks:,} tasks of {traffic.seconds:,.1f} s, "
                f"{readable_bytes(traffic.written)} written",
            )
