"""The documentation tests of ``pyspark.mllib.recommendation``, with our names in its place."""

from __future__ import annotations

import re
import subprocess
import sys

PROGRAM = """
import doctest
import pyspark.mllib.recommendation as mllib
from pyspark import SparkContext
from pyspark.sql import SparkSession

import rddals

sc = SparkContext("local[4]", "documentation tests")  # as many cores as MLlib runs them with
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
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    print(ran.stdout)
    (passed, count) = re.search(r"(\d+) passed of (\d+) run", ran.stdout).groups()
    assert passed == count, ran.stdout
    assert int(count) >= 40
