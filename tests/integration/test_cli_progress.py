"""The progress bar, and output to terminals, pipes and programs."""

from __future__ import annotations

import io
import json
import math
import threading

import pytest

from rddals import ALS
from rddals.cli.output import Output
from rddals.errors import SingularSystemError
from rddals.progress import ProgressBar
from rddals.training.events import HalfStepDone, TrainingDone


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")


def test_bar_of_a_training(sc, ratings):
    terminal, threads = Terminal(), set(threading.enumerate())
    bar = ProgressBar(3, terminal)
    ALS.train(sc.parallelize(ratings, 2), 2, 3, blocks=2, seed=0, listeners=(bar,))
    drawn = terminal.getvalue()
    assert set(threading.enumerate()) == threads
    assert "240 ratings" in drawn or f"{len(ratings)} ratings" in drawn
    assert "loss" in drawn and "━" * 24 in drawn
    assert drawn.endswith("\n") and drawn.count("\n") == 1
    assert "\x1b[?25l" not in drawn  # the cursor was never hidden


def test_bar_of_a_training_that_raises(sc):
    terminal, threads = Terminal(), set(threading.enumerate())
    bar = ProgressBar(3, terminal)
    with pytest.raises(SingularSystemError):
        ALS.train(sc.parallelize([(1, 1, 1.0)]), 2, 3, 0.0, seed=0, listeners=(bar,))
    bar.close()
    bar.close()
    assert set(threading.enumerate()) == threads
    assert terminal.getvalue().endswith("\n") and terminal.getvalue().count("\n") == 1


def test_bar_limits_its_redraws():
    terminal = Terminal()
    bar = ProgressBar(10_000, terminal)
    for iteration in range(1, 10_001):
        for side in ("products", "users"):
            bar(HalfStepDone(iteration, side, 1.0, 0.0, {}))
    assert terminal.getvalue().count("\r") < 200


def test_bar_stopped_early_is_full():
    terminal = Terminal()
    bar = ProgressBar(50, terminal)
    bar(TrainingDone(7, 12.5, 3.0))
    assert "7" in terminal.getvalue() and "━" * 24 in terminal.getvalue()
    assert terminal.getvalue().rstrip().endswith("converged")


def test_bar_fits_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal()
    ProgressBar(5, terminal)(HalfStepDone(1, "users", 1.0, 0.0, {}))
    last = terminal.getvalue().rpartition("\x1b[2K")[2]
    text = "".join(
        part.partition("m")[2] if i else part for i, part in enumerate(last.split("\x1b["))
    )
    assert len(text) < 20


def test_table_in_a_pipe_has_aligned_columns(capsys):
    Output().table(("who", "score"), [("a", "1.5"), ("bcde", "10.25")])
    assert capsys.readouterr().out == "who   score\na       1.5\nbcde  10.25\n"


def test_pipe_gets_one_line_per_iteration(capsys):
    output = Output()
    with output.busy("never shown"), output.progress(2) as listener:
        for iteration in (1, 2):
            for side in ("products", "users"):
                listener(HalfStepDone(iteration, side, 2000.0 / iteration, 0.5, {}))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["iteration", "1/2", "loss", "2,000.0", "1.00", "s"],
        ["iteration", "2/2", "loss", "1,000.0", "1.00", "s"],
    ]


def test_stdout_holds_only_json(capsys):
    output = Output(as_json=True)
    output.fact("about", "this")
    output.section("title", "text")
    output.result({"loss": math.inf, "list": [1.0, math.nan], "nested": {"x": (1, 2)}})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"loss": None, "list": [1.0, None], "nested": {"x": [1, 2]}}
    assert "about" in captured.err and "title" in captured.err


def test_terminal_output_has_colours(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    output = Output()
    assert output.terminal
    output.fact("ratings", "[bold] is no markup here")
    with output.busy("working"):
        pass
    assert "[bold] is no markup here" in terminal.getvalue()
    assert "\x1b[36m" in terminal.getvalue() and terminal.getvalue().endswith("\r\x1b[2K")
