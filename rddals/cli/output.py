"""What a command tells: drawn on a terminal, plain lines in a pipe, one JSON document on demand.

With ``--json`` the document is all there is on stdout, and what people read goes to stderr.
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

__all__ = ["Output"]

#: Width of the column of labels.
LABEL = 15


class Output:
    """Where a command writes.

    Parameters
    ----------
    as_json : bool

    Attributes
    ----------
    terminal : bool
        Whether people's part of the output goes to a terminal.
    """

    def __init__(self, as_json: bool = False) -> None:
        self._as_json = as_json
        self._stream = sys.stderr if as_json else sys.stdout
        self._console = Console(file=self._stream, highlight=False)
        self._busy = False
        self.terminal = self._console.is_terminal and not self._console.is_dumb_terminal

    def fact(self, label: str, text: str) -> None:
        """A line: what it is about, then what there is to say."""
        self._clear()
        if self.terminal:
            grid = Table.grid(padding=(0, 2, 0, 0))
            grid.add_column(width=LABEL - 2, style="cyan")
            grid.add_row(label, Text(text))
            self._console.print(grid)
        else:
            self._print(f"{label:{LABEL}}{text}")

    def section(self, title: str, about: str) -> None:
        """A heading, and a sentence on what follows."""
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
        """A table, of plain columns in a pipe.

        Parameters
        ----------
        headings : sequence of str
        rows : sequence of sequences of str
        left : collection of int
            The columns that are set left; the others are set right.
        style : mapping of int to str, optional
            How columns look on a terminal.
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
    def busy(self, doing: str) -> Iterator[None]:
        """Say what is going on, on a terminal and for as long as it lasts."""
        self._say(doing)
        try:
            yield
        finally:
            self._clear()

    @contextmanager
    def progress(self, iterations: int) -> Iterator[Listener]:
        """A listener to train with: a bar on a terminal, else a line for every iteration."""
        if self.terminal and sys.stderr.isatty():
            bar = ProgressBar(iterations)
            self._say("reading the ratings")
            try:
                yield bar
            finally:
                self._clear()
                bar.close()
        else:
            yield _Lines(iterations, self._print)

    @contextmanager
    def steps(self, total: int) -> Iterator[Callable[[str], None]]:
        """What tells of one of so many steps: a line each, and on a terminal a bar below."""
        if not self.terminal:
            count = 0

            def tell(text: str) -> None:
                nonlocal count
                count += 1
                self.fact(f"{count}/{total}", text)

            yield tell
            return
        # Drawn when a step is done: see _say for why there is no thread.
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
        """A sentence."""
        self._clear()
        if self.terminal:
            self._console.print(Text(f"- {text}"))
        else:
            self._print(f"- {text}")

    def result(self, document: dict[str, Any]) -> None:
        """The whole result, for machines; nothing unless they asked for it."""
        if self._as_json:
            _write(sys.stdout, json.dumps(_finite(document), indent=2))

    def _say(self, doing: str) -> None:
        # No spinner: its thread would write while Spark starts, when stdout is elsewhere.
        if self.terminal:
            self._stream.write(f"\x1b[2m{doing} ...\x1b[0m")
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
    """Print at once, since a log in a pipe is read while it grows; go silent if nobody reads on.

    Whoever reads our output may have seen enough, but the work was asked for.
    """
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Lines:
    """A listener that writes a line for every iteration."""

    def __init__(self, iterations: int, write: Any) -> None:
        self._iterations = iterations
        self._write = write
        self._seconds = 0.0

    def __call__(self, event: Any) -> None:
        if not isinstance(event, HalfStepDone):
            return
        self._seconds += event.seconds
        if event.side == "users":
            label = f"{event.iteration}/{self._iterations}"
            self._write(
                f"{'iteration':{LABEL}}{label:8}loss {amount(event.loss):14}{self._seconds:.2f} s"
            )
            self._seconds = 0.0


def _finite(value: Any) -> Any:
    """`value` with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
