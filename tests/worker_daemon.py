"""Spark's daemon of Python workers, with the large libraries imported once.

Workers are its forks. Each that ends early (PySpark's own `first` and `take` cost one) would have
its successor import for seconds. rddals is not among the imports: workers find it as ever.
"""

import os
import sys

# PySpark's own folder rather than the zip file in front of it, which has no compiled modules and
# which PySpark 3.5 would list anew for every task.
sys.path[:] = [path for path in sys.path if not path.endswith((".zip", ".jar"))]
sys.path_importer_cache.clear()
# No threads before a fork; Arrow, which pandas imports, would start one.
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"

import pyspark.mllib.recommendation  # noqa: E402
import pyspark.worker  # noqa: E402, F401
import scipy.linalg  # noqa: E402, F401
from pyspark.daemon import manager  # noqa: E402

if __name__ == "__main__":
    manager()
