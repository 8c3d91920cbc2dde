"""Streams that resume from their checkpoints."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from rddals import ALS, RatingTypeError, SettingError, StreamingALS
from stream_checkpoints import BOTH, SEED, UPDATES, holds_one_state, state_file, state_of, stream_at


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


@pytest.mark.parametrize("number", [None, 1.5, -1, "x", True])
def test_invalid_batch_numbers_raise(rdds, number):
    als = StreamingALS(rank=2, seed=1)
    with pytest.raises(SettingError, match="batchId must be a nonnegative integer but got"):
        als.updateBatch(rdds[0], number)
    assert als.model is None


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
    users = again.model.state.sides[0].partitioner
    assert users.block_of(ids).tolist() == ((ids + shift) // 3 % 2).tolist()
    assert state_of(again.model) == state_of(als.model)
    for number in (2, 3):
        again.updateBatch(rdds[number], number)
        als.updateBatch(rdds[number], number)
    assert state_of(again.model) == state_of(als.model)
