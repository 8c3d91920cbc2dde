"""Output of a command: formatted on a terminal, plain lines in a pipe, JSON on request.

With ``--json`` stdout gets the JSON document only, and text goes to stderr.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from rddals.progress import ProgressBar, amount
from rddals.training.events import HalfStepDone, Listener

#: Width of the column of labels, in characters.
LABEL_WIDTH = 15


class Output:
    """Writer of a command's output; `terminal` says whether its text goes to a terminal."""

    def __init__(self, as_json: bool = False) -> None:
        self._as_json = as_json
        self._stream = sys.stderr if as_json else sys.stdout
        self._console = Console(file=self._stream, highlight=False)
        self._busy = False
        self.terminal = self._console.is_terminal and not self._console.is_dumb_terminal

    def fact(self, label: str, text: str) -> None:
        """Write one line: a label and a text."""
        self._clear()
        if self.terminal:
            grid = Table.grid(padding=(0, 2, 0, 0))
            grid.add_column(width=LABEL_WIDTH - 2, style="cyan")
            grid.add_row(label, Text(text))
            self._console.print(grid)
        else:
            self._print(f"{label:{LABEL_WIDTH}}{text}")

    def section(self, title: str, about: str) -> None:
        """Write a heading and a description of the section."""
        self._clear()
        if self.terminal:
            self._console.print()
            self._console.rule(f"[bold]{title}", align="left", style="cyan")
            self._console.print(Text(about, style="dim"))
        else:
            self._print(f"\n{title}\n{'-' * len(title)}\n{about}")

    def table(
        self,
        headings: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        left: Collection[int] = (0,),
        style: Mapping[int, str] | None = None,
    ) -> None:
        """Write a table; in a pipe, as plain columns.

        The columns in `left` are left-aligned, the others right-aligned. `style` has the styles of
        columns on a terminal.
        """
        self._clear()
        if self.terminal:
            table = Table(header_style="bold", border_style="dim")
            for column, heading in enumerate(headings):
                table.add_column(
                    heading,
                    justify="left" if column in left else "right",
                    style=(style or {}).get(column),
                )
            for row in rows:
                table.add_row(*map(Text, row))
            self._console.print(table)
            return
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        for row in (headings, *rows):
            cells = [
                cell.ljust(width) if column in left else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            self._print("  ".join(cells).rstrip())

    @contextmanager
    def busy(self, activity: str) -> Iterator[None]:
        """Show an activity on a terminal while the block runs."""
        self._show(activity)
        try:
            yield
        finally:
            self._clear()

    @contextmanager
    def progress(self, iterations: int) -> Iterator[Listener]:
        """Yield a training listener: a progress bar on a terminal, else a line per iteration."""
        if self.terminal and sys.stderr.isatty():
            bar = ProgressBar(iterations)
            self._show("reading the ratings")
            try:
                yield bar
            finally:
                self._clear()
                bar.close()
            return
        seconds = 0.0

        def report(event: Any) -> None:
            nonlocal seconds
            if not isinstance(event, HalfStepDone):
                return
            seconds += event.seconds
            if event.side == "users":
                label = f"{event.iteration}/{iterations}"
                self._print(
                    f"{'iteration':{LABEL_WIDTH}}{label:8}"
                    f"loss {amount(event.loss):14}{seconds:.2f} s"
                )
                seconds = 0.0

        yield report

    @contextmanager
    def steps(self, total: int) -> Iterator[Callable[[str], None]]:
        """Yield a function that reports one of `total` steps: a line, and a bar on a terminal."""
        if not self.terminal:
            count = 0

            def report(text: str) -> None:
                nonlocal count
                count += 1
                self.fact(f"{count}/{total}", text)

            yield report
            return
        # Drawn after each step, without a thread, for the reason given in _show.
        with Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            auto_refresh=False,
            transient=True,
        ) as progress:
            task = progress.add_task("", total=total)
            progress.refresh()

            def advance(text: str) -> None:
                progress.console.print(Text(text))
                progress.advance(task)
                progress.refresh()

            yield advance

    def line(self, text: str) -> None:
        """Write a sentence as a list item."""
        self._clear()
        if self.terminal:
            self._console.print(Text(f"- {text}"))
        else:
            self._print(f"- {text}")

    def result(self, document: dict[str, Any]) -> None:
        """Write the result as a JSON document, if JSON was requested."""
        if self._as_json:
            _write(sys.stdout, json.dumps(_finite(document), indent=2))

    def _show(self, activity: str) -> None:
        # A spinner would write from a thread while stdout is redirected for the start of Spark.
        if self.terminal:
            self._stream.write(f"\x1b[2m{activity} ...\x1b[0m")
            self._stream.flush()
            self._busy = True

    def _clear(self) -> None:
        if self._busy:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            self._busy = False

    def _print(self, line: str) -> None:
        _write(self._stream, line)


def _write(stream: TextIO, text: str) -> None:
    """Print and flush a line; discard all output after the reader has closed the pipe.

    A reader that exits early, such as ``head``, must not end the command.
    """
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)


def _finite(value: Any) -> Any:
    """Return `value` with None in place of infinite and NaN numbers, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
