"""MLlib's model files: exchange with MLlib, and foreign or damaged files."""

import json
import shutil

import numpy as np
import pytest
from pyspark.mllib.recommendation import ALS as MLlibALS
from pyspark.mllib.recommendation import MatrixFactorizationModel as MLlibModel

import small_matrix as small
from rddals import ALS, MatrixFactorizationModel, ModelExistsError, ModelFormatError, SettingError

RANK = 3


@pytest.fixture(scope="module")
def model(_spark):
    trained = ALS.train(_spark.parallelize(small.RATINGS, 2), RANK, 1, 0.1, 2, seed=8)
    yield trained
    trained.unpersist()


@pytest.fixture(scope="module")
def saved(model, _spark, tmp_path_factory):
    """A saved model that tests copy."""
    path = tmp_path_factory.mktemp("saved") / "model"
    model.save(_spark, str(path))
    return path


# ------------------------------------------------------------------ exchange with MLlib


def test_mllib_loads_rddals_models(model, sc, tmp_path):
    path = str(tmp_path / "model")
    model.save(sc, path)
    mllib_model = MLlibModel.load(sc, path)
    assert mllib_model.rank == RANK
    assert mllib_model.predict(7, 23) == pytest.approx(model.predict(7, 23), rel=1e-12)
    best = model.recommendProducts(-3, 4)
    assert [r.product for r in mllib_model.recommendProducts(-3, 4)] == [r.product for r in best]
    assert {u: row.tolist() for u, row in mllib_model.userFeatures().collect()} == {
        u: row.tolist() for u, row in model.userFeatures().collect()
    }


def test_rddals_loads_mllib_models(sc, tmp_path):
    path = str(tmp_path / "model")
    mllib_model = MLlibALS.train(sc.parallelize(small.RATINGS, 2), RANK, 2, lambda_=0.1, seed=8)
    mllib_model.save(sc, path)
    rddals_model = MatrixFactorizationModel.load(sc, path)
    assert rddals_model.rank == RANK
    assert type(rddals_model.rank) is int
    pairs = sc.parallelize([(u, p) for u in small.USERS for p in small.PRODUCTS], 2)
    expected, actual = (
        sorted(tuple(r) for r in model.predictAll(pairs).collect())
        for model in (mllib_model, rddals_model)
    )
    assert [r[:2] for r in actual] == [r[:2] for r in expected]
    np.testing.assert_allclose([r[2] for r in actual], [r[2] for r in expected], rtol=1e-6)
    for mllib_best, rddals_best in [
        (mllib_model.recommendUsers(23, 3), rddals_model.recommendUsers(23, 3)),
        (mllib_model.recommendProducts(2, 3), rddals_model.recommendProducts(2, 3)),
    ]:
        assert [r[:2] for r in rddals_best] == [r[:2] for r in mllib_best]


# ------------------------------------------------------------------ bad paths and foreign files


def test_save_does_not_overwrite_a_model(model, sc, tmp_path):
    path = str(tmp_path / "model")
    model.save(sc, path)
    with pytest.raises(ModelExistsError, match="metadata already: save elsewhere"):
        model.save(sc, path)
    assert MatrixFactorizationModel.load(sc, path).rank == RANK


@pytest.mark.parametrize("name", ["a,b", "model*", "is it", "{a}", "[a]", "a?", "back\\slash"])
def test_save_rejects_paths_that_cannot_be_loaded(model, sc, tmp_path, name):
    path = str(tmp_path / name)
    if name == "is it":
        model.save(sc, path)
        assert MatrixFactorizationModel.load(sc, path).rank == RANK
    else:
        with pytest.raises(SettingError, match=r"has a \S in it, .* save under another name"):
            model.save(sc, path)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["is it", "[1]", "a%20b"])
def test_models_at_paths_quoted_by_mllib_load(ratings, sc, tmp_path, name):
    mllib_model = MLlibALS.train(sc.parallelize(ratings, 2), RANK, 1, seed=1)
    path = str(tmp_path / name)
    mllib_model.save(sc, path)
    assert not (tmp_path / name / "metadata").exists()
    rddals_model = MatrixFactorizationModel.load(sc, path)
    assert rddals_model.predict(2, 23) == pytest.approx(mllib_model.predict(2, 23), rel=1e-6)


def test_unwritable_path_raises(model, sc, tmp_path):
    (tmp_path / "file").touch()
    for path, words in (
        (str(tmp_path / "file" / "model"), "file"),
        (str(tmp_path / ("n" * 300)), "nnn"),
        ("nowhere://x/model", 'No FileSystem for scheme "nowhere"'),
        ("a:b", "Relative path in absolute URI"),
    ):
        with pytest.raises(SettingError, match=f"cannot be saved at .*{words}.* Pass a directory"):
            model.save(sc, path)


def test_argument_errors_match_mllib(model, sc):
    for call in (model.save, MatrixFactorizationModel.load):
        with pytest.raises(TypeError, match="sc should be a SparkContext, got type <class 'str'>"):
            call("sc", "path")
        with pytest.raises(TypeError, match="path should be a string, got type <class 'int'>"):
            call(sc, 5)


METADATA = {
    "class": "org.apache.spark.mllib.recommendation.MatrixFactorizationModel",
    "version": "1.0",
    "rank": RANK,
}


def write_metadata(path, text):
    (path / "metadata").mkdir(parents=True)
    (path / "metadata/part-00000").write_text(text)
    return str(path)


def test_missing_path_raises(sc, tmp_path):
    path = str(tmp_path / "nowhere")
    with pytest.raises(ModelFormatError, match="nowhere holds no model"):
        MatrixFactorizationModel.load(sc, path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not describe a model"),
        ("no json", "does not describe a model"),
        ("[1, 2]", "does not describe a model"),
        ("null", "does not describe a model"),
        (json.dumps({"class": METADATA["class"]}), "does not describe a model"),
        (json.dumps(METADATA | {"rank": "many"}), "does not describe a model"),
        (json.dumps(METADATA | {"rank": None}), "does not describe a model"),
        (
            json.dumps(METADATA | {"class": "org.apache.spark.ml.recommendation.ALSModel"}),
            r"holds a model of spark.ml. Load it with pyspark.ml.recommendation.ALSModel.load\('",
        ),
        (
            json.dumps({"class": "rddals.StreamingModel", "version": "1"}),
            r"holds a StreamingModel. Load it with rddals.StreamingModel.load\(sc, '",
        ),
        (json.dumps(METADATA | {"version": "2.0"}), r"of format 2\.0; only .* of format 1\.0"),
        (json.dumps(METADATA), "data/user"),  # metadata, and nothing else
    ],
)
def test_foreign_metadata_raises(sc, tmp_path, text, words):
    path = write_metadata(tmp_path / "model", text)
    with pytest.raises(ModelFormatError, match=words):
        MatrixFactorizationModel.load(sc, path)


def test_model_of_spark_ml_raises(spark, sc, tmp_path):
    from pyspark.ml.recommendation import ALS as SparkALS

    frame = spark.createDataFrame(list(small.RATINGS), ["user", "item", "rating"])
    path = f"file://{tmp_path}/model"
    SparkALS(rank=2, maxIter=1, seed=1).fit(frame).save(path)
    with pytest.raises(ModelFormatError, match=f"^{path} holds a model of spark.ml"):
        MatrixFactorizationModel.load(sc, path)


def test_extra_metadata_is_ignored(model, sc, tmp_path):
    path = tmp_path / "model"
    model.save(sc, str(path))
    (part,) = (p for p in (path / "metadata").glob("part-*") if p.stat().st_size)
    for checksum in (path / "metadata").glob(".*.crc"):
        checksum.unlink()
    part.write_text(json.dumps(METADATA | {"trainedBy": "somebody"}))
    assert MatrixFactorizationModel.load(sc, str(path)).rank == RANK


def test_foreign_columns_raise(sc, spark, tmp_path):
    path = write_metadata(tmp_path / "model", json.dumps(METADATA))
    for side in ("user", "product"):
        spark.createDataFrame([(1, [0.5])], ["key", "row"]).write.parquet(f"{path}/data/{side}")
    with pytest.raises(ModelFormatError, match="no columns id and features"):
        MatrixFactorizationModel.load(sc, path)


def test_wrong_rank_in_metadata_raises(model, sc, tmp_path):
    path = tmp_path / "model"
    model.save(sc, str(path))
    for file in (path / "metadata").iterdir():
        file.unlink()
    (path / "metadata/part-00000").write_text(json.dumps(METADATA | {"rank": RANK + 1}))
    words = f"say rank {RANK + 1} but .*data/user holds features of length {RANK} to {RANK}"
    with pytest.raises(ModelFormatError, match=words):
        MatrixFactorizationModel.load(sc, str(path))


def rewrite(session, path, side, rows, columns="id int, features array<double>"):
    session.createDataFrame(rows, columns).write.mode("overwrite").parquet(f"{path}/data/{side}")


VALID_ROWS = [(1, [0.1, 0.2, 0.3]), (2, [1.0, 2.0, 3.0])]


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        ([*VALID_ROWS, (5, [1.0, float("nan"), 1.0])], None, "data/product holds 1 rows .*: id 5"),
        ([*VALID_ROWS, (5, [1.0, None, 1.0])], None, "not finite 32-bit floats: id 5"),
        ([*VALID_ROWS, (5, [1.0, 1e200, 1.0])], None, "not finite 32-bit floats: id 5"),
        ([*VALID_ROWS, (5, None)], None, "not finite 32-bit floats: id 5"),
        ([*VALID_ROWS, (None, [1.0, 2.0, 3.0])], None, "1 rows without an id"),
        ([*VALID_ROWS, (2, [9.0, 9.0, 9.0])], None, "data/product holds 1 ids more than once"),
        ([(2**40, [1.0, 2.0, 3.0])], "id long, features array<double>", "id of type bigint"),
        ([(1, "1 2 3")], "id int, features string", "features of type string"),
    ],
)
def test_invalid_factors_raise(sc, spark, footprint, saved, tmp_path, rows, columns, words):
    path = shutil.copytree(saved, tmp_path / "model")
    rewrite(spark, path, "product", rows, *filter(None, [columns]))
    with pytest.raises(ModelFormatError, match=words):
        MatrixFactorizationModel.load(sc, str(path))
    assert not footprint.remaining("persisted RDD")


def test_damaged_file_raises(sc, saved, tmp_path):
    path = shutil.copytree(saved, tmp_path / "model")
    for checksum in (path / "data/user").glob(".*.crc"):
        checksum.unlink()
    for part in (path / "data/user").glob("part-*"):
        part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(ModelFormatError, match="data/user cannot be read: a file in it is damaged"):
        MatrixFactorizationModel.load(sc, str(path))


def test_save_into_a_partial_model_raises(model, sc, tmp_path):
    (tmp_path / "model/data/product").mkdir(parents=True)
    with pytest.raises(ModelExistsError, match="model/data/product already"):
        model.save(sc, str(tmp_path / "model"))
    assert not (tmp_path / "model/metadata").exists()


def test_empty_path_raises(model, sc):
    for call in (model.save, MatrixFactorizationModel.load):
        with pytest.raises(SettingError, match="path is empty"):
            call(sc, "")
