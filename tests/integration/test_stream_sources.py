"""Streams from files and sockets, and their checkpoints."""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
import queue
import shutil
import socket
import threading
import time
import warnings

import numpy as np
import pytest
from pyspark import RDD, SparkContext

from rddals import (
    ALS,
    ModelFormatError,
    RatingTypeError,
    RddalsError,
    SettingError,
    StreamingALS,
)
from rddals.streaming.checkpoint import Checkpoint
from rddals.streaming.history import all_ratings
from stream_files import mean_of, write_batch, write_batches

RANK, SEED = 2, 11
SETTINGS = {"rank": RANK, "seed": SEED, "blocks": 2, "exchange": "shuffle"}
UPDATES = pytest.mark.parametrize("update", ["sgd", "als"])
#: The second is slow.
BOTH = pytest.mark.parametrize("update", ["sgd", pytest.param("als", marks=pytest.mark.long)])


def state_of(model):
    """Return a model's state for bitwise comparison: rows by id, stored ratings, and counts."""
    state = model._state
    sides = [side.table().collect(model.rank + 2) for side in state.sides]
    rows = [
        {id_: row.tobytes() for id_, row in zip(side.ids.tolist(), side.rows, strict=True)}
        for side in sides
    ]
    history = [
        sorted(
            rating
            for block in all_ratings(side.rdds).collect()
            for rating in zip(
                block.users.tolist(), block.products.tolist(), block.ratings.tolist(), strict=True
            )
        )
        for side in state.history or ()
    ]
    return rows, history, state.ids, state.total, state.ratings, state.batches


def wait_until(condition):
    """Wait until the condition holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def batches():
    """Four batches; the third is the smallest, so that only some levels are merged."""
    numbers = np.random.default_rng(3)
    return [
        [
            (int(user), int(product), star / 10)
            for user, product, star in zip(
                numbers.integers(0, 12 + 5 * number, size),
                numbers.integers(0, 9 + 4 * number, size),
                numbers.integers(1, 51, size).tolist(),
                strict=True,
            )
        ]
        for number, size in enumerate((60, 30, 4, 25))
    ]


@pytest.fixture(scope="module")
def rdds(_spark, batches):
    return [_spark.parallelize(batch, 2) for batch in batches]


@pytest.fixture(scope="module")
def expected_states(rdds):
    """States of models after one to four batches without a checkpoint."""

    def learned(update):
        als = StreamingALS(**SETTINGS, update=update)
        after = []
        for rdd in rdds:
            als.train(rdd)
            after.append(state_of(als.model))
        return after

    return {update: learned(update) for update in ("sgd", "als")}


# ------------------------------------------------------------------ streams of RDDs


@pytest.fixture
def streams(sc):
    """A StreamingContext with short intervals, stopped after the test without Spark."""
    streaming = pytest.importorskip("pyspark.streaming", reason="this Spark has no DStreams")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        context = streaming.StreamingContext(sc, 0.2)
    yield context
    context.stop(stopSparkContext=False, stopGraceFully=False)


def parsed(line):
    user, product, stars = line.split(",")
    return int(user), int(product), float(stars)


class Learner:
    """A stream learned from a DStream, with a count of intervals."""

    def __init__(self, stream):
        self.als = StreamingALS(**SETTINGS)
        self.intervals = 0
        stream.foreachRDD(self.als.train)
        stream.foreachRDD(lambda _: self._count())

    def _count(self):
        self.intervals += 1

    def wait_intervals(self, intervals=2):
        end = self.intervals + intervals
        wait_until(lambda: self.intervals >= end)

    def assert_learned(self, batches):
        ratings = sum(map(len, batches))
        wait_until(lambda: self.als.model is not None and self.als.model.ratings >= ratings)
        self.wait_intervals()
        assert self.als.model.ratings == ratings
        assert self.als.model.mean == mean_of(batches)


def threads():
    """Return the threads of this process, without those of PySpark's JVM connection."""
    return {
        thread
        for thread in threading.enumerate()
        if "py4j" not in str(getattr(getattr(thread, "_target", None), "__module__", None))
    }


@pytest.mark.long
def test_files_moved_into_a_directory_are_learned_once(sc, streams, batches, tmp_path):
    source, outside = tmp_path / "source", tmp_path / "outside"
    source.mkdir()
    outside.mkdir()
    learner = Learner(streams.textFileStream(source.as_uri()).map(parsed))
    streams.start()
    learner.wait_intervals()
    assert learner.als.model is None
    before = threads()
    for number, batch in enumerate(batches[:3]):
        path = outside / f"{number}.csv"
        path.write_text("".join(f"{u},{p},{r}\n" for u, p, r in batch))
        path.rename(source / path.name)
        learner.assert_learned(batches[: number + 1])
    assert learner.als.model.batches > 3  # empty intervals included
    streams.stop(stopSparkContext=False, stopGraceFully=False)
    wait_until(lambda: threads() <= before)
    assert sc.parallelize([1, 2], 2).count() == 2
    users = {user for batch in batches[:3] for user, _, _ in batch}
    assert learner.als.model.users == len(users)


@pytest.mark.long
def test_lines_from_a_socket_are_learned_once(sc, streams, batches):
    before = threads()
    lines = queue.SimpleQueue()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                for line in iter(lines.get, None):
                    connection.sendall(line.encode())

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            received = streams.socketTextStream("127.0.0.1", server.getsockname()[1])
            learner = Learner(received.map(parsed))
            streams.start()
            learner.wait_intervals()
            assert learner.als.model is None
            for number, batch in enumerate(batches[:2]):
                for user, product, stars in batch:
                    lines.put(f"{user},{product},{stars}\n")
                learner.assert_learned(batches[: number + 1])
            streams.stop(stopSparkContext=False, stopGraceFully=False)
        finally:
            lines.put(None)
            with contextlib.suppress(OSError):  # ends accept() if nobody has connected
                socket.create_connection(server.getsockname(), 1).close()
            serving.join(10)
    assert not serving.is_alive()
    wait_until(lambda: threads() <= before)
    assert sc.parallelize([1, 2], 2).count() == 2


# ------------------------------------------------------------------ streams of DataFrames


def run_query(spark, source, checkpoints, function):
    """Run a query over all files of a directory, one by one."""
    frames = (
        spark.readStream.schema("user int, item int, rating float")
        .option("maxFilesPerTrigger", 1)
        .csv(str(source))
    )
    query = (
        frames.writeStream.foreachBatch(function)
        .option("checkpointLocation", str(checkpoints))
        .trigger(availableNow=True)
        .start()
    )
    try:
        assert query.awaitTermination(120)
    finally:
        query.stop()


@BOTH
def test_files_are_learned_like_batches(spark, rdds, batches, tmp_path, update):
    source = write_batches(tmp_path / "source", batches[:3])
    als = StreamingALS(**SETTINGS, update=update)
    run_query(spark, source, tmp_path / "query", als.updateBatch)
    model = StreamingALS.train(rdds[0], **SETTINGS, update=update)
    for rdd in rdds[1:3]:
        model = model.train(rdd)
    assert state_of(als.model) == state_of(model)
    assert als.model.mean == mean_of(batches[:3])
    factors, others = (
        m.toMatrixFactorizationModel().collected_factors() for m in (als.model, model)
    )
    for one, other in zip(factors, others, strict=True):
        assert one.ids.tobytes() == other.ids.tobytes()
        assert one.rows.tobytes() == other.rows.tobytes()


@pytest.mark.long
def test_query_resumes_from_its_checkpoint(spark, batches, expected_states, tmp_path):
    """Even if the last batch was learned but not committed by Spark."""
    source = write_batches(tmp_path / "source", batches[:1])
    settings = {**SETTINGS, "checkpointLocation": str(tmp_path / "als")}
    run_query(spark, source, tmp_path / "query", StreamingALS(**settings).updateBatch)
    for number in (1, 2, 3):
        write_batch(source / f"{number}.csv", batches[number], number)
    als = StreamingALS(**settings)

    def fail_after_batch(frame, batch_id):
        als.updateBatch(frame, batch_id)
        if batch_id == 2:
            raise RuntimeError("simulated kill")

    with pytest.raises(Exception, match="simulated kill"):
        run_query(spark, source, tmp_path / "query", fail_after_batch)
    again = StreamingALS(**settings)
    assert state_of(again.model) == expected_states["sgd"][2]
    run_query(spark, source, tmp_path / "query", again.updateBatch)
    assert state_of(again.model) == expected_states["sgd"][3]


def test_files_merged_after_a_kill_are_separate_batches(
    spark, footprint, batches, rdds, expected_states, tmp_path
):
    source = write_batches(tmp_path / "source", batches[:2])
    run_query(spark, source, tmp_path / "query", lambda *_: None)
    # The state after a kill between finding the second file and starting its batch.
    for log in ("offsets", "commits"):
        for path in (tmp_path / "query" / log).glob("*1*"):
            path.unlink()
    for number in (2, 3):
        write_batch(source / f"{number}.csv", batches[number], number)

    als, shuffled = StreamingALS(**SETTINGS), StreamingALS(**SETTINGS)
    for stream in (als, shuffled):
        stream.updateBatch(rdds[0], 0)

    def learn(frame, batch_id):
        als.updateBatch(frame.select("rating", "user", frame.item.alias("item")), batch_id)
        shuffled.updateBatch(frame.repartition(2), batch_id)  # hides the file of each row

    run_query(spark, source, tmp_path / "query", learn)
    assert als.model.batches == 4
    assert state_of(als.model) == expected_states["sgd"][3]
    assert shuffled.model.ratings == als.model.ratings
    assert shuffled.model.mean == mean_of(batches)
    levels = [side.levels for s in (als, shuffled) for side in s.model._state.sides]
    assert len(footprint.remaining("persisted RDD")) == sum(map(len, levels))


# ------------------------------------------------------------------ checkpoints


@pytest.fixture
def location(sc, tmp_path):
    return tmp_path / "als"


def stream_at(location, **settings):
    return StreamingALS(**{**SETTINGS, "checkpointLocation": str(location), **settings})


def state_file(location):
    (state,) = (location / "states").glob("*.json")
    return state


def holds_one_state(location):
    """Return whether there is one state and only the levels it names."""
    state = state_file(location)
    assert {path.name for path in (location / "states").iterdir()} == {
        state.name,
        f".{state.name}.crc",
    }
    levels = json.loads(state.read_text())["levels"].values()
    named = [name for part in levels for name, _ in part]
    assert len(named) == len(set(named))
    return {path.name for path in (location / "levels").iterdir()} == set(named)


@BOTH
def test_resumed_stream_equals_an_uninterrupted_one(
    footprint, location, rdds, expected_states, update
):
    als = stream_at(location, update=update)
    assert als.model is None
    for number in (0, 1):
        als.updateBatch(rdds[number], number)
        assert state_of(als.model) == expected_states[update][number]
        assert holds_one_state(location)
    del als

    # Leftovers of failed batches: levels written partly or wholly, and half a state.
    leftover = location / "levels" / "0123456789abcdef"
    (leftover / "_temporary" / "0").mkdir(parents=True)
    (leftover / "part-00000").write_bytes(b"SEQ")
    (location / "states" / "3.beginning").write_text('{"version": 1, "sett')

    again = stream_at(location, update=update)
    assert state_of(again.model) == expected_states[update][1]
    assert again.model.learned is None
    before = state_file(location).read_bytes()
    again.updateBatch(rdds[1], 1)
    assert state_of(again.model) == expected_states[update][1]
    with pytest.raises(SettingError, match="Batch 0 arrived after batch 1 was already learned"):
        again.updateBatch(rdds[0], 0)
    assert state_of(again.model) == expected_states[update][1]
    assert state_file(location).read_bytes() == before
    assert leftover.is_dir()
    for number in (2, 3):
        again.updateBatch(rdds[number], number)
        assert holds_one_state(location)
    assert state_of(again.model) == expected_states[update][3]
    assert again.model.learned.batch == 4

    del again
    assert not footprint.remaining()


def test_empty_batches_are_saved_once_a_model_exists(sc, location, rdds, expected_states):
    empty = sc.parallelize([], 2)
    als = stream_at(location)
    als.updateBatch(empty, 0)
    assert not [*(location / "states").iterdir()]
    als.updateBatch(rdds[0], 1)
    als.updateBatch(empty, 2)
    again = stream_at(location)
    assert again.model.batches == 2
    again.updateBatch(rdds[1], 2)
    assert again.model.batches == 2
    assert state_of(again.model)[:-1] == expected_states["sgd"][0][:-1]
    again.updateBatch(rdds[1], 3)
    assert state_of(again.model)[:-1] == expected_states["sgd"][1][:-1]


@BOTH
def test_merged_batches_are_saved_together(location, rdds, expected_states, update):
    als = stream_at(location, update=update)
    als.updateBatch(rdds[0], 5)
    als.updateBatch(iter(rdds[1:3]), 6)
    assert (
        state_of(als.model)
        == state_of(stream_at(location, update=update).model)
        == expected_states[update][2]
    )
    als.updateBatch(list(rdds[1:3]), 6)
    with pytest.raises(RatingTypeError, match="int"):
        als.updateBatch([rdds[3], 7], 7)
    assert (
        state_of(als.model)
        == state_of(stream_at(location, update=update).model)
        == expected_states[update][2]
    )
    als.updateBatch([rdds[3]], 7)
    assert state_of(als.model) == expected_states[update][3]


@pytest.mark.long
def test_batch_numbers_survive_other_training(location, rdds, expected_states):
    als = stream_at(location)
    als.updateBatch(rdds[0], 7)
    als.train(rdds[1])
    for stream in (als, stream_at(location)):
        stream.updateBatch(rdds[0], 7)
        assert state_of(stream.model) == expected_states["sgd"][1]


def test_stream_from_a_batch_model_needs_its_settings(location, rdds, footprint):
    trained = ALS.train(rdds[0], 3, 2, seed=1)
    with pytest.raises(SettingError, match="checkpointLocation: only a StreamingALS object saves"):
        StreamingALS.train(rdds[1], trained, checkpointLocation=str(location))
    assert not location.exists()
    als = stream_at(location)
    als.model = StreamingALS.train(rdds[1], trained, seed=SEED, lambda_=0.1)
    als.train(rdds[2])
    with pytest.raises(SettingError, match=r"was started with rank=3, lambda_=0\.1"):
        stream_at(location)
    again = stream_at(location, rank=3, lambda_=0.1)
    assert state_of(again.model) == state_of(als.model)
    trained.unpersist()
    del als, again
    assert not footprint.remaining()


def test_skipped_ratings_are_counted_without_a_model(sc):
    als = StreamingALS(rank=2, badRatings="skip", userPartitioner="balanced")
    assert als.learned is None
    als.train(sc.parallelize([], 2))
    assert (als.learned.ratings, als.learned.skipped) == (0, 0)
    als.train(sc.parallelize([(1, 2, float("nan")), (1, 3, float("inf"))], 2))
    assert als.model is None
    assert (als.learned.ratings, als.learned.skipped) == (0, 2)
    als.train(sc.parallelize([(1, 2, float("nan")), (1, 3, 4.0)], 2))
    assert als.learned is als.model.learned
    assert (als.learned.ratings, als.learned.skipped) == (1, 1)


class _NoRename:
    """A file system whose renames fail."""

    def __init__(self, files):
        self._files = files

    def __getattr__(self, name):
        return (lambda *_: False) if name == "rename" else getattr(self._files, name)


def fail_next_save(where, monkeypatch, als):
    """Make the next save of a stream fail."""
    if where == "first level":
        monkeypatch.setattr(RDD, "saveAsPickleFile", raise_no_space)
    elif where == "second level":
        save, calls = RDD.saveAsPickleFile, []

        def second(rdd, path, batchSize=10):
            calls.append(path)
            save(rdd, path, batchSize) if len(calls) != 2 else raise_no_space()

        monkeypatch.setattr(RDD, "saveAsPickleFile", second)
    elif where == "rename":
        monkeypatch.setattr(als._checkpoint, "_files", _NoRename(als._checkpoint._files))
    else:
        monkeypatch.setattr(Checkpoint, "_delete_unused", raise_no_space)


def raise_no_space(*_):
    raise OSError("no space left on device")


@pytest.mark.long
@pytest.mark.parametrize("where", ["first level", "second level", "rename", "tidying"])
def test_failed_save_leaves_the_previous_state(
    monkeypatch, footprint, location, rdds, expected_states, where
):
    update = "als" if where == "second level" else "sgd"
    als = stream_at(location, update=update)
    als.updateBatch(rdds[0], 0)
    fail_next_save(where, monkeypatch, als)
    with pytest.raises((OSError, RddalsError), match=r"no space left|cannot be written"):
        als.updateBatch(rdds[1], 1)
    monkeypatch.undo()
    assert state_of(als.model) == expected_states[update][0]

    again = stream_at(location, update=update)
    # If only tidying failed, the new state is valid.
    assert state_of(again.model) == expected_states[update][where == "tidying"]
    for stream in (again, als):  # the failed stream can continue, too
        for number in (1, 2):
            stream.updateBatch(rdds[number], number)
        assert holds_one_state(location)
        assert (
            state_of(stream.model)
            == state_of(stream_at(location, update=update).model)
            == expected_states[update][2]
        )
    del als, again, stream
    assert not footprint.remaining()


@pytest.mark.long
def test_batches_can_be_learned_after_a_failed_save(monkeypatch, location, rdds, batches):
    """It may use levels that the failed save has deleted."""
    als = stream_at(location)
    als.train(rdds[0])
    tidy = Checkpoint._delete_unused

    def tidy_and_fail(*arguments):
        tidy(*arguments)
        raise_no_space()

    monkeypatch.setattr(Checkpoint, "_delete_unused", tidy_and_fail)
    with pytest.raises(OSError, match="no space left"):
        als.train(rdds[0])
    monkeypatch.undo()
    als.train(rdds[2])
    assert als.model.ratings == len(batches[0]) + len(batches[2])
    assert state_of(stream_at(location).model) == state_of(als.model)
    assert holds_one_state(location)


@pytest.mark.long
def test_stream_resumes_from_an_earlier_model(location, tmp_path, rdds):
    als = stream_at(location, update="als")
    als.train(rdds[0])
    first = als.model
    als.train(rdds[0])
    als.model = first
    als.train(rdds[2])
    assert holds_one_state(location)
    expected_states = state_of(als.model)
    assert state_of(stream_at(location, update="als").model) == expected_states

    other = stream_at(tmp_path / "other", update="als")
    other.model = als.model
    other.train(rdds[2])
    expected_states = state_of(other.model)
    assert state_of(stream_at(tmp_path / "other", update="als").model) == expected_states


@pytest.fixture(scope="module")
def saved_streams(_spark, rdds, tmp_path_factory):
    """Checkpoints of three batches that tests only read."""
    folder = tmp_path_factory.mktemp("begun")
    for update in ("sgd", "als"):
        als = stream_at(folder / update, update=update)
        for number in (0, 1, 2):
            als.updateBatch(rdds[number], number)
    return folder


@pytest.mark.parametrize(
    ("update", "setting", "words"),
    [
        ("sgd", {"rank": 3}, "rank=2"),
        ("sgd", {"seed": 12}, "seed=11"),
        ("sgd", {"lambda_": 0.5}, "lambda_=0.05"),
        ("sgd", {"gamma": 0.25, "iterations": 2}, "iterations=1, gamma=0.5"),
        ("sgd", {"update": "als"}, "update='sgd'"),
        ("als", {"biasLambda": (3, 4)}, r"biasLambda=\(10.0, 2.0\)"),
    ],
    ids=str,
)
def test_changed_settings_raise(sc, footprint, saved_streams, update, setting, words):
    with pytest.raises(SettingError, match=f"was started with .*{words}"):
        stream_at(saved_streams / update, **{"update": update, **setting})
    assert not footprint.remaining()


@UPDATES
def test_settings_without_effect_may_change(
    sc, saved_streams, location, rdds, batches, expected_states, update
):
    shutil.copytree(saved_streams / update, location)
    als = stream_at(location, update=update, exchange="broadcast", badRatings="skip", seed=None)
    assert als.model.seed == SEED
    als.updateBatch(sc.parallelize([*batches[3], (1, 2, float("nan"))], 2), 3)
    assert als.model.learned.skipped == 1
    assert als.model.learned.exchange.exchange == "broadcast"
    assert state_of(als.model) == expected_states[update][3]
    assert state_of(stream_at(location, update=update).model) == expected_states[update][3]


@pytest.mark.long
def test_custom_partitioner_is_restored(location, rdds, expected_states):
    shift = 5
    als = stream_at(location, userPartitioner=lambda id_: (id_ + shift) // 3 % 2, blocks=2)
    for number in (0, 1):
        als.updateBatch(rdds[number], number)
    again = stream_at(location)
    ids = np.arange(40, dtype=np.int32)
    users = again.model._state.sides[0].partitioner
    assert users.block_of(ids).tolist() == ((ids + shift) // 3 % 2).tolist()
    assert state_of(again.model) == state_of(als.model)
    for number in (2, 3):
        again.updateBatch(rdds[number], number)
        als.updateBatch(rdds[number], number)
    assert state_of(again.model) == state_of(als.model)


def encoded(pickled):
    return [base64.b64encode(pickled).decode()] * 2


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "no JSON",
        "[]",
        "{}",
        {"version": 2},
        {"settings": {"rank": 2}},
        {"levels": {}},
        {"partitioners": []},
        {"partitioners": encoded(b"")},
        {"partitioners": encoded(b"no pickle")},
        {"partitioners": encoded(pickle.dumps(3))},
        {"partitioners": encoded(b"cnowhere\nnothing\n.")},
        {"partitioners": encoded(b"cpartitioners\nNothing\n.")},
        {"partitioners": "?"},
        {"total": "1/0"},
        {"total": None},
        {"ids": [1]},
        {"ratings": "many"},
        {"batches": None},
        {"partitions": "two"},
    ],
    ids=str,
)
def test_damaged_state_raises(sc, footprint, saved_streams, location, damaged):
    shutil.copytree(saved_streams / "sgd", location)
    state = state_file(location)
    (location / "states" / f".{state.name}.crc").unlink()
    if isinstance(damaged, dict):
        damaged = json.dumps(json.loads(state.read_text()) | damaged)
    state.write_text(damaged)
    with pytest.raises(ModelFormatError, match=f"{location}/states/{state.name} or a level"):
        stream_at(location)
    assert not footprint.remaining()


@UPDATES
@pytest.mark.parametrize("damage", ["no number", "cut", "missing level", "damaged level"])
def test_damaged_files_raise(sc, footprint, saved_streams, location, damage, update):
    shutil.copytree(saved_streams / update, location)
    state = state_file(location)
    document = json.loads(state.read_text())
    last, _ = [*document["levels"].values()][-1][-1]  # all others have been read by then
    if damage == "no number":
        del document["batchId"]
        (location / "states" / f".{state.name}.crc").unlink()
        state.write_text(json.dumps(document))
    elif damage == "cut":
        state.write_text(state.read_text()[:-9])
    elif damage == "missing level":
        shutil.rmtree(location / "levels" / last)
    else:
        for part in (location / "levels" / last).glob("part-*"):
            part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(ModelFormatError, match=f"{location}/states/{state.name} or a level"):
        stream_at(location, update=update)
    assert not footprint.remaining("persisted RDD", "shuffle file", "thread", "accumulator")


def test_invalid_location_raises(sc, monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.write_text("something else")
    for location in (file, file / "als"):
        with pytest.raises(SettingError, match=str(location)):
            stream_at(location)
    assert file.read_text() == "something else"
    with pytest.raises(SettingError, match="path is empty"):
        StreamingALS(checkpointLocation="")
    with pytest.raises(TypeError, match="should be a string"):
        StreamingALS(checkpointLocation=3)
    monkeypatch.setattr(SparkContext, "_active_spark_context", None)
    with pytest.raises(SettingError, match="start a SparkContext first"):
        stream_at(tmp_path / "als")
    assert not (tmp_path / "als").exists()
