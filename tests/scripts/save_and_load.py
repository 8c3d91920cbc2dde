"""A nightly job: train, save, load again, serve."""

import os
import shutil
import sys
import tempfile

from pyspark import SparkContext
from pyspark.mllib.recommendation import ALS, MatrixFactorizationModel, Rating
from pyspark.sql import SparkSession

sc = SparkContext("local[2]", "save and load")
sc.setLogLevel("ERROR")
spark = SparkSession(sc)

lines = sc.textFile(sys.argv[1]).map(lambda l: l.split("::"))
frame = spark.createDataFrame(lines.map(lambda p: Rating(int(p[0]), int(p[1]), float(p[2]))))
model = ALS.train(frame, 5, iterations=6, lambda_=0.05, nonnegative=True, seed=99)

folder = tempfile.mkdtemp()
path = os.path.join(folder, "model")
try:
    model.save(sc, path)
    same = MatrixFactorizationModel.load(sc, path)
    print(sorted(os.listdir(path)))
    print("rank %d, %d users" % (same.rank, same.userFeatures().count()))
    for user, product in [(0, 2), (7, 30), (29, 99)]:
        print("%.4f %.4f" % (model.predict(user, product), same.predict(user, product)))
    smallest = same.userFeatures().flatMap(lambda kv: kv[1]).min()
    print("nonnegative:", smallest >= 0)
finally:
    shutil.rmtree(folder)
sc.stop()
