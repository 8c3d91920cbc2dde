"""MLlib's model files, written and read: beside MLlib, and where files are foreign or broken."""

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
    """A saved model, to be copied."""
    path = tmp_path_factory.mktemp("saved") / "model"
    model.save(_spark, str(path))
    return path


# ------------------------------------------------------------------ beside MLlib


def test_mllib_loads_ours(model, sc, tmp_path):
    path = str(tmp_path / "model")
    model.save(sc, path)
    theirs = MLlibModel.load(sc, path)
    assert theirs.rank == RANK
    assert theirs.predict(7, 23) == pytest.approx(model.predict(7, 23), rel=1e-12)
    ours = model.recommendProducts(-3, 4)
    assert [r.product for r in theirs.recommendProducts(-3, 4)] == [r.product for r in ours]
    assert {u: row.tolist() for u, row in theirs.userFeatures().collect()} == {
        u: row.tolist() for u, row in model.userFeatures().collect()
    }


def test_we_load_mllib_s(sc, tmp_path):
    path = str(tmp_path / "model")
    theirs = MLlibALS.train(sc.parallelize(small.RATINGS, 2), RANK, 2, lambda_=0.1, seed=8)
    theirs.save(sc, path)
    ours = MatrixFactorizationModel.load(sc, path)
    assert ours.rank == RANK
    assert type(ours.rank) is int
    pairs = sc.parallelize([(u, p) for u in small.USERS for p in small.PRODUCTS], 2)
    wanted, found = (
        sorted(tuple(r) for r in model.predictAll(pairs).collect()) for model in (theirs, ours)
    )
    assert [r[:2] for r in found] == [r[:2] for r in wanted]
    np.testing.assert_allclose([r[2] for r in found], [r[2] for r in wanted], rtol=1e-6)
    for theirs_best, ours_best in [
        (theirs.recommendUsers(23, 3), ours.recommendUsers(23, 3)),
        (theirs.recommendProducts(2, 3), ours.recommendProducts(2, 3)),
    ]:
        assert [r[:2] for r in ours_best] == [r[:2] for r in theirs_best]


# ------------------------------------------------------------------ bad paths and foreign files


def test_a_model_is_not_saved_over_another(model, sc, tmp_path):
    path = str(tmp_path / "model")
    model.save(sc, path)
    with pytest.raises(ModelExistsError, match="metadata already: save elsewhere"):
        model.save(sc, path)
    assert MatrixFactorizationModel.load(sc, path).rank == RANK


@pytest.mark.parametrize("name", ["a,b", "model*", "is it", "{a}", "[a]", "a?", "back\\slash"])
def test_a_model_is_saved_only_where_it_is_found_again(model, sc, tmp_path, name):
    path = str(tmp_path / name)
    if name == "is it":
        model.save(sc, path)
        assert MatrixFactorizationModel.load(sc, path).rank == RANK
    else:
        with pytest.raises(SettingError, match=r"has a \S in it, .* save under another name"):
            model.save(sc, path)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["is it", "[1]", "a%20b"])
def test_mllib_quotes_paths_and_its_models_are_found(ratings, sc, tmp_path, name):
    theirs = MLlibALS.train(sc.parallelize(ratings, 2), RANK, 1, seed=1)
    path = str(tmp_path / name)
    theirs.save(sc, path)
    assert not (tmp_path / name / "metadata").exists()
    ours = MatrixFactorizationModel.load(sc, path)
    assert ours.predict(2, 23) == pytest.approx(theirs.predict(2, 23), rel=1e-6)


def test_what_cannot_be_written_is_told_of(model, sc, tmp_path):
    (tmp_path / "file").touch()
    for path, words in (
        (str(tmp_path / "file" / "model"), "file"),
        (str(tmp_path / ("n" * 300)), "nnn"),
        ("nowhere://x/model", 'No FileSystem for scheme "nowhere"'),
        ("a:b", "Relative path in absolute URI"),
    ):
        with pytest.raises(SettingError, match=f"cannot be saved at .*{words}.* Pass a directory"):
            model.save(sc, path)


def test_mllib_s_words_for_bad_arguments(model, sc):
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


def test_nothing_at_the_path(sc, tmp_path):
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
            "holds org.apache.spark.ml.recommendation.ALSModel of format 1.0",
        ),
        (json.dumps(METADATA | {"version": "2.0"}), r"of format 2\.0; only .* of format 1\.0"),
        (json.dumps(METADATA), "data/user"),  # metadata, and nothing else
    ],
)
def test_foreign_metadata_is_refused(sc, tmp_path, text, words):
    path = write_metadata(tmp_path / "model", text)
    with pytest.raises(ModelFormatError, match=words):
        MatrixFactorizationModel.load(sc, path)


def test_metadata_may_say_more(model, sc, tmp_path):
    path = tmp_path / "model"
    model.save(sc, str(path))
    (part,) = (p for p in (path / "metadata").glob("part-*") if p.stat().st_size)
    for checksum in (path / "metadata").glob(".*.crc"):
        checksum.unlink()
    part.write_text(json.dumps(METADATA | {"trainedBy": "somebody"}))
    assert MatrixFactorizationModel.load(sc, str(path)).rank == RANK


def test_foreign_columns_are_refused(sc, spark, tmp_path):
    path = write_metadata(tmp_path / "model", json.dumps(METADATA))
    for side in ("user", "product"):
        spark.createDataFrame([(1, [0.5])], ["key", "row"]).write.parquet(f"{path}/data/{side}")
    with pytest.raises(ModelFormatError, match="no columns id and features"):
        MatrixFactorizationModel.load(sc, path)


def test_a_rank_that_the_features_do_not_have_is_refused(model, sc, tmp_path):
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


SOUND = [(1, [0.1, 0.2, 0.3]), (2, [1.0, 2.0, 3.0])]


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        ([*SOUND, (5, [1.0, float("nan"), 1.0])], None, "data/product holds 1 rows .*: id 5"),
        ([*SOUND, (5, [1.0, None, 1.0])], None, "no finite 32-bit floats: id 5"),
        ([*SOUND, (5, [1.0, 1e200, 1.0])], None, "no finite 32-bit floats: id 5"),
        ([*SOUND, (5, None)], None, "no finite 32-bit floats: id 5"),
        ([*SOUND, (None, [1.0, 2.0, 3.0])], None, "1 rows without an id"),
        ([*SOUND, (2, [9.0, 9.0, 9.0])], None, "data/product holds 1 ids more than once"),
        ([(2**40, [1.0, 2.0, 3.0])], "id long, features array<double>", "id of type bigint"),
        ([(1, "1 2 3")], "id int, features string", "features of type string"),
    ],
)
def test_factors_that_cannot_be_used_are_refused(sc, spark, saved, tmp_path, rows, columns, words):
    path = shutil.copytree(saved, tmp_path / "model")
    rewrite(spark, path, "product", rows, *filter(None, [columns]))
    before = set(sc._jsc.getPersistentRDDs())
    with pytest.raises(ModelFormatError, match=words):
        MatrixFactorizationModel.load(sc, str(path))
    assert set(sc._jsc.getPersistentRDDs()) == before


def test_a_damaged_file_is_refused(sc, saved, tmp_path):
    path = shutil.copytree(saved, tmp_path / "model")
    for checksum in (path / "data/user").glob(".*.crc"):
        checksum.unlink()
    for part in (path / "data/user").glob("part-*"):
        part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(ModelFormatError, match="data/user cannot be read: a file in it is damaged"):
        MatrixFactorizationModel.load(sc, str(path))


def test_half_a_model_is_not_added_to(model, sc, tmp_path):
    (tmp_path / "model/data/product").mkdir(parents=True)
    with pytest.raises(ModelExistsError, match="model/data/product already"):
        model.save(sc, str(tmp_path / "model"))
    assert not (tmp_path / "model/metadata").exists()


def test_an_empty_path_is_refused(model, sc):
    for call in (model.save, MatrixFactorizationModel.load):
        with pytest.raises(SettingError, match="path is empty"):
            call(sc, "")
