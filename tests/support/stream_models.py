"""Contents of streaming models, and the settings of their tests."""

from __future__ import annotations

import numpy as np

from rddals.streaming.history import all_ratings

RANK, SEED = 3, 11
SETTINGS = {"rank": RANK, "seed": SEED, "blocks": 2, "exchange": "shuffle"}


def collected(model):
    """Return both sides' stored rows by id."""
    blocks = (side.table().collect(model.rank + 2) for side in model.state.sides)
    return [dict(zip(block.ids.tolist(), block.rows, strict=True)) for block in blocks]


def row_bytes(model):
    """Return the stored rows as bytes, for bitwise comparison."""
    return [{id_: row.tobytes() for id_, row in side.items()} for side in collected(model)]


def stored_ratings(model):
    """Return a model's stored ratings by user and by product, sorted; nothing with "sgd"."""
    return [
        sorted(
            rating
            for block in all_ratings(side.rdds).collect()
            for rating in zip(
                block.users.tolist(), block.products.tolist(), block.ratings.tolist(), strict=True
            )
        )
        for side in model.state.history or ()
    ]


def levels_of(model):
    return sum(len(side.levels) for side in model.state.sides)


def predictions(sc, model, pairs):
    """Return the predictions of pairs, by pair."""
    return {
        (r.user, r.product): r.rating for r in model.predictAll(sc.parallelize(pairs, 2)).collect()
    }


def dense(model):
    """Return users, products and the predictions of all pairs."""
    (users, U), (products, P) = (
        (list(side), np.array(list(side.values())).astype(float)) for side in collected(model)
    )
    U, P = (side[np.argsort(ids)] for side, ids in ((U, users), (P, products)))
    scores = model.mean + U[:, -2:-1] + P[:, -2] + U[:, :-2] @ P[:, :-2].T
    return np.sort(users), np.sort(products), scores
