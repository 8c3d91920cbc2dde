"""Printing benchmark results as tables, one per benchmark function."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table

__all__ = ["print_report"]


def print_report(result: Path) -> None:
    """Print the tables of a ``pytest-benchmark`` result file."""
    document = json.loads(result.read_text())
    console = Console(width=None if Console().is_terminal else 200)
    for name, version in document["machine_info"].get("versions", {}).items():
        console.print(f"{name}: {version}")
    for name, group in groupby(document["benchmarks"], key=lambda b: b["name"].split("[")[0]):
        rows = list(group)
        columns = list(dict.fromkeys(key for row in rows for key in row["extra_info"]))
        cells = [[str(row["extra_info"].get(column, "")) for column in columns] for row in rows]
        if len(columns) > len(rows):  # few runs with many values: one column per run
            cells = [list(line) for line in zip(columns, *cells, strict=True)]
            columns = ["", *(row["param"] or row["name"] for row in rows)]
        table = Table(*columns, title=f"{result.stem}: {name}", title_justify="left")
        for line in cells:
            table.add_row(*line)
        console.print(table)
    console.print(f"All results: {result}")
