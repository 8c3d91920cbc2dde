"""The stream command: learning, output, saved state, errors and exits."""

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

from cli_runs import error_of, run_in_process, stdout_of
from rddals import MatrixFactorizationModel, Rating, StreamingALS
from rddals.cli import streams
from rddals.cli.files import check_stream

RDDALS = str(Path(sys.executable).with_name("rddals"))
OPTIONS = ("--rank", "3", "--seed", "5", "--blocks", "2")
#: Prints "held" if another process holds a lock.
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
    """Function that runs a command in this process, on the running Spark."""
    return partial(run_in_process, capsys)


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
    """Write a file that appears whole and is newer than the previous ones."""
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
def expected_factors(_spark, batches):
    """The factors after every batch."""
    als, after = StreamingALS(rank=3, seed=5, blocks=2), []
    for batch in batches:
        als.train(_spark.parallelize([Rating(*rating) for rating in batch], 2))
        matrix = als.model.toMatrixFactorizationModel()
        after.append(factors(matrix))
        matrix.unpersist()
    return after


def load_factors(sc, out):
    return factors(MatrixFactorizationModel.load(sc, str(out)))


def batch_lines(output):
    """Return each batch's number, ratings, new users, new products and error."""
    counts = r"(\d+) ratings, (?:\d+ skipped, )?(\d+) new users, (\d+) new products"
    lines = re.findall(rf"^batch (\d+) +{counts}, (.*), \d+\.\d\d s$", output, re.MULTILINE)
    return [(*map(int, line[:4]), line[4]) for line in lines]


@contextlib.contextmanager
def running(command):
    """Run a process, which is killed after two minutes."""
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        timer = threading.Timer(120, process.kill)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()


def test_once_learns_all_files_and_resumes(rddals, sc, folder, out, batches, expected_factors):
    put_all(folder, batches[:2])
    output = stdout_of(rddals("stream", folder, "--out", out, *ONE_BY_ONE, *OPTIONS))
    first, second = batch_lines(output)
    users, products = ({rating[side] for rating in batches[0]} for side in (0, 1))
    assert first == (1, 90, len(users), len(products), "not predicted")
    assert second[:4] == (
        2,
        10,
        len({rating[0] for rating in batches[1]} - users),
        len({rating[1] for rating in batches[1]} - products),
    )
    assert re.fullmatch(r"RMSE before \d\.\d{4}", second[4])
    assert load_factors(sc, out) == expected_factors[1]
    (best,) = json.loads(
        stdout_of(rddals("recommend", out, "--user", "7", "--num", "1", "--json"))
    )["recommendations"]
    assert best["prediction"] > 2

    put(folder, 2, as_lines(batches[2]))
    output = stdout_of(rddals("stream", folder, "--out", out, "--once", *OPTIONS, "--json"))
    document = json.loads(output)
    assert document["batches"] == 3
    assert document["learned"] == {"batches": 1, "ratings": len(batches[2]), "skipped": 0}
    assert document["ratings"] == sum(map(len, batches))
    page = (Path(__file__).parents[2] / "docs/reference/command-line.md").read_text()
    (listed,) = re.findall(r"^\| `stream` \| (`.*) \|$", page, re.MULTILINE)
    assert all(f"`{name}`" in listed for name in (*document, *document["learned"]))
    assert load_factors(sc, out) == expected_factors[2]
    assert {path.name for path in (out / "stream").iterdir()} == {
        ".batch.json.crc",
        "batch.json",
        "files",
        "lock",
        "state",
    }


def test_signal_stops_the_stream_after_the_batch(
    rddals, sc, monkeypatch, folder, out, batches, expected_factors
):
    put_all(folder, batches)
    update = StreamingALS.updateBatch

    def update_and_signal(als, frame, number):
        os.kill(os.getpid(), signal.SIGTERM)
        return update(als, frame, number)

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(StreamingALS, "updateBatch", update_and_signal)
    output = stdout_of(
        rddals("stream", folder, "--out", out, "--files-per-batch", 1, "--every", 0.1, *OPTIONS)
    )
    monkeypatch.undo()
    assert [line[0] for line in batch_lines(output)] == [1]
    assert load_factors(sc, out) == expected_factors[0]
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_files_merged_after_a_kill_are_separate_batches(
    rddals, sc, folder, out, batches, expected_factors
):
    once = ("stream", folder, "--out", out, *ONE_BY_ONE, *OPTIONS)
    put_all(folder, batches[:2])
    stdout_of(rddals(*once))

    # The state after a kill between finding the second file and starting its batch.
    shutil.rmtree(out / "stream/state")
    settings = {"rank": 3, "seed": 5, "blocks": 2}
    als = StreamingALS(**settings, checkpointLocation=str(out / "stream/state"))
    als.updateBatch(sc.parallelize(batches[0]), 0)
    for log in ("offsets", "commits"):
        for path in (out / "stream/files" / log).glob("*1*"):
            path.unlink()
    (folder / "1.csv").write_text(as_lines(batches[1]) + "7,8,nan\n")
    put(folder, 2, as_lines(batches[2]))
    assert f"{folder}/1.csv, line 11" in error_of(2, rddals(*once))
    (folder / "1.csv").write_text(as_lines(batches[1]))
    os.utime(folder / "1.csv", (1_000_001, 1_000_001))
    lines = batch_lines(stdout_of(rddals(*once)))
    assert [line[:2] for line in lines] == [(2, len(batches[1])), (3, len(batches[2]))]
    assert load_factors(sc, out) == expected_factors[2]


@pytest.mark.long
def test_new_files_are_learned_on_arrival(rddals, sc, folder, out, batches, expected_factors):
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
        output = stdout_of(rddals("stream", folder, "--out", out, "--every", 0.1, *OPTIONS))
    finally:
        ended.set()
        feeder.join()
    assert [line[1] for line in batch_lines(output)] == [len(batch) for batch in batches]
    assert load_factors(sc, out) == expected_factors[2]


def test_folder_without_ratings(rddals, folder, out):
    (folder / "empty.csv").touch()
    (folder / ".being-written").write_text("1,2")
    document = json.loads(stdout_of(rddals("stream", folder, "--out", out, "--once", "--json")))
    assert document["model"] is None
    assert document["ratings"] == 0
    assert not (out / "metadata").exists()
    put(folder, 1, "user,item,rating\n")
    assert "no ratings were read" in stdout_of(rddals("stream", folder, "--out", out, "--once"))
    put(folder, 2, "user,item,rating\n1,2,3\n")
    output = stdout_of(rddals("stream", folder, "--out", out, "--once"))
    assert [line[1] for line in batch_lines(output)] == [1]


def test_stop_before_the_first_batch_is_told(rddals, monkeypatch, folder, out, batches):
    put_all(folder, batches)

    def check_and_signal(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        check_stream(*arguments)

    monkeypatch.setattr(streams, "check_stream", check_and_signal)
    output = stdout_of(rddals("stream", folder, "--out", out, *OPTIONS))
    monkeypatch.undo()
    assert f"nothing; stopped before the first batch; {len(batches)} files wait in" in output
    error = error_of(2, rddals("recommend", out, "--user", 1))
    assert "stores a stream that has saved no model yet; continue it with rddals stream" in error


@pytest.mark.long
def test_stream_resumes_after_an_invalid_line_is_fixed(
    rddals, sc, folder, out, batches, expected_factors
):
    put_all(folder, batches)
    good = as_lines(batches[1])
    (folder / "1.csv").write_text(good.replace("\n", "\n7,8,nan\n", 1))
    os.utime(folder / "1.csv", (1_000_001, 1_000_001))
    line = error_of(2, rddals("stream", folder, "--out", out, *ONE_BY_ONE, *OPTIONS))
    assert f"{folder}/1.csv, line 2: rating 'nan'" in line
    assert not (out / "metadata").exists()

    (folder / "1.csv").write_text(good)
    os.utime(folder / "1.csv", (1_000_001, 1_000_001))
    stdout_of(rddals("stream", folder, "--out", out, *ONE_BY_ONE, *OPTIONS))
    assert load_factors(sc, out) == expected_factors[2]


def test_invalid_lines_can_be_skipped_and_are_counted(rddals, folder, out):
    put(folder, 0, "1,2,nan\n1,2,inf\n")
    options = ("--out", out, "--once", "--bad-ratings", "skip", "--json")
    document = json.loads(stdout_of(rddals("stream", folder, *options)))
    assert document["model"] is None
    assert document["learned"] == {"batches": 1, "ratings": 0, "skipped": 2}
    put(folder, 1, "1,2,3\nx,2,3\n1,,3\n1,2,nan\n1,2\n3000000000,2,3\n2,2,4\n")
    document = json.loads(stdout_of(rddals("stream", folder, *options)))
    assert document["learned"] == {"batches": 1, "ratings": 2, "skipped": 5}


def test_differing_files_of_a_batch_are_named(rddals, folder, out):
    put(folder, 0, "user,item,rating\n1,2,3\n")
    put(folder, 1, "\n\n")
    for number, text in ((2, "item,user,rating\n2,2,4\n"), (2, "3,2,4\n"), (2, "1;2;3\n")):
        put(folder, number, text)
        line = error_of(
            2, rddals("stream", folder, "--out", out, "--once", "--bad-ratings", "skip")
        )
        assert f"{folder}/2.csv is " in line and f"{folder}/0.csv is " in line
    put(folder, 2, "user,item,rating\n2,2,4\n")
    (line,) = batch_lines(stdout_of(rddals("stream", folder, "--out", out, "--once")))
    assert line[1] == 2


def test_only_one_process_per_stream(rddals, sc, folder, out, monkeypatch):
    put(folder, 0, "1,2,3\n")
    update = StreamingALS.updateBatch

    def update_under_lock(als, frame, number):
        done = subprocess.run(
            [sys.executable, "-c", LOCKED, str(out / "stream/lock")], capture_output=True, text=True
        )
        assert done.stdout == "held\n"
        return update(als, frame, number)

    monkeypatch.setattr(StreamingALS, "updateBatch", update_under_lock)
    stdout_of(rddals("stream", folder, "--out", out, "--once"))
    with (out / "stream/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = error_of(2, rddals("stream", folder, "--out", out, "--once"))
    assert "in use by another process" in line


def test_training_does_not_overwrite_a_stream(rddals, folder, out):
    put(folder, 0, "1,2,3\n")
    stdout_of(rddals("stream", folder, "--out", out, "--once"))
    options = ("--out", out, "--overwrite")
    assert "stores a stream" in error_of(2, rddals("train", folder / "0.csv", *options))
    assert (out / "stream/state").exists()


def test_parquet_and_names_with_glob_characters(
    rddals, sc, tmp_path, out, batches, expected_factors
):
    folder = tmp_path / "in [2016], {a} b*"
    folder.mkdir()
    users, products, stars = zip(*batches[0], strict=True)
    table = pyarrow.table({"stars": stars, "uid": users, "movie": products})
    pyarrow.parquet.write_table(table, folder / "ratings [1]?.txt")
    columns = ("--columns", "uid,movie,stars", "--format", "parquet")
    stdout_of(rddals("stream", folder, "--out", out, "--once", *columns, *OPTIONS))
    assert load_factors(sc, out) == expected_factors[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--every", "0"), "--every must be 0.001 to 604,800 seconds"),
        (("--every", "inf"), "--every must be 0.001 to 604,800 seconds"),
        (("--blocks", "0"), "--blocks must be -1 or positive"),
        (("--update", "als", "--gamma", "0.1"), "gamma=0.1 is not used with update='als'"),
        (("--gamma", "-1"), "gamma"),
        (("--out", ""), "--out is empty"),
        (("--out", "in/model"), "is inside"),
        (("--out", "in"), "is inside"),
        (("--out", "other"), "stores no stream"),
        (("--out", "a,b"), "has a , in it"),
        (("--format", "parquet"), "0.csv cannot be read"),
        (("--columns", "user,item,rating"), "the first line is not a header"),
    ],
    ids=str,
)
def test_invalid_arguments_exit_with_2(rddals, tmp_path, folder, options, message):
    put(folder, 0, "1,2,3\n")
    (tmp_path / "other").mkdir()
    name, *values = options
    if name == "--out" and values[0]:
        options = (name, str(tmp_path / values[0]))
    defaults = () if name == "--out" else ("--out", tmp_path / "model")
    assert message in error_of(2, rddals("stream", folder, "--once", *defaults, *options))


def test_missing_folder_exits_with_2(rddals, folder, out):
    put(folder, 0, "1,2,3\n")
    for wrong in (folder / "nowhere", folder / "0.csv"):
        output = error_of(2, rddals("stream", wrong, "--out", out, "--once"))
        assert f"{wrong} is not an existing directory" in output
    assert not out.exists()


def test_incomplete_stream_folder_exits_with_2(rddals, sc, folder, out):
    put(folder, 0, "1,2,3\n")
    once = ("stream", folder, "--out", out, "--once")
    stdout_of(rddals(*once))
    model = load_factors(sc, out)
    put(folder, 1, "1,2,4\n")
    for part, message in {
        "stream/state": "stream/state, the state of the model, is missing",
        "stream/files": "stream/files, the log of learned files, is missing",
        "stream/files/sources": "stream/files, the log of learned files, is missing",
        "stream/files/offsets": "stream/files, the log of learned files, is missing",
        "stream": "stores no stream",
    }.items():
        (out / part).rename(out.parent / "elsewhere")
        assert message in error_of(2, rddals(*once))
        assert load_factors(sc, out) == model
        shutil.rmtree(out / part, ignore_errors=True)  # empty folders that the command created
        (out.parent / "elsewhere").rename(out / part)
    assert [line[:2] for line in batch_lines(stdout_of(rddals(*once)))] == [(2, 1)]


@pytest.mark.long
def test_deleted_file_is_required_until_restored(
    rddals, sc, folder, out, batches, expected_factors
):
    once = ("stream", folder, "--out", out, *ONE_BY_ONE, *OPTIONS)
    put_all(folder, batches)
    put(folder, 1, "x,y,z\n7,8,9\n")
    assert f"{folder}/1.csv" in error_of(2, rddals(*once))
    (folder / "1.csv").unlink()
    for _ in range(2):
        line = error_of(2, rddals(*once))
        assert f"{folder}/1.csv is missing and has not been learned" in line
    put(folder, 1, as_lines(batches[1]))
    stdout_of(rddals(*once))
    assert load_factors(sc, out) == expected_factors[2]


def test_stream_rejects_another_folder(rddals, folder, out):
    put(folder, 0, "1,2,3\n")
    stdout_of(rddals("stream", folder, "--out", out, "--once"))
    other = folder.with_name("other")
    other.symlink_to(folder)
    line = error_of(2, rddals("stream", other, "--out", out, "--once"))
    assert f"has read {folder}/, which is outside it" in line
    stdout_of(rddals("stream", f"{folder.parent}/./in/", "--out", out, "--once"))


def test_file_name_with_a_colon_is_rejected(rddals, folder, out):
    (folder / "10:00.csv").write_text("1,2,3\n")
    line = error_of(2, rddals("stream", folder, "--out", out, "--once"))
    assert f"{folder}/10:00.csv cannot be read" in line and "rename it" in line


def test_files_of_a_batch_are_named_exactly(rddals, folder, out):
    for number in range(3):
        put(folder, f"{number:02} [a] 100%", f"{number},2,3\n")
    stdout_of(rddals("stream", folder, "--out", out, *ONE_BY_ONE, *OPTIONS))
    record = json.loads((out / "stream/batch.json").read_text())
    files = [f"file:{folder}/02 [a] 100%.csv"]
    assert record == {"folder": f"file:{folder}/", "batch": 2, "files": files}


def test_folder_is_recorded_before_the_first_batch(rddals, folder, out):
    stdout_of(rddals("stream", folder, "--out", out, "--once"))  # no files: no batch
    other = folder.with_name("other")
    other.mkdir()
    assert "which is outside it" in error_of(2, rddals("stream", other, "--out", out, "--once"))


@pytest.mark.parametrize("text", ["", "[1]", '{"folder": "file:/in/"}', "{"])
def test_damaged_record_of_files_exits_with_2(rddals, folder, out, text):
    put(folder, 0, "1,2,3\n")
    stdout_of(rddals("stream", folder, "--out", out, "--once"))
    (out / "stream/.batch.json.crc").unlink()
    (out / "stream/batch.json").write_text(text)
    error = error_of(2, rddals("stream", folder, "--out", out, "--once"))
    assert f"{out}/stream/batch.json is damaged; restore it, or delete it" in error


def test_record_of_files_survives_a_kill_during_its_replacement(rddals, folder, out):
    put(folder, 0, "1,x,3\n")
    error_of(2, rddals("stream", folder, "--out", out, "--once"))
    for name in ("batch.json", ".batch.json.crc"):
        (out / "stream" / name).rename(out / "stream" / name.replace(".json", ".json.beginning"))
    (folder / "0.csv").unlink()
    error = error_of(2, rddals("stream", folder, "--out", out, "--once"))
    assert f"{folder}/0.csv is missing and has not been learned" in error


def test_changed_settings_are_rejected(rddals, folder, out):
    put(folder, 0, "1,2,3\n")
    stdout_of(rddals("stream", folder, "--out", out, "--once"))
    output = error_of(2, rddals("stream", folder, "--out", out, "--once", "--rank", "7"))
    assert "was started with rank=10" in output


@pytest.mark.long
def test_stream_resumes_after_java_is_killed(sc, folder, out, batches, expected_factors):
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
    assert load_factors(sc, out) == expected_factors[2]


@pytest.mark.long
def test_sigterm_saves_the_model(sc, folder, out, batches, expected_factors):
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
    assert load_factors(sc, out) == expected_factors[1]

    put(folder, 2, as_lines(batches[2]))
    assert subprocess.run([*map(str, command), "--once"]).returncode == 0
    assert load_factors(sc, out) == expected_factors[2]
