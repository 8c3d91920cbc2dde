"""A progress bar for a training on a terminal; needs rich."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import Any, TextIO

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from rddals.training.events import HalfStepDone, LinksBuilt, TrainingDone

__all__ = ["ProgressBar", "amount"]

WIDTH = 24
#: Seconds between two drawings; half-steps can be shorter than that.
INTERVAL = 0.05


class ProgressBar:
    """A listener that draws how far a training is: iterations, loss, time to go.

    It draws when it is told something and at no other time, so there is no thread, and nothing
    to restore if the training raises; `close` ends the line then. Pass it to
    `rddals.ALS.train` as one of the listeners; on a terminal it is there by default.

    Parameters
    ----------
    iterations : int
        How many there will be at most.
    file : text stream, optional
        By default stderr.
    """

    def __init__(self, iterations: int, file: TextIO | None = None) -> None:
        self._iterations = iterations
        self._console = Console(file=file or sys.stderr, highlight=False)
        self._drawn = False
        self._drawn_at = 0.0
        self._started = perf_counter()

    def __call__(self, event: Any) -> None:
        """Draw what an event of the training changes."""
        if isinstance(event, LinksBuilt):
            self._started = perf_counter()
            self._draw(0, f"{event.ratings:,} ratings linked in {event.seconds:.1f} s")
        elif isinstance(event, HalfStepDone):
            now = perf_counter()
            if now - self._drawn_at >= INTERVAL:
                done = 2 * event.iteration - (event.side == "products")
                left = (now - self._started) / done * (2 * self._iterations - done)
                self._draw(done, f"loss {amount(event.loss)}  {_clock(left)} left")
        elif isinstance(event, TrainingDone):
            loss = "" if event.loss is None else f"loss {amount(event.loss)}  "
            stopped = event.iterations < self._iterations
            # Stopped early by its tolerance, a training is complete all the same.
            self._iterations = event.iterations
            converged = "  converged" if stopped else ""
            self._draw(2 * event.iterations, f"{loss}{_clock(event.seconds)}{converged}")
            self.close()

    def close(self) -> None:
        """End the line that the bar is on; does nothing the second time."""
        if self._drawn:
            self._console.print()
            self._drawn = False

    def _draw(self, half_steps: int, text: str) -> None:
        total = max(2 * self._iterations, 1)
        filled = WIDTH * half_steps // total if self._iterations else WIDTH
        full, rest = ("━", "╺") if self._console.encoding.startswith("utf") else ("#", "-")
        line = Text.assemble(
            "iteration ",
            (f"{(half_steps + 1) // 2:>{len(str(self._iterations))}}", "bold"),
            f"/{self._iterations} ",
            (full * filled, "cyan"),
            (rest * (WIDTH - filled), "dim"),
            "  ",
            text,
        )
        line.truncate(max(self._console.width - 1, 1))
        self._console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
        self._console.print(line, end="", soft_wrap=True)
        self._console.file.flush()
        self._drawn = True
        self._drawn_at = perf_counter()


def amount(loss: float) -> str:
    """A loss, with as many places as tell two iterations apart."""
    return f"{loss:,.1f}" if loss >= 1000 else f"{loss:.6g}"


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
