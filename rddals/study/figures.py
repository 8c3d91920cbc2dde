"""The figures of a report, drawn with plotly from ``study.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from rddals.study.grid import MLLIB, Combination
from rddals.study.record import PARTS
from rddals.study.style import (
    COLOURS,
    INK,
    PART_COLOURS,
    SYMBOLS,
    apply_layout,
    bytes_axis,
    column_gap,
)

__all__ = ["Figure", "figures"]

Run = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot with its title and caption."""

    name: str
    title: str
    about: str
    plot: go.Figure


def figures(document: dict[str, Any]) -> list[Figure]:
    """Draw the figures for which a study has data.

    Parameters
    ----------
    document : dict
        Content of ``study.json``.
    """
    runs = document["runs"]
    rddals_runs = [run for run in runs if run["exchange"] != MLLIB]
    candidates: list[Figure | None] = []
    if rddals_runs:
        candidates += [
            _bytes(rddals_runs),
            _prediction(rddals_runs, document["compressed"]["shuffle"]),
        ]
    if document["placements"]:
        candidates += [_heat(document["placements"]), _skew(document["placements"])]
    if rddals_runs:
        candidates += [_time(rddals_runs), _timeline(rddals_runs)]
    if len(rddals_runs) < len(runs):
        candidates.append(_mllib(runs))
    return [figure for figure in candidates if figure is not None]


def _values(runs: Sequence[Run], name: str) -> list[Any]:
    """Return the distinct values of a field in order of first occurrence."""
    return list(dict.fromkeys(run[name] for run in runs))


def _bytes(runs: Sequence[Run]) -> Figure:
    ranks, blocks = sorted(_values(runs, "rank")), sorted(_values(runs, "blocks"))
    plot = make_subplots(
        len(ranks),
        len(blocks),
        shared_yaxes=True,
        vertical_spacing=0.24 / len(ranks),
        horizontal_spacing=column_gap(len(blocks)),
        subplot_titles=[f"rank {rank}, {count} blocks" for rank in ranks for count in blocks],
    )
    named: set[str] = set()
    for row, rank in enumerate(ranks, 1):
        for column, count in enumerate(blocks, 1):
            cell = [run for run in runs if (run["rank"], run["blocks"]) == (rank, count)]
            for exchange in _values(runs, "exchange"):
                same_exchange = [run for run in cell if run["exchange"] == exchange]
                if not same_exchange:
                    continue
                # Points, since bar lengths are meaningless on a logarithmic axis.
                plot.add_scatter(
                    x=[run["partitioner"] for run in same_exchange],
                    y=[run["measured"]["bytes"] for run in same_exchange],
                    mode="lines+markers",
                    line={"width": 1, "dash": "dot", "color": COLOURS[exchange]},
                    marker={"size": 11, "symbol": SYMBOLS[exchange], "color": COLOURS[exchange]},
                    name=exchange,
                    legendgroup=exchange,
                    showlegend=exchange not in named,
                    hovertemplate=f"{exchange}, %{{x}}: %{{y:,}} B<extra></extra>",
                    row=row,
                    col=column,
                )
                named.add(exchange)
    bytes_axis(plot, [run["measured"]["bytes"] for run in runs], axis="y")
    plot.update_yaxes(title_text="bytes per iteration", col=1)
    apply_layout(plot, 130 + 250 * len(ranks))
    return Figure(
        "bytes",
        "Bytes by exchange and placement",
        "Bytes moved per iteration, on a logarithmic scale. A broadcast sends all rows to every "
        "executor, for any number of blocks. A shuffle grows with the number of blocks, and "
        "shrinks if the placement puts neighbours in the same block. A join moves one row for "
        "every rating.",
        plot,
    )


def _prediction(runs: Sequence[Run], compressed: bool) -> Figure:
    plot = go.Figure()
    all_bytes = [run["measured"]["bytes"] for run in runs]
    all_bytes += [run["planned"]["most_bytes"] for run in runs]
    low, high = min(filter(None, all_bytes), default=1), max(all_bytes)
    plot.add_scatter(
        x=[low, high],
        y=[low, high],
        mode="lines",
        line={"color": "#aaaaaa", "dash": "dot", "width": 1},
        name="measured = planned",
        hoverinfo="skip",
    )
    for exchange in _values(runs, "exchange"):
        same_exchange = [run for run in runs if run["exchange"] == exchange]
        plot.add_scatter(
            x=[run["planned"]["most_bytes"] for run in same_exchange],
            y=[run["measured"]["bytes"] for run in same_exchange],
            text=[str(Combination.of(run)) for run in same_exchange],
            mode="markers",
            name=exchange,
            marker={
                "color": COLOURS[exchange],
                "symbol": SYMBOLS[exchange],
                "size": 9,
                "opacity": 0.75,
            },
            hovertemplate="%{text}<br>planned %{x:,} B, measured %{y:,} B<extra></extra>",
        )
    bytes_axis(plot, all_bytes, axis="x")
    bytes_axis(plot, all_bytes, axis="y")
    plot.update_xaxes(title_text="planned bytes per iteration")
    plot.update_yaxes(title_text="measured bytes per iteration")
    apply_layout(plot, 440)
    note = " Spark compression was on." if compressed else ""
    return Figure(
        "prediction",
        "Planned and measured bytes",
        "Each point is a run. On the dotted line, measured bytes equal planned bytes. The plan is "
        "exact for the shuffle (up to 256 blocks) and an upper bound for the join. For the "
        "broadcast it counts only the rows, and not the task measurements sent to the driver."
        + note,
        plot,
    )


def _heat(placements: Sequence[Run]) -> Figure | None:
    blocks = [p["blocks"] for p in placements if p["users"]["rows_between"] is not None]
    if not blocks:
        return None
    selected = [p for p in placements if p["blocks"] == max(blocks)]
    plot = make_subplots(
        2,
        len(selected),
        vertical_spacing=0.16,
        horizontal_spacing=column_gap(len(selected)),
        subplot_titles=[
            f"{placement['partitioner']}, {side} send"
            for side in ("users", "products")
            for placement in selected
        ],
    )
    for row, side in enumerate(("users", "products"), 1):
        for column, placement in enumerate(selected, 1):
            plot.add_heatmap(
                z=placement[side]["rows_between"],
                coloraxis="coloraxis" if row == 1 else "coloraxis2",
                hovertemplate=f"{side}' block %{{y}} to block %{{x}}: %{{z:,}} rows<extra></extra>",
                row=row,
                col=column,
            )
    bars = {"thickness": 12, "len": 0.42, "title": {"text": "rows"}}
    plot.update_layout(
        coloraxis={"colorscale": "Blues", "colorbar": {**bars, "y": 0.79}, "cmin": 0},
        coloraxis2={"colorscale": "Oranges", "colorbar": {**bars, "y": 0.21}, "cmin": 0},
    )
    plot.update_yaxes(autorange="reversed")
    plot.update_yaxes(title_text="from block", col=1)
    plot.update_xaxes(title_text="to block", row=2)
    apply_layout(plot, 620)
    return Figure(
        "heat",
        f"Rows sent between blocks, with {max(blocks)} blocks",
        "Rows that each block sends to each block of the other side in a half-step of a shuffle. "
        "Hash placement spreads them evenly. A placement that puts neighbours in the same block "
        "shows a few dark cells and many light ones.",
        plot,
    )


def _skew(placements: Sequence[Run]) -> Figure:
    most = max(placement["blocks"] for placement in placements)
    selected = [placement for placement in placements if placement["blocks"] == most]
    plot = make_subplots(
        1,
        2,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        subplot_titles=["users' blocks", "products' blocks"],
    )
    for column, side in enumerate(("users", "products"), 1):
        for placement in selected:
            ratings = placement[side]["ratings"]
            mean = sum(ratings) / len(ratings)
            plot.add_box(
                y=[count / mean for count in ratings],
                customdata=ratings,
                text=[f"block {block}" for block in range(len(ratings))],
                name=placement["partitioner"],
                boxpoints="all",
                pointpos=0,
                jitter=0.5,
                fillcolor="rgba(0,0,0,0)",
                line={"width": 0, "color": "rgba(0,0,0,0)"},  # show only the points, not the box
                marker={"color": COLOURS[side], "size": 7, "opacity": 0.7},
                showlegend=False,
                hovertemplate="%{text}: %{customdata:,} ratings, %{y:.2f} of the mean"
                "<extra></extra>",
                row=1,
                col=column,
            )
        plot.add_hline(y=1, line={"color": "#aaaaaa", "dash": "dot", "width": 1}, row=1, col=column)
    plot.update_yaxes(rangemode="tozero")
    plot.update_yaxes(title_text="ratings / mean over blocks", col=1)
    apply_layout(plot, 400)
    return Figure(
        "skew",
        f"Skew, with {most} blocks",
        "Each point is a block: its number of ratings divided by the mean over all blocks. With "
        "one core per block, the block with the most ratings determines the time of a half-step.",
        plot,
    )


def _time(runs: Sequence[Run]) -> Figure:
    ranks = sorted(_values(runs, "rank"))
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


def _timeline(runs: Sequence[Run]) -> Figure:
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


def _mllib(runs: Sequence[Run]) -> Figure:
    selected = [
        run
        for run in runs
        if run["exchange"] == MLLIB or (run["partitioner"] == "hash" and run["exchange"] != "join")
    ]
    plot = make_subplots(
        1,
        2,
        horizontal_spacing=0.1,
        subplot_titles=["bytes per iteration", "seconds per iteration"],
    )
    for exchange in _values(selected, "exchange"):
        same_exchange = [run for run in selected if run["exchange"] == exchange]
        labels = [f"rank {run['rank']}, {run['blocks']} blocks" for run in same_exchange]
        moved = [run["measured"]["bytes"] for run in same_exchange]
        seconds = [run["iteration_seconds"] for run in same_exchange]
        for column, values, unit in ((1, moved, ":,} B"), (2, seconds, ":.3f} s")):
            plot.add_bar(
                x=labels,
                y=values,
                name=exchange,
                legendgroup=exchange,
                showlegend=column == 1,
                marker_color=COLOURS[exchange],
                hovertemplate=f"{exchange}, %{{x}}: %{{y{unit}<extra></extra>",
                row=1,
                col=column,
            )
    plot.update_yaxes(rangemode="tozero")
    apply_layout(plot, 420, barmode="group")
    return Figure(
        "mllib",
        "Comparison with MLlib",
        "MLlib's ALS with the same ratings, rank, blocks and hash placement, in the same Spark "
        "session.",
        plot,
    )
