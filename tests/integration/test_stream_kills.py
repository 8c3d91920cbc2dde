"""A program that learns a stream and is killed at random moments, again and again."""

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

TESTS = Path(__file__).parents[1]


class Program:
    """One run of `stream_program.py`, in a session of its own."""

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
        program = [sys.executable, TESTS / "stream_program.py"]
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
        """What it has printed so far, of whole lines."""
        text = self.out.read_text()
        return text[: text.rfind("\n") + 1].splitlines()

    def ended(self):
        return self.process.poll() is not None

    def wait_for(self, condition):
        """Poll until that holds, or the program has ended."""
        deadline = time.monotonic() + 120
        while not condition() and not self.ended():
            assert time.monotonic() < deadline, self.err.read_text()
            time.sleep(0.002)

    def kill(self):
        """Kill it and its JVM; False if it had ended."""
        if self.ended() or self.lines()[-1:] == ["done"]:
            return False
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return True

    def learned(self):
        """What it has learned in the end."""
        assert self.process.wait(240) == 0, self.err.read_text()
        return json.loads(self.output.read_text())


def saved_state(checkpoints):
    """The newest state of a checkpoint; None if there is none."""
    states = (checkpoints / "als/states").glob("*.json")
    newest = max(states, key=lambda path: int(path.stem), default=None)
    return newest and json.loads(newest.read_text())


def unnamed_levels(checkpoints):
    """Folders of levels that the newest state does not name."""
    try:
        state = saved_state(checkpoints)
        folders = {path.name for path in (checkpoints / "als/levels").glob("*")}
    except FileNotFoundError:  # it was the newest a moment ago
        return set()
    levels = state["levels"].values() if state else ()
    return folders - {name for part in levels for name, _ in part}


def where_it_was(checkpoints):
    """What a killed program was about, told from what it left."""
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


def times_of_lines(run, lines):
    """When a program had printed its first line, its second line, and so on."""
    times = []
    for line in range(1, lines + 1):
        run.wait_for(lambda line=line: len(run.lines()) >= line)
        times.append(time.monotonic())
    return times


def kill_at_random(run, rng, checkpoints, typical):
    """Kill a program somewhere in its first three batches; False if it had ended."""
    batches, in_save, moment = rng.choice((0, 0, 0, 1, 1, 2)), rng.random() < 0.35, rng.random()
    times = times_of_lines(run, batches + 1)
    for batch, (begin, end) in enumerate(pairwise(times)):
        typical[batch] = end - begin
    if in_save:
        before = unnamed_levels(checkpoints)
        run.wait_for(lambda: unnamed_levels(checkpoints) - before)
        moment /= 4
    end = time.monotonic() + moment * typical[batches]
    # A machine that is faster now than it was would get further than there are files for.
    run.wait_for(lambda: time.monotonic() > end or len(run.lines()) > batches + 1)
    return run.kill()


@pytest.mark.long
@pytest.mark.parametrize(("update", "files", "kills"), [("sgd", 36, 20), ("als", 14, 6)])
def test_a_program_that_is_killed_loses_nothing_and_counts_nothing_twice(
    tmp_path, tmp_path_factory, update, files, kills
):
    numbers = np.random.default_rng(5)
    batches = []
    for number in range(files):
        users = numbers.integers(0, 10 + 2 * number, 30).tolist()
        products = numbers.integers(0, 20 + number, 30).tolist()
        stars = (numbers.integers(1, 51, 30) / 10).tolist()
        batches.append(list(zip(users, products, stars, strict=True)))
    source = write_batches(tmp_path / "source", batches)
    local = tmp_path_factory.mktemp("stream")  # not deeper: there are Unix sockets in it
    whole = Program(local, source, tmp_path / "whole checkpoints", update)
    typical = [end - begin for begin, end in pairwise(times_of_lines(whole, 4))]
    wanted = whole.learned()
    assert wanted["ratings"] == 30 * files
    assert wanted["batches"] == files

    rng, checkpoints = random.Random(7), tmp_path / "checkpoints"
    hits, together, found = [], 0, None
    while found is None:
        run = Program(local, source, checkpoints, update)
        try:
            if len(hits) < kills and kill_at_random(run, rng, checkpoints, typical):
                hits.append(where_it_was(checkpoints))
            else:
                found = run.learned()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.process.pid, signal.SIGKILL)
            run.process.wait()
            together += run.err.read_text().count("together ")
            for left in local.iterdir():
                shutil.rmtree(left, ignore_errors=True)
    print(f"{len(hits)} kills of update={update!r}: {'; '.join(hits)}")
    print(f"files of two batches that came together: {together} times")
    assert len(hits) == kills, "all files were learned before"
    assert found == wanted
    assert found["mean"] == mean_of(batches).hex()
    if update == "als":
        ratings = sorted([u, p, float(np.float32(r))] for batch in batches for u, p, r in batch)
        assert found["history"] == [ratings, ratings]
    assert not unnamed_levels(checkpoints)
    assert len([*(checkpoints / "als/states").glob("[!.]*")]) == 1
