"""Programs written for MLlib, unmodified: the same output from ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest
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
    """Exit code, output and errors of a program."""
    process = start(*command, cwd=cwd)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_prints_what_it_always_printed(script, tmp_path):
    plain = start(script, SAMPLE, cwd=tmp_path)
    ours = start("-m", "rddals", script, SAMPLE, cwd=tmp_path)
    expected, plain_errors = plain.communicate(timeout=300)
    printed, errors = ours.communicate(timeout=300)
    assert plain.returncode == ours.returncode, (plain_errors, errors)
    assert len(expected.splitlines()) >= 5
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", expected)
    # One unit of the last printed digit: the same number may round to either side of a half.
    for one, other in zip(NUMBER.findall(printed), NUMBER.findall(expected), strict=True):
        digits = len(other.partition(".")[2])
        assert float(one) == pytest.approx(float(other), abs=1.01 * 10**-digits)


def test_spark_s_own_example(tmp_path):
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
print("all ours")
"""


def test_every_import_gives_ours(script, tmp_path):
    assert run("-m", "rddals", script(IMPORTS), cwd=tmp_path)[:2] == (0, "all ours\n")


def test_a_script_finds_itself_as_ever(script, tmp_path):
    (tmp_path / "helper.py").write_text("NAME = 'helper'\n")
    path = script(
        "import sys, helper, __main__\n"
        "print(sys.argv, __name__, __file__, helper.NAME, sys.path[0])\n"
        "print(__main__.__dict__ is globals(), __doc__, __package__)\n"
    )
    plain = run(path, "--rank", "-m", cwd="/")
    assert run("-m", "rddals", path, "--rank", "-m", cwd="/") == plain
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
def test_exit_codes_and_tracebacks_are_the_script_s_own(script, tmp_path, body):
    path = script(body)
    code, out, err = run(path, cwd=tmp_path)
    assert run("-m", "rddals", path, cwd=tmp_path) == (code, out, err)


def test_no_script_is_a_wrong_call(tmp_path):
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


def test_installed_and_uninstalled_again():
    mllib = recommendation.ALS, recommendation.MatrixFactorizationModel
    assert mllib[0] is not rddals.ALS
    try:
        rddals.install()
        rddals.install()
        assert recommendation.ALS is rddals.ALS
        assert recommendation.MatrixFactorizationModel is rddals.MatrixFactorizationModel
    finally:
        rddals.uninstall()
    assert (recommendation.ALS, recommendation.MatrixFactorizationModel) == mllib
