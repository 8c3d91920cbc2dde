"""The best of several models by held-out RMSE, as in the Spark Summit exercises of 2014."""

import itertools
import sys
from math import sqrt
from operator import add

from pyspark import SparkConf, SparkContext
from pyspark.mllib.recommendation import ALS


def parse_rating(line):
    fields = line.strip().split("::")
    return int(fields[3]) % 10, (int(fields[0]), int(fields[1]), float(fields[2]))


def compute_rmse(model, data, n):
    predictions = model.predictAll(data.map(lambda x: (x[0], x[1])))
    both = (
        predictions.map(lambda x: ((x[0], x[1]), x[2]))
        .join(data.map(lambda x: ((x[0], x[1]), x[2])))
        .values()
    )
    return sqrt(both.map(lambda x: (x[0] - x[1]) ** 2).reduce(add) / float(n))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("Usage: grid_search.py ratings")
        sys.exit(1)

    conf = SparkConf().setAppName("MovieLensALS").setMaster("local[2]")
    sc = SparkContext(conf=conf)
    sc.setLogLevel("ERROR")

    numbered = sc.textFile(sys.argv[1]).zipWithIndex()
    ratings = numbered.map(lambda x: (x[1] % 10, parse_rating(x[0])[1]))
    training = ratings.filter(lambda x: x[0] < 8).values().repartition(2).cache()
    validation = ratings.filter(lambda x: x[0] >= 8).values().cache()
    n = validation.count()
    print("Training: %d, validation: %d" % (training.count(), n))

    best = None
    for rank, lmbda, iterations in itertools.product([4, 8], [0.1], [5]):
        model = ALS.train(training, rank, iterations, lmbda, seed=42)
        rmse = compute_rmse(model, validation, n)
        print("RMSE = %.4f for rank = %d, lambda = %.1f" % (rmse, rank, lmbda))
        if best is None or rmse < best[0]:
            best = rmse, rank, lmbda
    print("Best: rank %d, lambda %.1f" % best[1:])
    sc.stop()
