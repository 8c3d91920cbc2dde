"""Recommendations with the names of the movies joined in."""

import sys

import pyspark.mllib.recommendation as rec
from pyspark import SparkContext

sc = SparkContext("local[2]", "names joined")
sc.setLogLevel("ERROR")

ratings = (
    sc.textFile(sys.argv[1])
    .map(lambda l: l.split("::"))
    .map(lambda p: rec.Rating(int(p[0]), int(p[1]), float(p[2])))
)
names = ratings.map(lambda r: r.product).distinct().map(lambda m: (m, "Movie #%d" % m))
model = rec.ALS.train(ratings, 6, 8, 0.1, seed=1, blocks=2)

for user in [0, 12]:
    best = sc.parallelize(model.recommendProducts(user, 5)).map(lambda r: (r.product, r))
    print("For user %d:" % user)
    for _, (r, name) in best.join(names).sortBy(lambda kv: -kv[1][0].rating).collect():
        print("%s: %.3f" % (name, r.rating))

# A movie's neighbours by the cosine of their factors.
_, factor = model.productFeatures().filter(lambda kv: kv[0] == 50).first()
assert list(factor) == list(model.productFeatures().lookup(50)[0])


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b))
    return dot / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5


similar = model.productFeatures().mapValues(lambda other: cosine(factor, other))
for product, similarity in similar.takeOrdered(4, key=lambda kv: -kv[1]):
    print("%d is like 50: %.3f" % (product, similarity))
sc.stop()
