"""Figures of a study about placement: rows between blocks, and skew."""

from __future__ import annotations

from collections.abc import Sequence

from plotly.subplots import make_subplots

from rddals.study.style import (
    COLOURS,
    Figure,
    Run,
    apply_layout,
    column_gap,
)


def draw_heat(placements: Sequence[Run]) -> Figure | None:
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


def draw_skew(placements: Sequence[Run]) -> Figure:
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
