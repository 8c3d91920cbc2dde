"""Workers of a local Spark run the driver's Python."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
{imports}
sc = SparkContext("local[2]", conf=SparkConf().set("spark.ui.enabled", "false"))
{late}
ratings = sc.parallelize([(u, p, 1.0 + (u + p) % 5) for u in range(9) for p in range(7)], 2)
ratings = ratings.map(lambda r: Rating(*r)).cache()
print(ratings.count(), "ratings", sorted(set(ratings.map(lambda _: sys.executable).collect())))
model = ALS.train(ratings, 2, 2, seed=1)
print(model.predictAll(ratings.map(lambda r: (r[0], r[1]))).count(), "predictions")
"""
SPARK = "from pyspark import SparkConf, SparkContext"
EARLY = f"from rddals import ALS, Rating\n{SPARK}"
LATE = "from rddals import ALS, Rating"


def run(tmp_path, program, **variables):
    """Run a program by the path of its Python; the ``python3`` on the PATH is another."""
    other = tmp_path / "bin" / "python3"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\necho wrong Python >&2\nexit 1\n")
    other.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYSPARK_")}
    environment |= {"PATH": f"{other.parent}:{os.environ['PATH']}"} | variables
    script = tmp_path / "app.py"
    script.write_text(program)
    return subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, cwd=tmp_path
    )


@pytest.mark.parametrize(("imports", "late"), [(EARLY, ""), (SPARK, LATE)], ids=["early", "late"])
def test_python_that_is_not_activated(tmp_path, imports, late):
    done = run(tmp_path, PROGRAM.format(imports=imports, late=late))
    assert done.returncode == 0, done.stderr
    assert f"63 ratings ['{sys.executable}']" in done.stdout
    assert "63 predictions" in done.stdout


def test_chosen_python_stays(tmp_path):
    program = PROGRAM.format(imports=EARLY, late="")
    done = run(tmp_path, program, PYSPARK_PYTHON=str(tmp_path / "bin" / "python3"))
    assert done.returncode != 0
    assert "wrong Python" in done.stderr


def test_contexts_of_a_cluster_keep_their_python(tmp_path):
    program = f"{EARLY}\nsc = SparkContext('local-cluster[1,1,1024]')\nprint(sc.pythonExec)"
    assert "python3\n" in run(tmp_path, program).stdout
