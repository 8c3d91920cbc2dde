"""The documentation tests of ``pyspark.mllib.recommendation``, with our names in its place."""

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
conf.set("spark.default.parallelism", 4)  # and so blocks: as many as MLlib runs them with
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


def test_mllib_s_own_documentation_tests_pass(tmp_path):
    tests = str(Path(__file__).parents[1])  # where worker_daemon is
    path = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    print(ran.stdout)
    (passed, count) = re.search(r"(\d+) passed of (\d+) run", ran.stdout).groups()
    assert passed == count, ran.stdout
    assert int(count) >= 40
