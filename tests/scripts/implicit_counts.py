"""Recommendations from play counts as implicit feedback."""

import sys

from pyspark import SparkContext
from pyspark.mllib import recommendation
from pyspark.mllib.recommendation import Rating


def plays(line):
    user, artist, stars, _ = line.split("::")
    return (user, artist), int(float(stars))


def main(path):
    sc = SparkContext("local[2]", "implicit counts")
    sc.setLogLevel("ERROR")
    counts = sc.textFile(path).map(plays).reduceByKey(lambda a, b: a + b, 2)
    # Ids and counts as text: Rating turns them into numbers.
    data = counts.map(lambda kv: Rating(kv[0][0], kv[0][1], kv[1])).cache()
    model = recommendation.ALS.trainImplicit(data, rank=5, iterations=8, alpha=1.0, seed=7)
    print("rank", model.rank)
    for rating in model.recommendProducts(3, 4):
        print("user 3 may like artist %d (%.3f)" % (rating.product, rating.rating))
    for rating in model.recommendUsers(20, 3):
        print("artist 20 may please user %d (%.3f)" % (rating.user, rating.rating))
    top = model.recommendProductsForUsers(2).mapValues(lambda rs: [r.product for r in rs])
    for user, artists in sorted(top.collect())[:5]:
        print(user, artists)
    sc.stop()
    return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
