"""Figures of a study about time: the parts of an iteration, and the stages."""

from __future__ import annotations

from collections.abc import Sequence

from plotly.subplots import make_subplots

from rddals.study.grid import Combination
from rddals.study.record import PARTS
from rddals.study.style import (
    COLOURS,
    INK,
    PART_COLOURS,
    Figure,
    Run,
    apply_layout,
    column_gap,
    distinct_values,
)


def draw_time(runs: Sequence[Run]) -> Figure:
    ranks = sorted(distinct_values(runs, "rank"))
    plot = make_subplots(
        1,
        len(ranks),
        shared_yaxes=True,
        horizontal_spacing=column_gap(len(ranks)),
        subplot_titles=[f"rank {rank}" for rank in ranks],
    )
    rows = len({_without_rank(run) for run in runs})
    for column, rank in enumerate(ranks, 1):
        same_rank = [run for run in runs if run["rank"] == rank]
        names = [_without_rank(run) for run in same_rank]
        for part in PARTS:
            plot.add_bar(
                y=names,
                x=[run["task_seconds"][part] for run in same_rank],
                name=part,
                legendgroup=part,
                showlegend=column == 1,
                orientation="h",
                marker_color=PART_COLOURS[part],
                hovertemplate=f"%{{y}} blocks<br>{part}: %{{x:.3f}} s<extra></extra>",
                row=1,
                col=column,
            )
        plot.add_scatter(
            y=names,
            x=[run["iteration_seconds"] for run in same_rank],
            mode="markers",
            name="wall-clock time",
            legendgroup="clock",
            showlegend=column == 1,
            marker={"symbol": "line-ns", "size": 11, "line": {"width": 2, "color": INK}},
            hovertemplate="%{y} blocks<br>wall-clock time: %{x:.3f} s<extra></extra>",
            row=1,
            col=column,
        )
    plot.update_xaxes(title_text="task seconds per iteration", rangemode="tozero")
    plot.update_yaxes(tickfont={"size": 11}, range=[rows - 0.5, -0.5])  # first run on top
    apply_layout(plot, max(360, 160 + 20 * rows), barmode="stack", bargap=0.25)
    return Figure(
        "time",
        "Task time",
        "Total task seconds per iteration, by exchange, partitioner and blocks: the median over "
        "all iterations except the first and the last. Compute is gathering rows, building the "
        "normal equations and solving them. Serialisation is unpacking received rows; for a join "
        "it includes rebuilding the blocks. Shuffle is waiting for fetches and writing shuffle "
        "files. Rest is packing sent rows, moving bytes between Java and Python, and starting "
        "tasks. The black mark is the wall-clock time of the iteration.",
        plot,
    )


def _without_rank(run: Run) -> str:
    return f"{run['exchange']}, {run['partitioner']}, {run['blocks']}"


def draw_timeline(runs: Sequence[Run]) -> Figure:
    """Draw the stages of the first run of each exchange."""
    first: dict[str, Run] = {}
    for run in runs:
        first.setdefault(run["exchange"], run)
    plot = make_subplots(
        len(first),
        1,
        shared_xaxes=True,
        vertical_spacing=0.1,
        subplot_titles=[str(Combination.of(run)) for run in first.values()],
    )
    named: set[str] = set()
    for row, run in enumerate(first.values(), 1):
        for kind in ("links", "start", "products", "users", "other"):
            stages = [stage for stage in run["stages"] if _kind(stage["step"]) == kind]
            if not stages:
                continue
            plot.add_bar(
                base=[stage["began"] for stage in stages],
                x=[stage["ended"] - stage["began"] for stage in stages],
                y=[kind] * len(stages),
                text=[stage["step"] or stage["name"] for stage in stages],
                customdata=[
                    [stage["stage"], stage["tasks"], stage["read"], stage["written"]]
                    for stage in stages
                ],
                textposition="none",
                orientation="h",
                name=kind,
                legendgroup=kind,
                showlegend=kind not in named,
                marker={"color": COLOURS[kind], "line": {"width": 0.5, "color": "white"}},
                hovertemplate="%{text}: stage %{customdata[0]}, %{customdata[1]} tasks<br>"
                "%{x:.3f} s, from %{base:.3f} s<br>read %{customdata[2]:,} B, "
                "wrote %{customdata[3]:,} B<extra></extra>",
                row=row,
                col=1,
            )
            named.add(kind)
    plot.update_yaxes(autorange="reversed")
    plot.update_xaxes(title_text="seconds since the first task", row=len(first), rangemode="tozero")
    apply_layout(plot, 120 + 190 * len(first), barmode="overlay", bargap=0.15)
    return Figure(
        "timeline",
        "Timeline of stages",
        "The first training of each exchange: link blocks, starting factors, then products and "
        "users in turn. In the gaps the driver or Spark's scheduler is busy.",
        plot,
    )


def _kind(step: str | None) -> str:
    """Return the step of a stage without the iteration, or "other"."""
    return "other" if step is None else step.split()[-1]
