"""Progress bar for training on a terminal. Requires rich."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import Any, TextIO

from rich.console import Console
from rich.control import Control
from rich.progress import BarColumn, Progress, TextColumn
from rich.segment import ControlType, Segments

from rddals.training.events import HalfStepDone, LinksBuilt, TrainingDone

__all__ = ["ProgressBar", "amount"]

WIDTH = 24
#: Minimum number of seconds between two updates: half-steps can be shorter.
INTERVAL = 0.05


class ProgressBar:
    """Training listener that draws the iteration, the loss and the remaining time.

    The bar is redrawn only when an event arrives, so it needs no thread. If the training raises,
    call `close` to end the line. `rddals.ALS.train` uses it by default on a terminal; elsewhere,
    pass it in `listeners`.

    Parameters
    ----------
    iterations : int
        Maximum number of iterations.
    file : text stream, optional
        Stream to draw on. The default is stderr.
    """

    def __init__(self, iterations: int, file: TextIO | None = None) -> None:
        self._iterations = iterations
        self._console = Console(file=file or sys.stderr, highlight=False)
        self._drawn = False
        self._drawn_at = 0.0
        self._started = perf_counter()

    def __call__(self, event: Any) -> None:
        """Redraw the bar for an event of the training."""
        if isinstance(event, LinksBuilt):
            self._started = perf_counter()
            self._draw(0, f"{event.ratings:,} ratings linked in {event.seconds:.1f} s")
        elif isinstance(event, HalfStepDone):
            now = perf_counter()
            if now - self._drawn_at >= INTERVAL:
                done = 2 * event.iteration - (event.side == "products")
                remaining = (now - self._started) / done * (2 * self._iterations - done)
                self._draw(done, f"loss {amount(event.loss)}  {_clock(remaining)} left")
        elif isinstance(event, TrainingDone):
            loss = "" if event.loss is None else f"loss {amount(event.loss)}  "
            stopped = event.iterations < self._iterations
            # A training that converged early is complete, so the bar is full.
            self._iterations = event.iterations
            converged = "  converged" if stopped else ""
            self._draw(2 * event.iterations, f"{loss}{_clock(event.seconds)}{converged}")
            self.close()

    def close(self) -> None:
        """End the line of the bar. Further calls do nothing."""
        if self._drawn:
            self._console.print()
            self._drawn = False

    def _draw(self, half_steps: int, text: str) -> None:
        done, total = (half_steps + 1) // 2, self._iterations
        count = f"iteration [bold]{done:>{len(str(total))}}[/]/{total}"
        columns = TextColumn(count), BarColumn(WIDTH, complete_style="cyan"), TextColumn(text)
        # Rendered without `Progress.start`, which hides the cursor and redirects stdout.
        progress = Progress(*columns, console=self._console, auto_refresh=False)
        progress.add_task("", total=2 * total or 1, completed=half_steps if total else 1)
        options = self._console.options.update_width(max(self._console.width - 1, 1))
        line, *_ = self._console.render_lines(progress, options, pad=False)
        self._console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
        self._console.print(Segments(line), end="")
        self._console.file.flush()
        self._drawn = True
        self._drawn_at = perf_counter()


def amount(loss: float) -> str:
    """Format a loss with enough digits to distinguish two iterations."""
    return f"{loss:,.1f}" if loss >= 1000 else f"{loss:.6g}"


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
