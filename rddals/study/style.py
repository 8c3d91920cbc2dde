"""Colours, symbols and layout of the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log2, log10
from typing import Any

import plotly.graph_objects as go

from rddals.exchange.choice import readable_bytes
from rddals.study.grid import MLLIB
from rddals.study.record import PARTS

#: The Okabe-Ito palette, which is safe for colour-blind readers
#: (https://jfly.uni-koeln.de/color/).
COLOURS = {
    "shuffle": "#0072B2",
    "broadcast": "#009E73",
    "join": "#D55E00",
    "local": "#F0E442",
    MLLIB: "#777777",
    "users": "#56B4E9",
    "products": "#E69F00",
    "links": "#999999",
    "start": "#CC79A7",
    "other": "#CCCCCC",
}
PART_COLOURS = dict(zip(PARTS, ("#0072B2", "#E69F00", "#CC79A7", "#D9D9D9"), strict=True))
SYMBOLS = {
    "shuffle": "circle",
    "broadcast": "diamond",
    "join": "square",
    "local": "star",
    MLLIB: "x",
}
INK, GRID = "#222222", "#e6e6e6"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
#: Approximate number of ticks on an axis.
TICKS = 5


def column_gap(columns: int) -> float:
    """Return the gap between columns as a share of the figure width."""
    return min(0.05, 0.2 / columns)


def bytes_axis(plot: go.Figure, values: Sequence[int], axis: str) -> None:
    """Make an axis logarithmic with ticks at powers of two, unless all values are zero."""
    positive = [value for value in values if value]
    if not positive:
        return
    low, high = log2(min(positive)) - 0.3, log2(max(positive)) + 0.3
    step = max(1, round((high - low) / TICKS))
    powers = range(ceil(low / step) * step, floor(high) + 1, step)
    update = plot.update_yaxes if axis == "y" else plot.update_xaxes
    update(
        type="log",
        range=[low * log10(2), high * log10(2)],
        tickvals=[2**power for power in powers],
        ticktext=[readable_bytes(2**power).replace(".0", "") for power in powers],
    )


def apply_layout(plot: go.Figure, height: int, **layout: Any) -> None:
    """Apply the layout that all figures share."""
    plot.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 10, "r": 10, "t": 70, "b": 10},
        font={"family": FONT, "size": 13, "color": INK},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "traceorder": "normal",
        },
        hoverlabel={"font_family": FONT},
        **layout,
    )
    plot.update_annotations(font_size=13)
    plot.update_xaxes(title_font_size=12)
    plot.update_yaxes(title_font_size=12)
    plot.update_xaxes(automargin=True, gridcolor=GRID, zerolinecolor=GRID)
    plot.update_yaxes(automargin=True, gridcolor=GRID, zerolinecolor=GRID)


Run = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot with its title and caption."""

    name: str
    title: str
    about: str
    plot: go.Figure


def distinct_values(runs: Sequence[Run], name: str) -> list[Any]:
    """Return the distinct values of a field in order of first occurrence."""
    return list(dict.fromkeys(run[name] for run in runs))
