"""The figures of a report, drawn with plotly from ``study.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from rddals.study.grid import MLLIB, Combination
from rddals.study.placement_figures import draw_heat, draw_skew
from rddals.study.style import (
    COLOURS,
    SYMBOLS,
    Figure,
    Run,
    apply_layout,
    bytes_axis,
    column_gap,
    distinct_values,
)
from rddals.study.time_figures import draw_time, draw_timeline


def figures(document: dict[str, Any]) -> list[Figure]:
    """Draw the figures for which a ``study.json`` has data."""
    runs = document["runs"]
    rddals_runs = [run for run in runs if run["exchange"] != MLLIB]
    candidates: list[Figure | None] = []
    if rddals_runs:
        candidates += [
            _bytes(rddals_runs),
            _prediction(rddals_runs, document["compressed"]["shuffle"]),
        ]
    if document["placements"]:
        candidates += [draw_heat(document["placements"]), draw_skew(document["placements"])]
    if rddals_runs:
        candidates += [draw_time(rddals_runs), draw_timeline(rddals_runs)]
    if len(rddals_runs) < len(runs):
        candidates.append(_mllib(runs))
    return [figure for figure in candidates if figure is not None]


def _bytes(runs: Sequence[Run]) -> Figure:
    ranks, blocks = sorted(distinct_values(runs, "rank")), sorted(distinct_values(runs, "blocks"))
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
            for exchange in distinct_values(runs, "exchange"):
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
        "every rating. The local exchange moves nothing, so it has no point.",
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
    for exchange in distinct_values(runs, "exchange"):
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
    for exchange in distinct_values(selected, "exchange"):
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
