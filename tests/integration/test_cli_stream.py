"""The command stream: what it learns, prints, keeps and refuses, and how it ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from cli_runs import failed, run_here, succeeded
from rddals import MatrixFactorizationModel, Rating, StreamingALS
from rddals.sources.paths import path_of
from rddals.streaming.file_source import FileSourceLog

RDDALS = str(Path(sys.executable).with_name("rddals"))
OPTIONS = ("--rank", "3", "--seed", "5", "--blocks", "2")
#: Says whether somebody else holds a lock.
LOCKED = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("held")
"""
ONE_BY_ONE = ("--once", "--files-per-batch", "1")


@pytest.fixture
def rddals(sc, capsys):
    """Run a command here, on the running Spark."""
    return partial(run_here, capsys)


@pytest.fixture(scope="module")
def batches(ratings):
    return [ratings[:90], ratings[90:100], ratings[100:]]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "model"


def as_lines(batch):
    return "".join(f"{user},{product},{stars}\n" for user, product, stars in batch)


def put(folder, number, text):
    """A file that comes whole, and later than those before."""
    fresh = folder.parent / "fresh"
    fresh.write_text(text)
    when = 1_000_000 + int(str(number).split()[0])
    os.utime(fresh, (when, when))
    fresh.rename(folder / f"{number}.csv")


def put_all(folder, batches):
    for number, batch in enumerate(batches):
        put(folder, number, as_lines(batch))


def factors(model):
    sides = model.userFeatures(), model.productFeatures()
    return [{id_: tuple(row) for id_, row in side.collect()} for side in sides]


@pytest.fixture(scope="module")
def wanted(_spark, batches):
    """The factors after every batch."""
    als, after = StreamingALS(rank=3, seed=5, blocks=2), []
    for batch in batches:
        als.train(_spark.parallelize([Rating(*rating) for rating in batch], 2))
        matrix = als.model.toMatrixFactorizationModel()
        after.append(factors(matrix))
        matrix.unpersist()
    return after


def learned_at(sc, out):
    return factors(MatrixFactorizationModel.load(sc, str(out)))


def lines_of_batches(said):
    """Of every batch its number, ratings, new users and products, and the error."""
    counts = r"(\d+) ratings, (?:\d+ skipped, )?(\d+) new users, (\d+) new products"
    lines = re.findall(rf"^batch (\d+) +{counts}, (.*), \d+\.\d\d s$", said, re.MULTILINE)
    return [(*map(int, line[:4]), line[4]) for line in lines]


@contextlib.contextmanager
def running(command):
    """A process of its own; one that takes longer than two minutes is killed."""
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        too_long = threading.Timer(120, process.kill)
        too_long.start()
        try:
            yield process
        finally:
            too_long.cancel()


def test_all_that_is_there_is_learned_once_and_the_stream_goes_on(
    rddals, sc, folder, out, batches, wanted
):
    put_all(folder, batches[:2])
    said = succeeded(rddals("stream", folder, "--out", out, *ONE_BY_ONE, *OPTIONS))
    first, second = lines_of_batches(said)
    users, products = ({rating[side] for rating in batches[0]} for side in (0, 1))
    assert first == (1, 90, len(users), len(products), "not predicted")
    assert second[:4] == (
        2,
        10,
        len({rating[0] for rating in batches[1]} - users),
        len({rating[1] for rating in batches[1]} - products),
    )
    assert re.fullmatch(r"RMSE before \d\.\d{4}", second[4])
    assert learned_at(sc, out) == wanted[1]
    (best,) = json.loads(
        succeeded(rddals("recommend", out, "--user", "7", "--num", "1", "--json"))
    )["recommendations"]
    assert best["prediction"] > 2

    put(folder, 2, as_lines(batches[2]))
    said = succeeded(rddals("stream", folder, "--out", out, "--once", *OPTIONS, "--json"))
    document = json.loads(said)
    assert document["batches"] == 3
    assert document["learned"] == {"batches": 1, "ratings": len(batches[2]), "skipped": 0}
    assert document["ratings"] == sum(map(len, batches))
    page = (Path(__file__).parents[2] / "docs/reference/command-line.md").read_text()
    (told,) = re.findall(r"^\| `stream` \| (`.*) \|$", page, re.MULTILINE)
    assert all(f"`{name}`" in told for name in (*document, *document["learned"]))
    assert learned_at(sc, out) == wanted[2]
    assert {path.name for path in (out / "stream").iterdir()} == {"files", "lock", "state"}


def test_a_signal_ends_it_after_the_batch(rddals, sc, monkeypatch, folder, out, batches, wanted):
    put_all(folder, batches)
    update = StreamingALS.updateBatch

    def signalled(als, frame, number):
        os.kill(os.getpid(), signal.SIGTERM)
        update(als, frame, number)

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(StreamingALS, "updateBatch", signalled)
    said = succeeded(
        rddals("stream", folder, "--out", out, "--files-per-batch", 1, "--every", 0.1, *OPTIONS)
    )
    monkeypatch.undo()
    assert [line[0] for line in lines_of_batches(said)] == [1]
    assert learned_at(sc, out) == wanted[0]
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_files_that_a_kill_put_together_are_learned_apart(rddals, sc, folder, out, batches, wanted):
    once = ("stream", folder, "--out", out, *ONE_BY_ONE, *OPTIONS)
    put_all(folder, batches[:2])
    succeeded(rddals(*once))

    # As if it had been killed when it had found the second file, and not begun its batch.
    shutil.rmtree(out / "stream/state")
    settings = {"rank": 3, "seed": 5, "blocks": 2}
    als = StreamingALS(**settings, checkpointLocation=str(out / "stream/state"))
    als.updateBatch(sc.parallelize(batches[0]), 0)
    for log in ("offsets", "commits"):
        for path in (out / "stream/files" / log).glob("*1*"):
            path.unlink()
    (folder / "1.csv").write_text(as_lines(batches[1]) + "7,8,nan\n")
    put(folder, 2, as_lines(batches[2]))
    assert f"{folder}/1.csv, line 11" in failed(2, rddals(*once))
    (folder / "1.csv").write_text(as_lines(batches[1]))
    os.utime(folder / "1.csv", (1_000_001, 1_000_001))
    lines = lines_of_batches(succeeded(rddals(*once)))
    assert [line[:2] for line in lines] == [(2, len(batches[1])), (3, len(batches[2]))]
    assert learned_at(sc, out) == wanted[2]


@pytest.mark.long
def test_files_are_learned_as_they_come(rddals, sc, folder, out, batches, wanted):
    (folder / "of today").mkdir()

    def saved(number):
        states = (out / "stream/state/states").glob("*.json")
        return any(json.loads(path.read_text())["batches"] == number for path in states)

    ended = threading.Event()

    def feed():
        for number, batch in enumerate(batches):
            put(folder / "of today", number, as_lines(batch))
            while not ended.is_set():
                with contextlib.suppress(FileNotFoundError):
                    if saved(number + 1):
                        break
                time.sleep(0.05)
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        said = succeeded(rddals("stream", folder, "--out", out, "--every", 0.1, *OPTIONS))
    finally:
        ended.set()
        feeder.join()
    assert [line[1] for line in lines_of_batches(said)] == [len(batch) for batch in batches]
    assert learned_at(sc, out) == wanted[2]


def test_nothing_to_learn_from(rddals, folder, out):
    (folder / "empty.csv").touch()
    (folder / ".being-written").write_text("1,2")
    document = json.loads(succeeded(rddals("stream", folder, "--out", out, "--once", "--json")))
    assert document["model"] is None
    assert document["ratings"] == 0
    assert not (out / "metadata").exists()
    put(folder, 1, "user,item,rating\n")
    assert "there was no rating" in succeeded(rddals("stream", folder, "--out", out, "--once"))
    put(folder, 2, "user,item,rating\n1,2,3\n")
    said = succeeded(rddals("stream", folder, "--out", out, "--once"))
    assert [line[1] for line in lines_of_batches(said)] == [1]


@pytest.mark.long
def test_a_bad_line_is_named_and_the_stream_goes_on_once_it_is_mended(
    rddals, sc, folder, out, batches, wanted
):
    put_all(folder, batches)
    good = as_lines(batches[1])
    (folder / "1.csv").write_text(good.replace("\n", "\n7,8,nan\n", 1))
    os.utime(folder / "1.csv", (1_000_001, 1_000_001))
    line = failed(2, rddals("stream", folder, "--out", out, *ONE_BY_ONE, *OPTIONS))
    assert f"{folder}/1.csv, line 2: rating 'nan'" in line
    assert not (out / "metadata").exists()

    (folder / "1.csv").write_text(good)
    os.utime(folder / "1.csv", (1_000_001, 1_000_001))
    succeeded(rddals("stream", folder, "--out", out, *ONE_BY_ONE, *OPTIONS))
    assert learned_at(sc, out) == wanted[2]


def test_bad_lines_can_be_skipped_and_are_counted(rddals, folder, out):
    put(folder, 0, "1,2,nan\n1,2,inf\n")
    options = ("--out", out, "--once", "--bad-ratings", "skip", "--json")
    document = json.loads(succeeded(rddals("stream", folder, *options)))
    assert document["model"] is None
    assert document["learned"] == {"batches": 1, "ratings": 0, "skipped": 2}
    put(folder, 1, "1,2,3\nx,2,3\n1,,3\n1,2,nan\n1,2\n3000000000,2,3\n2,2,4\n")
    document = json.loads(succeeded(rddals("stream", folder, *options)))
    assert document["learned"] == {"batches": 1, "ratings": 2, "skipped": 5}


def test_files_of_a_batch_that_differ_are_named(rddals, folder, out):
    put(folder, 0, "user,item,rating\n1,2,3\n")
    put(folder, 1, "\n\n")
    for number, text in ((2, "item,user,rating\n2,2,4\n"), (2, "3,2,4\n"), (2, "1;2;3\n")):
        put(folder, number, text)
        line = failed(2, rddals("stream", folder, "--out", out, "--once", "--bad-ratings", "skip"))
        assert f"{folder}/2.csv is " in line and f"{folder}/0.csv is " in line
    put(folder, 2, "user,item,rating\n2,2,4\n")
    (line,) = lines_of_batches(succeeded(rddals("stream", folder, "--out", out, "--once")))
    assert line[1] == 2


def test_one_process_at_a_time(rddals, sc, folder, out, monkeypatch):
    put(folder, 0, "1,2,3\n")
    update = StreamingALS.updateBatch

    def meanwhile(als, frame, number):
        done = subprocess.run(
            [sys.executable, "-c", LOCKED, str(out / "stream/lock")], capture_output=True, text=True
        )
        assert done.stdout == "held\n"
        update(als, frame, number)

    monkeypatch.setattr(StreamingALS, "updateBatch", meanwhile)
    succeeded(rddals("stream", folder, "--out", out, "--once"))
    with (out / "stream/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = failed(2, rddals("stream", folder, "--out", out, "--once"))
    assert "another process keeps its stream there" in line


def test_no_training_overwrites_a_stream(rddals, folder, out):
    put(folder, 0, "1,2,3\n")
    succeeded(rddals("stream", folder, "--out", out, "--once"))
    options = ("--out", out, "--overwrite")
    assert "keeps a stream" in failed(2, rddals("train", folder / "0.csv", *options))
    assert (out / "stream/state").exists()


def test_parquet_and_names_with_signs_of_patterns(rddals, sc, tmp_path, out, batches, wanted):
    folder = tmp_path / "in [2016], {a} b*"
    folder.mkdir()
    users, products, stars = zip(*batches[0], strict=True)
    table = pyarrow.table({"stars": stars, "uid": users, "movie": products})
    pyarrow.parquet.write_table(table, folder / "ratings [1]?.txt")
    columns = ("--columns", "uid,movie,stars", "--format", "parquet")
    succeeded(rddals("stream", folder, "--out", out, "--once", *columns, *OPTIONS))
    assert learned_at(sc, out) == wanted[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--every", "0"), "--every is 0.001 to 604,800 seconds"),
        (("--every", "inf"), "--every is 0.001 to 604,800 seconds"),
        (("--blocks", "0"), "--blocks is -1 or positive"),
        (("--update", "als", "--gamma", "0.1"), "gamma=0.1 has no part in update='als'"),
        (("--gamma", "-1"), "gamma"),
        (("--out", ""), "--out is empty"),
        (("--out", "in/model"), "is inside"),
        (("--out", "in"), "is inside"),
        (("--out", "other"), "no stream was kept there"),
        (("--out", "a,b"), "has a , in it"),
        (("--format", "parquet"), "0.csv cannot be read"),
        (("--columns", "user,item,rating"), "the first line is no header"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_named(rddals, tmp_path, folder, options, says):
    put(folder, 0, "1,2,3\n")
    (tmp_path / "other").mkdir()
    name, *values = options
    if name == "--out" and values[0]:
        options = (name, str(tmp_path / values[0]))
    defaults = () if name == "--out" else ("--out", tmp_path / "model")
    assert says in failed(2, rddals("stream", folder, "--once", *defaults, *options))


def test_a_folder_that_is_none_is_named(rddals, folder, out):
    put(folder, 0, "1,2,3\n")
    for wrong in (folder / "nowhere", folder / "0.csv"):
        said = failed(2, rddals("stream", wrong, "--out", out, "--once"))
        assert f"{wrong}: there is no such directory" in said
    assert not out.exists()


def test_a_stream_of_which_a_part_is_gone_is_refused(rddals, sc, folder, out):
    put(folder, 0, "1,2,3\n")
    once = ("stream", folder, "--out", out, "--once")
    succeeded(rddals(*once))
    model = learned_at(sc, out)
    put(folder, 1, "1,2,4\n")
    for part, says in {
        "stream/state": "stream/state, which holds what was learned, is gone",
        "stream/files": "stream/files, which tells what files were learned, is gone",
        "stream/files/sources": "files/sources/0/0, which tells what files were found, cannot be",
        "stream/files/offsets": "stream/files, which tells what files were learned, is gone",
        "stream": "no stream was kept there",
    }.items():
        (out / part).rename(out.parent / "elsewhere")
        assert says in failed(2, rddals(*once))
        assert learned_at(sc, out) == model
        shutil.rmtree(out / part, ignore_errors=True)  # empty folders that it has made
        (out.parent / "elsewhere").rename(out / part)
    assert [line[:2] for line in lines_of_batches(succeeded(rddals(*once)))] == [(2, 1)]


@pytest.mark.long
def test_a_file_that_is_gone_before_it_was_learned_is_asked_for(
    rddals, sc, folder, out, batches, wanted
):
    once = ("stream", folder, "--out", out, *ONE_BY_ONE, *OPTIONS)
    put_all(folder, batches)
    put(folder, 1, "x,y,z\n7,8,9\n")
    assert f"{folder}/1.csv" in failed(2, rddals(*once))
    (folder / "1.csv").unlink()
    for _ in range(2):
        line = failed(2, rddals(*once))
        assert f"{folder}/1.csv was found and is gone" in line
    put(folder, 1, as_lines(batches[1]))
    succeeded(rddals(*once))
    assert learned_at(sc, out) == wanted[2]


def test_a_stream_keeps_to_its_folder(rddals, folder, out):
    put(folder, 0, "1,2,3\n")
    succeeded(rddals("stream", folder, "--out", out, "--once"))
    other = folder.with_name("other")
    other.symlink_to(folder)
    line = failed(2, rddals("stream", other, "--out", out, "--once"))
    assert f"has read {folder}/0.csv, which is not in it" in line
    succeeded(rddals("stream", f"{folder.parent}/./in/", "--out", out, "--once"))


def test_a_name_with_a_colon_is_told_of(rddals, folder, out):
    (folder / "10:00.csv").write_text("1,2,3\n")
    line = failed(2, rddals("stream", folder, "--out", out, "--once"))
    assert f"{folder}/10:00.csv cannot be read" in line and "rename it" in line


@pytest.mark.long
def test_what_was_found_is_told_from_the_logs_of_a_long_stream(rddals, spark, folder, out):
    files = []
    for number in range(12):
        put(folder, f"{number:02} [a] 100%", f"{number},2,3\n")
        files.append(f"file:{folder}/{number:02} [a] 100%.csv")
    succeeded(rddals("stream", folder, "--out", out, *ONE_BY_ONE, *OPTIONS))
    logs = out / "stream/files/sources/0"
    for number in range(9):  # as Spark deletes them in time: 9.compact has them all
        (logs / f"{number}").unlink()
    found = FileSourceLog(spark.sparkContext, str(out / "stream/files"))
    assert found.last_batch == 11
    for number, file in enumerate(files):
        ((url,),) = found.of_batch(number)
        assert path_of(spark, url) == file


def test_settings_stay_those_it_was_begun_with(rddals, folder, out):
    put(folder, 0, "1,2,3\n")
    succeeded(rddals("stream", folder, "--out", out, "--once"))
    said = failed(2, rddals("stream", folder, "--out", out, "--once", "--rank", "7"))
    assert "was begun with rank=10" in said


@pytest.mark.long
def test_java_may_be_killed(sc, folder, out, batches, wanted):
    put_all(folder, batches)
    command = [RDDALS, "stream", folder, "--out", out, *ONE_BY_ONE, *OPTIONS]
    with running(command) as process:
        for line in process.stdout:
            if line.startswith("batch 1 "):
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
                for child in children.read_text().split():
                    os.kill(int(child), signal.SIGKILL)
        assert process.wait() == 1
        assert process.stderr.read().splitlines()[-1].startswith("rddals: error: Java has ended")
    assert subprocess.run(list(map(str, command))).returncode == 0
    assert learned_at(sc, out) == wanted[2]


@pytest.mark.long
def test_a_process_saves_when_it_is_told_to_end(sc, folder, out, batches, wanted):
    put_all(folder, batches[:1])
    command = [RDDALS, "stream", folder, "--out", out, *OPTIONS]
    with running(command) as process:
        for line in process.stdout:
            if line.startswith("batch 1 "):
                put(folder, 1, as_lines(batches[1]))
            if line.startswith("batch 2 "):
                process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
        assert not process.stderr.read()
    assert learned_at(sc, out) == wanted[1]

    put(folder, 2, as_lines(batches[2]))
    assert subprocess.run([*map(str, command), "--once"]).returncode == 0
    assert learned_at(sc, out) == wanted[2]
