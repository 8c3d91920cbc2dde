"""The doctests of ``pyspark.mllib.recommendation``, run on rddals."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import doctest
import pyspark.mllib.recommendation as mllib
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

import rddals

conf = SparkConf().setMaster("local[2]").setAppName("documentation tests")
conf.set("spark.default.parallelism", 4)  # and so blocks, as MLlib's doctests expect
conf.set("spark.ui.enabled", "false").set("spark.python.daemon.module", "worker_daemon")
conf.set("spark.python.unix.domain.socket.enabled", "true")
sc = SparkContext(conf=conf)
sc.setLogLevel("ERROR")
names = {**vars(mllib), "sc": sc, "sqlContext": SparkSession(sc)}
names |= {"ALS": rddals.ALS, "MatrixFactorizationModel": rddals.MatrixFactorizationModel}
runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
for test in doctest.DocTestFinder().find(mllib, "pyspark.mllib.recommendation", globs=names):
    runner.run(test)
print(f"{runner.tries - runner.failures} passed of {runner.tries} run")
sc.stop()
"""


def test_mllib_doctests_pass(tmp_path):
    support = str(Path(__file__).parents[1] / "support")  # the folder of worker_daemon
    path = os.pathsep.join([support, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    print(process.stdout)
    (passed, count) = re.search(r"(\d+) passed of (\d+) run", process.stdout).groups()
    assert passed == count, process.stdout
    assert int(count) >= 40
