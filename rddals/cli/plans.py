"""The commands plan and measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rddals
from rddals.cli.failures import InputError
from rddals.cli.options import Common
from rddals.cli.output import Output
from rddals.exchange.choice import readable_bytes
from rddals.measure import Measured, Traffic, read_event_log
from rddals.planning.expectation import expected_plan
from rddals.planning.forecast import Plan, PlannedPlacement, PlannedSide
from rddals.sources.local_reader import LocalFileRatings, read_local_ratings
from rddals.sources.paths import quoted
from rddals.sources.ratings import Ratings
from rddals.sources.readers import read_ratings
from rddals.study.grid import Grid


def plan(
    common: Common,
    output: Output,
    paths: Sequence[str],
    grid: Grid,
    executors: int | None,
    columns: Sequence[str] | None,
) -> None:
    """Plan trainings on ratings in files."""

    def compute(source: Ratings | LocalFileRatings, ratings: Any) -> Plan:
        output.fact("ratings", f"{quoted(source.paths)} ({source.description})")
        with output.busy("planning"):
            return rddals.plan(
                ratings,
                *grid.ranks,
                exchanges=grid.exchanges,
                partitioners=grid.partitioners,
                blocks=grid.blocks,
                executors=executors,
            )

    source: Ratings | LocalFileRatings
    local = None if common.is_configured else read_local_ratings(paths, columns)
    if local is not None:
        source, result = local, compute(local, local.block)
    else:
        with common.session(output) as spark:
            with output.busy("detecting the format of the ratings"):
                source = ratings = read_ratings(spark, paths, columns)
            with ratings.locating_faults():
                result = compute(ratings, ratings.frame)
    _print_plan(output, result)
    output.result({"paths": list(source.paths), **result.document()})


def reject_sizes(**options: object) -> None:
    """Reject options that replace RATINGS when RATINGS are given."""
    for name, value in options.items():
        if value is not None:
            raise InputError(f"--{name} replaces RATINGS, which are given; pass one of the two")


def plan_from_sizes(output: Output, grid: Grid, sizes: dict[str, Any], degrees: str) -> None:
    """Plan trainings from the sizes of the data, by expected values."""
    for name, value in sizes.items():
        if value is None:
            raise InputError(f"--{name} is missing; pass it, or RATINGS instead of sizes")
    if grid.partitioners != ("hash",):
        raise InputError("--partitioner must be hash without RATINGS, which others need")
    blocks = None if grid.blocks == (-1,) else grid.blocks
    result = expected_plan(
        **sizes, rank=grid.ranks[0], degrees=degrees, exchanges=grid.exchanges, blocks=blocks
    )
    output.fact("degrees", f"{degrees}, ids hashed: expected values")
    _print_plan(output, result)
    output.result({"degrees": degrees, **result.document()})


def _print_plan(output: Output, plan: Plan) -> None:
    output.fact(
        "size",
        f"{plan.ratings:,} ratings of {plan.products:,} products by {plan.users:,} users, "
        f"rank {plan.rank}",
    )
    output.section(
        "Bytes moved",
        "Uncompressed bytes per iteration, and per half-step in which users or products send. "
        "Rows: average number of times that a user's and a product's row is sent.",
    )
    output.table(
        ("partitioner", "blocks", "exchange", "iteration", "users", "products", "messages", "rows"),
        [
            row
            for placement in plan.placements
            for exchange in placement.half_steps
            if (row := _traffic_cells(placement, exchange))
        ],
        left=(0, 2),
    )
    output.section(
        "Balance",
        "Heaviest block / mean: ratings, rows received, and estimated time to solve it on one core "
        "of this machine. Memory of the largest task.",
    )
    output.table(
        ("partitioner", "blocks", "solved", "ratings", "rows", "time", "memory"),
        [
            (placement.partitioner, _blocks(placement), name, *_balance_cells(side))
            for placement in plan.placements
            for name, side in (("products", placement.products), ("users", placement.users))
        ],
        left=(0, 2),
    )
    output.section("Choice of auto", "Based on the bytes of rows, without message overhead.")
    output.table(
        ("partitioner", "blocks", "exchange", "reason"),
        [(p.partitioner, _blocks(p), p.choice.exchange, p.choice.reason) for p in plan.placements],
        left=(0, 2, 3),
    )
    output.fact("planned", f"in {plan.seconds:.1f} s")


def _blocks(placement: PlannedPlacement) -> str:
    users, products = placement.blocks
    return f"{users:,}" if users == products else f"{users:,} x {products:,}"


def _traffic_cells(placement: PlannedPlacement, exchange: str) -> tuple[str, ...]:
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


def _balance_cells(side: PlannedSide) -> tuple[str, ...]:
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
    """Print what a program moved, from its Spark event log."""
    with output.busy("reading the log"):
        measured = read_event_log(path)
    output.fact("log", f"{path}, of Spark {measured.spark}")
    if not measured.finished:
        output.fact("incomplete", "the program is running or was killed; the log has no end")
    if measured.steps:
        output.section("Steps of rddals", "Link blocks, start, then the side that is solved.")
        output.table(
            ("step", "tasks", *TRAFFIC),
            [(step.step, f"{step.done.tasks:,}", *_traffic(step.done)) for step in measured.steps],
        )
    output.section("Stages", "As in Spark's UI. Task seconds: minimum, median, maximum.")
    output.table(
        ("stage", "name", "tasks", *TRAFFIC, "task seconds"),
        [
            (
                str(stage.stage),
                f"rddals: {stage.step}" if stage.step else stage.name,
                f"{stage.done.tasks:,}",
                *_traffic(stage.done),
                ", ".join(f"{seconds:.2g}" for seconds in stage.task_seconds),
            )
            for stage in measured.stages
        ],
        left=(1,),
    )
    _print_totals(output, measured)
    output.result({"log": path, **measured.document()})


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


def _print_totals(output: Output, measured: Measured) -> None:
    total = measured.total
    output.fact(
        "total",
        f"{readable_bytes(total.written)} written to shuffles, {readable_bytes(total.read)} read, "
        f"in {total.tasks:,} tasks, {total.seconds:,.1f} s of task time",
    )
    for label, traffic in (("retried", measured.retried), ("failed", measured.failed)):
        if traffic.tasks:
            output.fact(
                label,
                f"{traffic.tasks:,} tasks, {traffic.seconds:,.1f} s of task time, "
                f"{readable_bytes(traffic.written)} written",
            )
