"""Streaming queries: `foreachBatch`, checkpoints, and files that Spark merges into one batch."""

from __future__ import annotations

import pytest

from rddals import StreamingALS
from stream_checkpoints import BOTH, SETTINGS, state_of
from stream_files import FILE_COLUMNS, mean_of, split_by_file, write_batch, write_batches


def run_query(spark, source, checkpoints, function):
    """Run a query over all files of a directory, one by one."""
    frames = (
        spark.readStream.schema("user int, item int, rating float")
        .option("maxFilesPerTrigger", 1)
        .csv(str(source))
        .select("*", *FILE_COLUMNS)
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


def test_files_merged_after_a_kill_are_learned_once(
    spark, batches, rdds, expected_states, tmp_path
):
    source = write_batches(tmp_path / "source", batches[:2])
    run_query(spark, source, tmp_path / "query", lambda *_: None)
    # The state after a kill between finding the second file and starting its batch.
    for log in ("offsets", "commits"):
        for path in (tmp_path / "query" / log).glob("*1*"):
            path.unlink()
    for number in (2, 3):
        write_batch(source / f"{number}.csv", batches[number], number)

    by_batch, by_file = StreamingALS(**SETTINGS), StreamingALS(**SETTINGS)
    for stream in (by_batch, by_file):
        stream.updateBatch(rdds[0], 0)

    def learn(frame, batch_id):
        by_batch.updateBatch(frame, batch_id)
        by_file.updateBatch(split_by_file(frame), batch_id)

    run_query(spark, source, tmp_path / "query", learn)
    assert by_batch.model.batches == 3
    assert by_batch.model.ratings == sum(map(len, batches))
    assert by_batch.model.mean == mean_of(batches)
    assert by_file.model.batches == 4
    assert state_of(by_file.model) == expected_states["sgd"][3]
