"""Saved streaming models."""

import json
import shutil

import pytest

from rddals import MatrixFactorizationModel, ModelExistsError, ModelFormatError, StreamingModel
from stream_models import RANK, SEED, predictions, row_bytes


@pytest.fixture(scope="module")
def saved(_spark, models, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    models[1].save(_spark, str(path))
    return path


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of a saved model, to be damaged."""
    shutil.copytree(saved, tmp_path / "model")
    for crc in (tmp_path / "model").rglob(".*.crc"):
        crc.unlink()
    return tmp_path / "model"


def test_saved_and_loaded_model_is_equal(sc, saved, models, rdds, pairs, footprint):
    loaded = StreamingModel.load(sc, str(saved))
    assert (loaded.rank, loaded.seed, loaded.batches) == (RANK, SEED, 2)
    assert (loaded.mean, loaded.ratings) == (models[1].mean, models[1].ratings)
    assert (loaded.users, loaded.products) == (models[1].users, models[1].products)
    assert loaded.learned is None
    assert row_bytes(loaded) == row_bytes(models[1])
    assert loaded.settings == models[1].settings
    # Shuffles of Spark's reader stay until the JVM collects them.
    remaining = footprint.remaining("persisted RDD", "broadcast file", "accumulator")
    assert [kind for kind, _ in remaining] == ["persisted RDD"] * 2
    assert predictions(sc, loaded, pairs) == predictions(sc, models[1], pairs)
    assert row_bytes(loaded.train(rdds[2])) == row_bytes(models[2])


def test_save_does_not_overwrite_a_model(sc, saved, models):
    with pytest.raises(ModelExistsError, match="already: save elsewhere"):
        models[2].save(sc, str(saved))
    assert StreamingModel.load(sc, str(saved)).batches == 2


def test_loading_another_kind_of_model_raises(sc, saved, batch_model, tmp_path):
    batch_model.save(sc, str(tmp_path / "batch"))
    with pytest.raises(ModelFormatError, match=r"Load it with rddals\.MatrixFactorizationModel"):
        StreamingModel.load(sc, str(tmp_path / "batch"))
    with pytest.raises(ModelFormatError, match=r"Load it with rddals\.StreamingModel"):
        MatrixFactorizationModel.load(sc, str(saved))
    with pytest.raises(ModelFormatError, match="holds no model"):
        StreamingModel.load(sc, str(tmp_path / "nowhere"))


def metadata_of(path):
    (part,) = (path / "metadata").glob("part-*")
    return part


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "no JSON",
        "[]",
        '{"class": "rddals.StreamingModel"}',
        {"version": "2"},
        {"settings": None},
        {"settings": {"rank": 3}},
        {"settings": {"colour": "red"}},
        {"total": "1/0"},
        {"total": None},
        {"ids": [1, 2]},
        {"ids": [1]},
        {"ratings": "many"},
    ],
    ids=str,
)
def test_invalid_metadata_raises(sc, copied, footprint, damaged):
    part = metadata_of(copied)
    if isinstance(damaged, dict):
        damaged = json.dumps(json.loads(part.read_text()) | damaged)
    part.write_text(damaged)
    with pytest.raises(ModelFormatError):
        StreamingModel.load(sc, str(copied))
    assert not footprint.remaining("persisted RDD")


@pytest.mark.parametrize("side", ["user", pytest.param("product", marks=pytest.mark.long)])
@pytest.mark.parametrize("damage", ["cut", "missing", "no bias", "null bias", "twice"])
def test_damaged_rows_raise(sc, spark, copied, footprint, side, damage):
    folder = copied / "data" / side
    if damage == "cut":
        part = max(folder.glob("part-*"), key=lambda path: path.stat().st_size)
        part.write_bytes(part.read_bytes()[:-20])
    elif damage == "missing":
        for part in folder.glob("*"):
            part.unlink()
        folder.rmdir()
    else:
        frame = spark.createDataFrame(
            spark.read.parquet(str(folder)).collect(),
            "id int, factor array<float>, bias float, ratings long",
        )
        if damage == "no bias":
            frame = frame.drop("bias")
        elif damage == "null bias":
            frame = frame.selectExpr("id", "factor", "if(id % 5 = 0, null, bias) bias", "ratings")
        else:
            frame = frame.union(frame.limit(1))
        frame.write.mode("overwrite").parquet(str(folder))
    footprint.baseline |= footprint.current()
    with pytest.raises(ModelFormatError, match=f"data/{side}"):
        StreamingModel.load(sc, str(copied))
    assert not footprint.remaining("persisted RDD")
