"""Reference implementation of streams, in float64, one rating at a time.

Rows are dicts of id to ``[factor..., bias]``. Rows of new ids are zero, except products' factors.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np


class ReferenceStream:
    """Reference for `rddals.StreamingALS`; `start` gives a new product's factor."""

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
        """Learn a batch of (user, product, rating)."""
        self.ratings += [rating for _, _, rating in batch]
        for product in {product for _, product, _ in batch} - self.products.keys():
            self.products[product][:-1] = self.start(product)
        by_user = [(user, product, rating) for user, product, rating in batch]
        by_product = [(product, user, rating) for user, product, rating in batch]
        previous = dict(self.users), dict(self.products)
        for iteration in range(self.iterations):
            users, products = previous if iteration else (None, None)
            self.products.update(
                self.updated_rows(
                    by_product, self.products, self.users, self.seen_products, products
                )
            )
            self.users.update(
                self.updated_rows(by_user, self.users, self.products, self.seen_users, users)
            )
        self.seen_users.update(user for user, _, _ in by_user)
        self.seen_products.update(product for product, _, _ in by_product)

    def updated_rows(self, batch, own, other, seen, anchors=None):
        """Return one side's rows after a step; its ids come first in `batch`."""
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
        zero = np.zeros(1 + len(next(iter(self.users.values()))[:-1]))
        x, y = self.users.get(user, zero), self.products.get(product, zero)
        return self.mean + x[-1] + y[-1] + x[:-1] @ y[:-1]


class ReferenceALSStream(ReferenceStream):
    """Reference for ``update="als"``: rows are solved from all their ratings."""

    def __init__(self, rank, start, *, lambda_=8.0, bias_lambda=(10.0, 2.0), iterations=1):
        super().__init__(rank, start, lambda_=lambda_, iterations=iterations)
        self.bias_lambda = bias_lambda
        self.history = []

    def train(self, batch):
        self.history += batch
        self.ratings += [rating for _, _, rating in batch]
        for product in {product for _, product, _ in batch} - self.products.keys():
            self.products[product][:-1] = self.start(product)
        users, products = ({rating[side] for rating in batch} for side in (0, 1))
        for _ in range(self.iterations):
            self.solve(users, products)

    def sweep(self, iterations):
        for _ in range(iterations):
            self.solve({user for user, _, _ in self.history}, {p for _, p, _ in self.history})

    def solve(self, users, products):
        for user in users:
            own = [(self.products[p], rating) for u, p, rating in self.history if u == user]
            self.users[user] = self.ridge(own, self.bias_lambda[0])
        for product in products:
            own = [(self.users[u], rating) for u, p, rating in self.history if p == product]
            self.products[product] = self.ridge(own, self.bias_lambda[1])

    def ridge(self, own, bias_lambda):
        rows, ratings = (np.array(column) for column in zip(*own, strict=True))
        design = np.concatenate([rows[:, :-1], np.ones((len(rows), 1))], axis=1)
        penalty = np.diag([self.lambda_] * (design.shape[1] - 1) + [bias_lambda])
        targets = ratings - self.mean - rows[:, -1]
        return np.linalg.solve(design.T @ design + penalty, design.T @ targets)

    def loss(self):
        """Return the loss that is minimised."""
        errors = sum((r - self.predicted(u, p)) ** 2 for u, p, r in self.history)
        for side, bias_lambda in zip((self.users, self.products), self.bias_lambda, strict=True):
            rows = np.array(list(side.values()))
            errors += (
                self.lambda_ * (rows[:, :-1] ** 2).sum() + bias_lambda * (rows[:, -1] ** 2).sum()
            )
        return errors
