"""The report: one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from rddals.exchange.choice import readable_bytes
from rddals.study.figures import figures
from rddals.study.findings import findings
from rddals.study.record import atomic_write
from rddals.study.style import Figure


def write_report(document: dict[str, Any], folder: Path) -> Path:
    """Write ``report.html`` from the content of ``study.json``, and return its path.

    It contains the figures, the data and plotly.
    """
    environment = Environment(
        loader=PackageLoader("rddals", "study"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bytes"] = readable_bytes
    page = environment.get_template("page.html").render(
        study=document,
        findings=findings(document),
        figures=[(figure, _to_html(figure)) for figure in figures(document)],
        plotly=Markup(get_plotlyjs()),
    )
    report = folder / "report.html"
    with atomic_write(report) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return report


def _to_html(figure: Figure) -> Markup:
    """Render a figure as HTML for a page that already includes plotly."""
    html = figure.plot.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=figure.name,
        config={"displaylogo": False, "responsive": True},
    )
    return Markup(html)
