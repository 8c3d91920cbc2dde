"""Daemon of Spark's Python workers that imports the large libraries once.

Workers are forks of it. With PySpark's own daemon, the successor of every worker that ends early
(`first` and `take` end one) imports for seconds. Workers still import rddals as usual.
"""

import os
import sys

# Import PySpark from its folder and not from the zip file before it on the path, which has no
# compiled modules and which PySpark 3.5 lists again for every task.
sys.path[:] = [path for path in sys.path if not path.endswith((".zip", ".jar"))]
sys.path_importer_cache.clear()
# No threads before a fork: Arrow, imported by pandas, would start one.
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"

import pyspark.mllib.recommendation  # noqa: E402
import pyspark.worker  # noqa: E402, F401
import scipy.linalg  # noqa: E402, F401
from pyspark.daemon import manager  # noqa: E402

if __name__ == "__main__":
    manager()
