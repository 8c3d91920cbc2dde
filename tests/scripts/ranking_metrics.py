"""RegressionMetrics and RankingMetrics of a model, as in Spark's guide."""

import sys

from pyspark import SparkContext
from pyspark.mllib.evaluation import RankingMetrics, RegressionMetrics
from pyspark.mllib.recommendation import ALS, Rating

sc = SparkContext("local[2]", "ranking metrics")
sc.setLogLevel("ERROR")


def parse(line):
    fields = line.split("::")
    return Rating(int(fields[0]), int(fields[1]), float(fields[2]) - 2.5)


ratings = sc.textFile(sys.argv[1]).map(parse).cache()
model = ALS.train(ratings, 10, 10, 0.01, seed=5)

user_products = ratings.map(lambda p: (p.user, p.product))
predictions = model.predictAll(user_products).map(lambda r: ((r.user, r.product), r.rating))
pairs = ratings.map(lambda r: ((r.user, r.product), r.rating)).join(predictions)
metrics = RegressionMetrics(pairs.map(lambda kv: (kv[1][1], kv[1][0])))
print("RMSE = %.4f" % metrics.rootMeanSquaredError)
print("MAE = %.4f" % metrics.meanAbsoluteError)
print("R-squared = %.4f" % metrics.r2)

liked = ratings.filter(lambda r: r.rating > 0).map(lambda r: (r.user, r.product)).groupByKey()
best = model.recommendProductsForUsers(10).mapValues(lambda rs: [r.product for r in rs])
ranking = RankingMetrics(best.join(liked.mapValues(list)).values())
print("precision at 5 = %.4f" % ranking.precisionAt(5))
print("MAP = %.4f" % ranking.meanAveragePrecision)
print("NDCG at 10 = %.4f" % ranking.ndcgAt(10))
sc.stop()
