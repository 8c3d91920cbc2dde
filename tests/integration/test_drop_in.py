"""Unmodified MLlib programs print the same with rddals."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest
from py4j.protocol import Py4JJavaError
from pyspark.mllib import recommendation

import rddals

PYSPARK = Path(pyspark.__file__).parent
SAMPLE = PYSPARK / "data/mllib/als/sample_movielens_ratings.txt"
EXAMPLE = PYSPARK / "examples/src/main/python/mllib/recommendation_example.py"
SCRIPTS = sorted((Path(__file__).parents[1] / "scripts").glob("*.py"))
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


def start(*command, cwd):
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        # Faster and quiet, without changes to the scripts.
        "PYSPARK_SUBMIT_ARGS": "--conf spark.ui.enabled=false "
        "--conf spark.ui.showConsoleProgress=false "
        "--conf spark.python.unix.domain.socket.enabled=true pyspark-shell",
    }
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*command, cwd):
    """Run a program and return its exit code, output and errors."""
    process = start(*command, cwd=cwd)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


# One process for all scripts, to start one JVM: plain, or like `python -m rddals`.
RUN_ALL = """
import contextlib, io, json, runpy, sys

how, ratings, *scripts = sys.argv[1:]
if how == "plain":
    run = lambda arguments: runpy.run_path(arguments[0], run_name="__main__")
else:
    from rddals.__main__ import main as run
printed = {}
for script in scripts:
    sys.argv = [script, ratings]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            run(sys.argv)
        except SystemExit as end:
            print("exit code", end.code)
    printed[script] = out.getvalue()
print(json.dumps(printed))
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Output of each script with MLlib and with rddals."""
    folder = tmp_path_factory.mktemp("scripts")
    processes = [
        start("-c", RUN_ALL, how, SAMPLE, *SCRIPTS, cwd=folder) for how in ("plain", "rddals")
    ]
    ended = [process.communicate(timeout=500) for process in processes]
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors
    return tuple(json.loads(out.splitlines()[-1]) for out, _ in ended)


@pytest.mark.long
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script_prints_the_same_as_with_mllib(printed, script):
    expected, actual = (of[str(script)] for of in printed)
    assert len(expected.splitlines()) >= 4
    assert NUMBER.sub("#", actual) == NUMBER.sub("#", expected)
    # One unit of the last digit: equal numbers may round to either side of a half.
    for number, reference in zip(NUMBER.findall(actual), NUMBER.findall(expected), strict=True):
        digits = len(reference.partition(".")[2])
        assert float(number) == pytest.approx(float(reference), abs=1.01 * 10**-digits)


@pytest.mark.long
def test_sparks_example_runs(tmp_path):
    (tmp_path / "data").symlink_to(PYSPARK / "data")
    code, out, err = run("-m", "rddals", EXAMPLE, cwd=tmp_path)
    assert code == 0, err
    (error,) = re.fullmatch(r"Mean Squared Error = (\S+)\n", out).groups()
    assert 0 < float(error) < 1e-3
    assert (tmp_path / "target/tmp/myCollaborativeFilter/metadata").is_dir()


@pytest.fixture
def script(tmp_path):
    def write(text):
        path = tmp_path / "app.py"
        path.write_text(text)
        return path

    return write


IMPORTS = """
import pyspark.mllib.recommendation as r
import pyspark.mllib.recommendation
from pyspark.mllib import recommendation
from pyspark.mllib.recommendation import *
import rddals, importlib

assert r.ALS is recommendation.ALS is pyspark.mllib.recommendation.ALS is ALS is rddals.ALS
assert r.MatrixFactorizationModel is MatrixFactorizationModel is rddals.MatrixFactorizationModel
assert Rating is rddals.Rating
assert importlib.import_module("pyspark.mllib.recommendation").ALS is rddals.ALS
print("all rddals")
"""


def test_every_import_form_gives_rddals(script, tmp_path):
    assert run("-m", "rddals", script(IMPORTS), cwd=tmp_path)[:2] == (0, "all rddals\n")


def test_script_environment_is_unchanged(script, tmp_path):
    (tmp_path / "helper.py").write_text("NAME = 'helper'\n")
    path = script(
        "import sys, helper, __main__\n"
        "print(sys.argv, __name__, __file__, helper.NAME, sys.path[0])\n"
        "print(__main__.__dict__ is globals(), __doc__, __package__)\n"
        "print(type(__loader__), __loader__.path, __cached__)\n"
    )
    for name, folder in ((path, "/"), ("app.py", tmp_path)):
        plain = run(name, "--rank", "-m", cwd=folder)
        assert run("-m", "rddals", name, "--rank", "-m", cwd=folder) == plain
        assert plain[0] == 0


@pytest.mark.parametrize(
    "body",
    [
        "import sys; sys.exit(7)",
        "import sys; sys.exit('no ratings')",
        "def f():\n    return 1 / 0\n\n\nf()",
        "try:\n    {}[1]\nexcept KeyError as error:\n    raise RuntimeError('no') from error",
        "def f(:\n    pass",
        "raise KeyboardInterrupt",
        "import atexit; atexit.register(print, 'bye'); raise SystemExit",
    ],
)
def test_exit_codes_and_tracebacks_are_unchanged(script, tmp_path, body):
    path = script(body).name
    code, out, err = run(path, cwd=tmp_path)
    assert run("-m", "rddals", path, cwd=tmp_path) == (code, out, err)


def test_missing_script_exits_with_2(tmp_path):
    code, out, err = run("-m", "rddals", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("usage: python -m rddals SCRIPT")
    code, out, err = run("-m", "rddals", "nothing.py", cwd=tmp_path)
    assert (code, out, err) == (
        2,
        "",
        "python -m rddals: 'nothing.py' cannot be read: No such file or directory\n",
    )
    code, out, _ = run("-m", "rddals", "--help", cwd=tmp_path)
    assert code == 0
    assert out.startswith("usage: python -m rddals SCRIPT")


def test_command_for_the_command_line_is_named(tmp_path):
    code, _, err = run("-m", "rddals", "train", "ratings.csv", cwd=tmp_path)
    assert code == 2
    assert err.endswith("No such file or directory; the command line is python -m rddals.cli\n")


CATCHES = """
from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.mllib.recommendation import ALS, MatrixFactorizationModel, Rating

sc = SparkContext("local[1]")
model = ALS.train(sc.parallelize([Rating(1, 2, 3.0), Rating(2, 2, 1.0)]), 1, 1, seed=1)
model.save(sc, "model")
for call in (
    lambda: MatrixFactorizationModel.load(sc, "nowhere"),
    lambda: model.predict(1, 9),
    lambda: model.predict(9, 2),
    lambda: model.recommendProducts(9, 2),
    lambda: model.save(sc, "model"),
):
    try:
        call()
    except Py4JJavaError as error:
        print("caught", bool(str(error)), str(error) == error.java_exception.getMessage())
"""


def test_programs_that_catch_java_errors_run(script, tmp_path):
    code, out, err = run("-m", "rddals", script(CATCHES), cwd=tmp_path)
    assert (code, out) == (0, "caught True True\n" * 5), err


NOISE = """
import logging

logging.basicConfig(level=logging.INFO)
from pyspark import SparkContext
from rddals import ALS, StreamingALS

sc = SparkContext("local[2]")
logging.info("the program's own line")
rows = sc.parallelize([(u, p, 1.0 + (u + p) % 5) for u in range(9) for p in range(7)], 2)
for exchange in ("shuffle", "broadcast", "join", "local"):
    model = ALS.train(rows, 2, 25, exchange=exchange, seed=1)
    model.predictAll(rows.map(lambda row: row[:2])).count()
    model.unpersist()
stream = StreamingALS(rank=2, seed=1)
for _ in range(3):
    stream.train(rows)
"""


def test_programs_print_nothing_that_they_did_not_ask_for(script, tmp_path):
    code, _, err = run(script(NOISE), cwd=tmp_path)
    assert code == 0, err
    assert "INFO:root:the program's own line" in err
    assert "locally checkpointed" not in err
    assert "rddals" not in err


def imported_classes():
    from pyspark.mllib import recommendation
    from pyspark.mllib.recommendation import ALS, MatrixFactorizationModel

    assert recommendation.ALS is ALS
    return ALS, MatrixFactorizationModel


def test_install_and_uninstall(sc):
    mllib_classes = imported_classes()
    assert mllib_classes == (recommendation.ALS, recommendation.MatrixFactorizationModel)
    assert mllib_classes[0] is not rddals.ALS
    rows = [
        rddals.Rating(user, product, user * product % 5) for user in range(6) for product in (1, 2)
    ]
    try:
        rddals.install()
        rddals.install()
        assert imported_classes() == (rddals.ALS, rddals.MatrixFactorizationModel)
        # Names imported before are still MLlib's and work.
        ratings = sc.parallelize(pickle.loads(pickle.dumps(rows)))
        assert type(mllib_classes[0].train(ratings, 2, 1, seed=1)) is mllib_classes[1]
        assert issubclass(rddals.UnknownIdError, Py4JJavaError)
        assert str(rddals.UnknownIdError("id 3")) == "id 3"
    finally:
        rddals.uninstall()
    assert not issubclass(rddals.UnknownIdError, Py4JJavaError)
    assert not hasattr(rddals.UnknownIdError, "java_exception")
    assert imported_classes() == mllib_classes
