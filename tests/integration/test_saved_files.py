"""Files that an earlier rddals saved load, and predict what they did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rddals import ALS, MatrixFactorizationModel, StreamingALS, StreamingModel
from rddals.indexer import KeyedModel

SAVED = Path(__file__).parents[1] / "data" / "saved_by_0.1"
EXPECTED = json.loads((SAVED / "expected.json").read_text())


@pytest.fixture
def saved(tmp_path):
    """A copy: a stream writes to its checkpoint."""
    return Path(shutil.copytree(SAVED, tmp_path / "saved"))


def assert_predicts(model, predictions):
    for user, product, rating in predictions:
        assert model.predict(user, product) == pytest.approx(rating, abs=1e-6)


def test_model(sc, saved):
    model = MatrixFactorizationModel.load(sc, str(saved / "model"))
    assert (model.rank, model.seed) == (EXPECTED["model"]["rank"], EXPECTED["model"]["seed"])
    assert_predicts(model, EXPECTED["model"]["predictions"])
    model.unpersist()


def test_model_with_keys(sc, saved):
    model = KeyedModel.load(sc, str(saved / "keyed"))
    assert_predicts(model, EXPECTED["keyed"])
    model.unpersist()


@pytest.mark.parametrize("update", ["sgd", "als"])
def test_stream_checkpoint(sc, saved, update):
    location = str(saved / f"stream-{update}")
    als = StreamingALS(rank=2, seed=1, blocks=2, update=update, checkpointLocation=location)
    expected = EXPECTED[f"stream-{update}"]
    assert (als.model.batches, als.model.ratings) == (expected["batches"], expected["ratings"])
    assert als.model.mean == expected["mean"]
    assert_predicts(als.model, expected["predictions"])
    assert als.updateBatch(sc.parallelize([(1, 10, 5.0)]), 1) == []
    (learned,) = als.updateBatch(sc.parallelize([(9, 10, 5.0)]), 2)
    assert (learned.batch, learned.ratings, learned.new_users) == (3, 1, 1)
    als.model.unpersist()


@pytest.mark.parametrize("update", ["sgd", "als"])
def test_streaming_model(sc, saved, update):
    model = StreamingModel.load(sc, str(saved / f"streaming-model-{update}"))
    assert_predicts(model, EXPECTED[f"stream-{update}"]["predictions"])
    model.unpersist()


def test_initial_model(sc, saved):
    known = MatrixFactorizationModel.load(sc, str(saved / "model"))
    ratings = sc.parallelize([(1, 10, 5.0), (2, 20, 3.0)])
    model = ALS.train(ratings, 2, 0, 0.1, blocks=2, initialModel=known)
    assert dict(model.userFeatures().collect())[1] == dict(known.userFeatures().collect())[1]
    model.unpersist()
    known.unpersist()
