"""A stream program that is killed at random moments."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import rddals
from stream_files import mean_of, write_batches

SUPPORT = Path(__file__).parents[1] / "support"


class Program:
    """A run of `stream_program.py` in its own session."""

    def __init__(self, folder, source, checkpoints, update):
        self.out, self.err = folder / "out.txt", folder / "err.txt"
        self.output = folder / "learned.json"
        options = f"{os.environ['SPARK_SUBMIT_OPTS']} -Djava.io.tmpdir={folder}"
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(rddals.__file__).parents[1]),
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_SUBMIT_OPTS": options,
            "SPARK_LOCAL_DIRS": str(folder),
            "SPARK_LOCAL_IP": "127.0.0.1",
        }
        program = [sys.executable, SUPPORT / "stream_program.py"]
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [*map(str, (*program, source, checkpoints, self.output)), update],
                cwd=folder,
                env=environment,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def lines(self):
        """Return the whole lines that the program has printed."""
        text = self.out.read_text()
        return text[: text.rfind("\n") + 1].splitlines()

    def ended(self):
        return self.process.poll() is not None

    def wait_for(self, condition):
        """Poll until the condition holds or the program has ended."""
        deadline = time.monotonic() + 120
        while not condition() and not self.ended():
            assert time.monotonic() < deadline, self.err.read_text()
            time.sleep(0.002)

    def kill(self):
        """Kill the program and its JVM; return False if it had ended."""
        if self.ended() or self.lines()[-1:] == ["done"]:
            return False
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return True

    def learned(self):
        """Wait for the end and return the learned model."""
        assert self.process.wait(240) == 0, self.err.read_text()
        return json.loads(self.output.read_text())


def saved_state(checkpoints):
    """Return the newest state of a checkpoint, or None."""
    states = (checkpoints / "als/states").glob("*.json")
    newest = max(states, key=lambda path: int(path.stem), default=None)
    return newest and json.loads(newest.read_text())


def unnamed_levels(checkpoints):
    """Return the folders of levels that the newest state does not name."""
    try:
        state = saved_state(checkpoints)
        folders = {path.name for path in (checkpoints / "als/levels").glob("*")}
    except FileNotFoundError:  # replaced by a newer state meanwhile
        return set()
    levels = state["levels"].values() if state else ()
    return folders - {name for part in levels for name, _ in part}


def interrupted_phase(checkpoints):
    """Return the phase in which a program was killed, from its files."""
    begun, committed = (
        max((int(path.name) for path in folder.glob("[0-9]*")), default=-1)
        for folder in (checkpoints / "query/offsets", checkpoints / "query/commits")
    )
    state = saved_state(checkpoints)
    saved = state["batchId"] if state else -1
    beginning = any((checkpoints / "als/states").glob("*.beginning"))
    if begun == committed:
        return f"after batch {committed}"
    if saved == begun:
        tidied = not unnamed_levels(checkpoints)
        return f"in batch {begun}, {'saved' if tidied else 'tidying'}"
    saving = beginning or unnamed_levels(checkpoints)
    return f"in batch {begun}, {'saving' if saving else 'learning'}"


def line_times(run, lines):
    """Return the times at which a program printed its first lines."""
    times = []
    for line in range(1, lines + 1):
        run.wait_for(lambda line=line: len(run.lines()) >= line)
        times.append(time.monotonic())
    return times


def kill_at_random(run, rng, checkpoints, durations):
    """Kill a program in its first three batches; return False if it had ended."""
    batches, in_save, moment = rng.choice((0, 0, 0, 1, 1, 2)), rng.random() < 0.35, rng.random()
    times = line_times(run, batches + 1)
    for batch, (begin, end) in enumerate(pairwise(times)):
        durations[batch] = end - begin
    if in_save:
        before = unnamed_levels(checkpoints)
        run.wait_for(lambda: unnamed_levels(checkpoints) - before)
        moment /= 4
    end = time.monotonic() + moment * durations[batches]
    # On a machine that became faster the program would run out of files.
    run.wait_for(lambda: time.monotonic() > end or len(run.lines()) > batches + 1)
    return run.kill()


@pytest.mark.long
@pytest.mark.parametrize(("update", "files", "kills"), [("sgd", 36, 20), ("als", 14, 6)])
def test_killed_program_learns_every_rating_once(tmp_path, tmp_path_factory, update, files, kills):
    numbers = np.random.default_rng(5)
    batches = []
    for number in range(files):
        users = numbers.integers(0, 10 + 2 * number, 30).tolist()
        products = numbers.integers(0, 20 + number, 30).tolist()
        stars = (numbers.integers(1, 51, 30) / 10).tolist()
        batches.append(list(zip(users, products, stars, strict=True)))
    source = write_batches(tmp_path / "source", batches)
    local = tmp_path_factory.mktemp("stream")  # a short path, as it holds Unix sockets
    whole = Program(local, source, tmp_path / "whole checkpoints", update)
    durations = [end - begin for begin, end in pairwise(line_times(whole, 4))]
    expected = whole.learned()
    assert expected["ratings"] == 30 * files
    assert expected["batches"] == files

    rng, checkpoints = random.Random(7), tmp_path / "checkpoints"
    phases, merged, result = [], 0, None
    while result is None:
        run = Program(local, source, checkpoints, update)
        try:
            if len(phases) < kills and kill_at_random(run, rng, checkpoints, durations):
                phases.append(interrupted_phase(checkpoints))
            else:
                result = run.learned()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.process.pid, signal.SIGKILL)
            run.process.wait()
            merged += run.err.read_text().count("merged ")
            for path in local.iterdir():
                shutil.rmtree(path, ignore_errors=True)
    print(f"{len(phases)} kills of update={update!r}: {'; '.join(phases)}")
    print(f"files of two batches merged by Spark: {merged} times")
    assert len(phases) == kills, "all files were learned before"
    assert result == expected
    assert result["mean"] == mean_of(batches).hex()
    if update == "als":
        ratings = sorted([u, p, float(np.float32(r))] for batch in batches for u, p, r in batch)
        assert result["history"] == [ratings, ratings]
    assert not unnamed_levels(checkpoints)
    assert len([*(checkpoints / "als/states").glob("[!.]*")]) == 1
