"""Predicted ratings of unseen products, with keyed joins and a manual bias."""

import sys
from collections import namedtuple

from pyspark import SparkConf, SparkContext
from pyspark.mllib.recommendation import ALS, MatrixFactorizationModel

Seen = namedtuple("Seen", "user product stars")

sc = SparkContext(conf=SparkConf().setMaster("local[2]").setAppName("keyed joins"))
sc.setLogLevel("ERROR")

seen = sc.textFile(sys.argv[1]).map(lambda l: Seen(*[float(x) for x in l.split("::")[:3]]))
seen.persist()
mean = seen.map(lambda s: s.stars).mean()
centred = seen.map(lambda s: [s.user, s.product, s.stars - mean])
model = ALS.train(centred, 4, lambda_=0.2, seed=3, blocks=3)
assert isinstance(model, MatrixFactorizationModel)

users = seen.map(lambda s: int(s.user)).distinct()
products = seen.map(lambda s: int(s.product)).distinct()
unseen = users.cartesian(products).subtract(seen.map(lambda s: (int(s.user), int(s.product))))
unseen = unseen.union(sc.parallelize([(-1, 5), (5, 12345)]))  # nobody knows these
predicted = model.predictAll(unseen).map(lambda r: (r.user, (r.product, r.rating + mean)))
best = predicted.reduceByKey(lambda a, b: a if a[1] >= b[1] else b)
activity = seen.map(lambda s: (int(s.user), 1)).reduceByKey(lambda a, b: a + b)
for user, ((product, stars), count) in sorted(best.join(activity).collect())[:8]:
    print("user %d saw %d, should see %d: %.3f" % (user, count, product, stars))
print("%d predictions" % predicted.count())
try:
    model.predict(-1, 5)
except Exception as error:
    print("not known: %s" % ("userId: -1 not found in the model" in str(error)))
sc.stop()
