"""Ratings and sessions that rddals does not take raise an error that names the call to make."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyspark
import pytest
from scipy.sparse import coo_array, csr_matrix

import rddals
import small_matrix as small
from rddals import ALS, MatrixFactorizationModel, RatingTypeError, StreamingALS

COLUMNS = ["user", "item", "rating"]
FRAME = pd.DataFrame(small.RATINGS, columns=COLUMNS)

INPUTS = {
    "pandas": (FRAME, "spark.createDataFrame(ratings)"),
    "pyarrow": (pa.table(FRAME), "spark.createDataFrame(ratings.to_pandas())"),
    "array": (np.array(small.RATINGS), "sc.parallelize([tuple(ratings.T)])"),
    "list": (list(small.RATINGS), "sc.parallelize(ratings)"),
    "matrix": (csr_matrix(np.eye(3)), "sc.parallelize([(m.row, m.col, m.data)])"),
    "sparse array": (coo_array(np.eye(3)), "with m = ratings.tocoo()"),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_error_names_the_conversion(kind):
    ratings, call = INPUTS[kind]
    for train in (ALS.train, ALS.trainImplicit):
        with pytest.raises(RatingTypeError) as caught:
            train(ratings, 2)
        assert call in str(caught.value)
    for use in (lambda: StreamingALS(rank=2).train(ratings), lambda: rddals.plan(ratings, rank=2)):
        with pytest.raises(RatingTypeError) as caught:
            use()
        assert call in str(caught.value)


def test_named_conversions_work(sc, spark):
    expected = ALS.train(sc.parallelize(small.RATINGS), 2, 1, blocks=2, seed=1).toLocal()
    for ratings in (
        spark.createDataFrame(FRAME),
        spark.createDataFrame(pa.table(FRAME).to_pandas()),
        sc.parallelize([tuple(np.array(small.RATINGS).T)]),
    ):
        model = ALS.train(ratings, 2, 1, blocks=2, seed=1).toLocal()
        np.testing.assert_allclose(model.users.rows, expected.users.rows, rtol=1e-5)


@pytest.mark.skipif(pyspark.__version__ < "4", reason="pyspark.pandas of 3.5 needs NumPy 1")
def test_pandas_on_spark(sc, spark):
    frame = spark.createDataFrame(FRAME).pandas_api()
    with pytest.raises(RatingTypeError, match=r"Pass ratings\.to_spark\(\)"):
        ALS.train(frame, 2)
    model = ALS.train(frame.to_spark(index_col="row"), 2, 1, seed=1)
    assert model.userFeatures().count() == len(small.USERS)


def test_sparse_matrix_as_columns(sc):
    """A matrix has no negative rows, so this one has its own ids."""
    rows, columns, values = np.array([0, 0, 1, 2]), np.array([1, 2, 0, 2]), np.array([5, 3, 1, 4])
    m = csr_matrix((values, (rows, columns))).tocoo()
    model = ALS.train(sc.parallelize([(m.row, m.col, m.data)]), 2, 1, seed=1)
    assert sorted(model.userFeatures().keys().collect()) == [0, 1, 2]


def test_session_in_place_of_a_context(sc, spark, tmp_path):
    path = str(tmp_path / "model")
    trained = ALS.train(sc.parallelize(small.RATINGS), 2, 1, seed=1)
    trained.save(spark, path)
    assert MatrixFactorizationModel.load(spark, path).predict(7, 23) == trained.predict(7, 23)
    with pytest.raises(TypeError, match="sc should be a SparkContext, got type <class 'str'>"):
        MatrixFactorizationModel.load("spark", path)


CONNECT = """
import sys
from pyspark.sql import SparkSession
import rddals
from rddals.indexer import index_ratings
from rddals.measure import ShuffleMeter

spark = SparkSession.builder.remote("local[1]").getOrCreate()
frame = spark.createDataFrame([(1, 2, 3.0)], ["user", "item", "rating"])
for call in (
    lambda: rddals.ALS.train(frame, 2),
    lambda: rddals.ALS.trainImplicit(frame, 2),
    lambda: rddals.StreamingALS(rank=2).train(frame),
    lambda: rddals.plan(frame, rank=2),
    lambda: index_ratings(frame),
    lambda: rddals.MatrixFactorizationModel.load(spark, "nowhere"),
    lambda: rddals.StreamingModel.load(spark, "nowhere"),
    lambda: ShuffleMeter(spark),
):
    try:
        call()
    except rddals.SettingError as error:
        print(error)
spark.stop()
"""


@pytest.mark.skipif(pyspark.__version__ < "4", reason="PySpark 3.5 does not contain Connect's JAR")
def test_spark_connect_is_refused(tmp_path):
    for module in ("grpc_status", "zstandard"):
        pytest.importorskip(module, reason=f"Spark Connect needs {module}")
    environment = {**os.environ, "PYTHONPATH": str(Path(rddals.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", CONNECT],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 8, done.stdout
    assert all("Use a classic session" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ([], {"SPARK_REMOTE": "sc://localhost"}),
        ([], {"SPARK_API_MODE": "connect"}),
        (["--conf", "spark.remote=local"], {}),
        (["--conf", "spark.api.mode=connect"], {}),
    ],
)
def test_spark_connect_is_refused_by_the_command_line(tmp_path, options, variables):
    (tmp_path / "ratings.csv").write_text("user,item,rating\n1,2,3\n")
    command = [sys.executable, "-m", "rddals.cli", "train", "ratings.csv", "--out", "model"]
    done = subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(rddals.__file__).parents[1]), **variables},
    )
    assert done.returncode == 2
    assert "Spark Connect does not have" in done.stderr
