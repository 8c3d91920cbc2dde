"""Ways to train a stream, and what is checked before any work."""

import threading

import pytest

from rddals import (
    ALS,
    ModelReleasedError,
    RatingTypeError,
    SettingError,
    StreamingALS,
    StreamingModel,
)
from stream_models import SETTINGS, row_bytes

NAN = float("nan")


def test_dstream_is_learned_batch_by_batch(sc, rdds, models):
    from pyspark.streaming import StreamingContext

    als, done = StreamingALS(**SETTINGS), threading.Event()
    with pytest.warns(FutureWarning):
        streams = StreamingContext(sc, 0.1)
    queue = streams.queueStream(rdds[:2])
    queue.foreachRDD(als.train)
    queue.foreachRDD(lambda rdd: done.set() if als.model and als.model.batches >= 2 else None)
    streams.start()
    try:
        assert done.wait(60)
    finally:
        streams.stop(stopSparkContext=False, stopGraceFully=False)
    assert als.model.ratings == models[1].ratings
    assert row_bytes(als.model) == row_bytes(models[1])


def test_class_and_instance_training_agree(rdds, models):
    als = StreamingALS(**SETTINGS)
    assert als.model is None
    assert als.train(rdds[0]) is None
    assert row_bytes(als.model) == row_bytes(models[0])
    again = StreamingALS.train(rdds[1], als.model)
    assert (
        row_bytes(again)
        == row_bytes(StreamingALS.train(rdds[1], model=models[0]))
        == row_bytes(models[1])
    )
    assert row_bytes(als.model) == row_bytes(models[0])


def test_dataframe_columns_are_stored(sc, spark, batches, models, tmp_path):
    frames = [
        spark.createDataFrame([(r, p, u) for u, p, r in batch], "r double, p int, u int")
        for batch in batches[:2]
    ]
    names = {"userCol": "u", "itemCol": "p", "ratingCol": "r"}
    model = StreamingALS.train(frames[0], **SETTINGS, **names)
    assert row_bytes(model) == row_bytes(models[0])
    assert row_bytes(model.train(frames[1])) == row_bytes(models[1])
    model.save(sc, str(tmp_path / "model"))
    loaded = StreamingModel.load(sc, str(tmp_path / "model"))
    assert row_bytes(loaded.train(frames[1])) == row_bytes(models[1])


@pytest.fixture
def unreadable(sc):
    """Ratings that raise when they are read."""
    return sc.parallelize([0], 1).map(lambda _: 1 / 0)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"gamma": 0}, "gamma must be positive"),
        ({"gamma": NAN}, "gamma must be a finite number"),
        ({"iterations": 0}, "iterations must be positive"),
        ({"rank": 0}, "must be positive but got 0"),
        ({"lambda_": -1}, "must be nonnegative but got -1"),
        ({"badRatings": "x"}, "'raise' or 'skip' but got 'x'"),
        ({"exchange": "x"}, "exchange must be"),
        ({"blocks": 0}, "must be -1 or positive"),
        ({"userPartitioner": "x"}, "userPartitioner must be"),
        ({"userCol": 3}, "userCol must be the name"),
        ({"seed": "x"}, "seed must be a number"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_are_checked_before_any_work(unreadable, setting, words):
    with pytest.raises(SettingError, match=words):
        StreamingALS.train(unreadable, **setting)
    with pytest.raises(SettingError, match=words):
        StreamingALS(**setting)


def test_models_are_checked_before_any_work(sc, unreadable, models, batch_model, small_matrix):
    with pytest.raises(SettingError, match="pass settings by name, such as rank=10"):
        StreamingALS.train(unreadable, 10)
    with pytest.raises(SettingError, match="gamma, rank cannot be passed with a StreamingModel"):
        StreamingALS.train(unreadable, models[0], rank=3, gamma=0.1)
    for name in ("rank", "blocks", "userPartitioner", "productBlocks"):
        with pytest.raises(SettingError, match=f"{name} cannot be passed with a MatrixFactor"):
            StreamingALS.train(unreadable, batch_model, **{name: 3})
    with pytest.raises(SettingError, match="gamma must be positive"):
        StreamingALS.train(unreadable, batch_model, gamma=0)
    with pytest.raises(RatingTypeError, match="RDD or a DataFrame"):
        StreamingALS.train([(1, 2, 3.0)])
    with pytest.raises(RatingTypeError, match="RDD or a DataFrame"):
        models[0].train([(1, 2, 3.0)])
    implicit = ALS.trainImplicit(sc.parallelize(small_matrix, 2), 2, 1)
    with pytest.raises(SettingError, match="implicit feedback"):
        StreamingALS.train(unreadable, implicit)
    implicit.unpersist()


def test_released_model_raises(sc, rdds, unreadable, tmp_path):
    model = StreamingALS.train(rdds[2], **SETTINGS)
    model.unpersist()
    model.unpersist()
    for use in (
        lambda: model.train(unreadable),
        lambda: StreamingALS.train(unreadable, model),
        lambda: model.predict(1, 2),
        lambda: model.predictAll(sc.parallelize([(1, 2)])),
        lambda: model.recommendProducts(1, 2),
        lambda: model.recommendProductsForUsers(2),
        lambda: model.toMatrixFactorizationModel(),
        lambda: model.save(sc, str(tmp_path / "model")),
    ):
        with pytest.raises(ModelReleasedError, match="has released this model"):
            use()
    assert model.batches == 1
