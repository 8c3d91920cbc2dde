"""Saves of a stream that fail, and checkpoints that are damaged."""

from __future__ import annotations

import base64
import json
import pickle
import shutil

import pytest
from pyspark import RDD, SparkContext

from rddals import ModelFormatError, RddalsError, SettingError, StreamingALS
from rddals.streaming.checkpoint import Checkpoint
from stream_checkpoints import UPDATES, holds_one_state, state_file, state_of, stream_at


def fail_next_save(where, monkeypatch):
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
        monkeypatch.setattr(Checkpoint, "rename", lambda *_: False)
    else:
        monkeypatch.setattr(Checkpoint, "delete_unused", raise_no_space)


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
    fail_next_save(where, monkeypatch)
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
    tidy = Checkpoint.delete_unused

    def tidy_and_fail(*arguments):
        tidy(*arguments)
        raise_no_space()

    monkeypatch.setattr(Checkpoint, "delete_unused", tidy_and_fail)
    with pytest.raises(OSError, match="no space left"):
        als.train(rdds[0])
    monkeypatch.undo()
    als.train(rdds[2])
    assert als.model.ratings == len(batches[0]) + len(batches[2])
    assert state_of(stream_at(location).model) == state_of(als.model)
    assert holds_one_state(location)


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
