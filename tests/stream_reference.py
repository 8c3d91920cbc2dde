"""A stream's batch in float64, one rating at a time: slow, and short enough to check by eye.

Rows are dicts of id to ``[factor..., bias]``; those of ids without one are zero, but for new
products' factors.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np


class Stream:
    """What `rddals.StreamingALS` learns; `start` gives a new product's factor."""

    def __init__(self, rank, start, *, lambda_=0.05, gamma=0.5, iterations=1):
        self.start, self.lambda_, self.gamma, self.iterations = start, lambda_, gamma, iterations
        self.users = defaultdict(lambda: np.zeros(rank + 1))
        self.products = defaultdict(lambda: np.zeros(rank + 1))
        self.seen_users, self.seen_products = Counter(), Counter()
        self.ratings = []

    @property
    def mean(self):
        return np.mean(self.ratings)

    def train(self, batch):
        """Learn from (user, product, rating)s."""
        self.ratings += [rating for _, _, rating in batch]
        for product in {product for _, product, _ in batch} - self.products.keys():
            self.products[product][:-1] = self.start(product)
        by_user = [(user, product, rating) for user, product, rating in batch]
        by_product = [(product, user, rating) for user, product, rating in batch]
        found = dict(self.users), dict(self.products)
        for iteration in range(self.iterations):
            users, products = found if iteration else (None, None)
            self.products.update(
                self.stepped(by_product, self.products, self.users, self.seen_products, products)
            )
            self.users.update(
                self.stepped(by_user, self.users, self.products, self.seen_users, users)
            )
        self.seen_users.update(user for user, _, _ in by_user)
        self.seen_products.update(product for product, _, _ in by_product)

    def stepped(self, batch, own, other, seen, anchors=None):
        """The rows of one side's ids after a step; `batch` has them first."""
        rows = {}
        for id_ in {id_ for id_, _, _ in batch}:
            x, gradient, curvature, n = own[id_], 0.0, 0.0, seen[id_]
            for _, other_id, rating in (of_id for of_id in batch if of_id[0] == id_):
                y = np.append(other[other_id][:-1], 1)
                error = rating - (self.mean + x @ y + other[other_id][-1])
                gradient = gradient + error * y - self.lambda_ * x
                curvature += y @ y + self.lambda_
                n += 1
            if anchors is not None:
                pull = self.inertia(seen[id_], len(x))
                gradient = gradient - pull * (x - anchors.get(id_, np.zeros(len(x))))
                curvature = curvature + pull
            rows[id_] = x + gradient / np.maximum(self.inertia(n, len(x)), curvature)
        return rows

    def inertia(self, n, width):
        return np.array([np.sqrt(n) / self.gamma] * (width - 1) + [1 / self.gamma + n])

    def predicted(self, user, product):
        none = np.zeros(1 + len(next(iter(self.users.values()))[:-1]))
        x, y = self.users.get(user, none), self.products.get(product, none)
        return self.mean + x[-1] + y[-1] + x[:-1] @ y[:-1]
