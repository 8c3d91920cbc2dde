"""Errors and rankings against straightforward implementations."""

from __future__ import annotations

import math
from array import array
from types import SimpleNamespace

import numpy as np
import pytest

from rddals.blocks.factors import FactorBlock
from rddals.blocks.ratings import RatingBlock
from rddals.cli.metrics import measure
from rddals.cli.ranking import rank_block
from rddals.errors import RatingError

RANK, USERS, PRODUCTS = 3, range(5, 45), range(-10, 40)


def factors(ids, seed):
    rng = np.random.default_rng(seed)
    return {id_: rng.normal(size=RANK).astype(np.float32) for id_ in ids}


USER_FACTORS, PRODUCT_FACTORS = factors(USERS, 1), factors(PRODUCTS, 2)


def some_ratings(seed, count=400):
    """Return ratings with unknown users, unknown products and duplicates."""
    rng = np.random.default_rng(seed)
    users, products = rng.integers(0, 48, count), rng.integers(-12, 42, count)
    return [
        (int(u), int(p), float(r))
        for u, p, r in zip(users, products, rng.integers(-1, 5, count), strict=True)
    ]


def fake_model(sc):
    """Return a minimal model."""
    users, products = (
        sc.parallelize([(id_, array("d", row)) for id_, row in rows.items()], 3)
        for rows in (USER_FACTORS, PRODUCT_FACTORS)
    )
    return SimpleNamespace(rank=RANK, userFeatures=lambda: users, productFeatures=lambda: products)


def reference_ranking(held_out, seen, top):
    ndcg, precision = [], []
    liked = {}
    for user, product, rating in held_out:
        if rating > 0:
            liked.setdefault(user, set()).add(product)
    for user, products in liked.items():
        if user not in USER_FACTORS:
            continue
        known = {p for u, p, _ in seen if u == user}
        scores = {
            p: float(USER_FACTORS[user] @ row)
            for p, row in PRODUCT_FACTORS.items()
            if p not in known
        }
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:top]
        gain = sum(1 / math.log2(place + 2) for place, p in enumerate(best) if p in products)
        ideal = sum(1 / math.log2(place + 2) for place in range(min(top, len(products))))
        ndcg.append(gain / ideal)
        precision.append(sum(p in products for p in best) / top)
    return len(ndcg), np.mean(ndcg), np.mean(precision), len(liked) - len(ndcg)


def test_measure(sc):
    held_out, seen = some_ratings(3), some_ratings(4)
    source = sc.parallelize(held_out, 4)
    quality = measure(fake_model(sc), source, top=7, seen=sc.parallelize(seen, 2))
    errors = [
        float(USER_FACTORS[u].astype(float) @ PRODUCT_FACTORS[p].astype(float)) - r
        for u, p, r in held_out
        if u in USER_FACTORS and p in PRODUCT_FACTORS
    ]
    assert (quality.errors.known, quality.errors.unknown) == (len(errors), 400 - len(errors))
    assert quality.errors.rmse == pytest.approx(math.sqrt(np.mean(np.square(errors))), rel=1e-12)
    assert quality.errors.mae == pytest.approx(np.mean(np.abs(errors)), rel=1e-12)
    users, ndcg, precision, unknown = reference_ranking(held_out, seen, 7)
    assert (quality.ranking.users, quality.ranking.unknown_users) == (users, unknown)
    assert quality.ranking.ndcg == pytest.approx(ndcg, rel=1e-12)
    assert quality.ranking.precision == pytest.approx(precision, rel=1e-12)


def test_all_pairs_unknown(sc):
    quality = measure(fake_model(sc), sc.parallelize([(1000, 1, 1.0)]), top=10)
    assert (quality.errors.known, quality.errors.unknown) == (0, 1)
    assert quality.errors.rmse is None and quality.errors.mae is None
    assert quality.ranking.ndcg is None and quality.ranking.unknown_users == 1


def test_invalid_rating_raises(sc):
    with pytest.raises(RatingError, match="rating nan is not a finite"):
        measure(fake_model(sc), sc.parallelize([(6, 1, 1.0), (6, 2, float("nan"))], 2))


def as_block(rows):
    ids = np.array(sorted(rows), dtype=np.int32)
    return FactorBlock(ids, np.array([rows[id_] for id_ in ids.tolist()], dtype=np.float32))


@pytest.mark.parametrize("top", [1, 10, 50, 200])
def test_ranking(top):
    held_out, seen = some_ratings(5), some_ratings(6)
    result = rank_block(
        as_block(USER_FACTORS),
        as_block(PRODUCT_FACTORS),
        RatingBlock.from_rows(held_out),
        RatingBlock.from_rows(seen),
        top,
    )
    users, ndcg, precision, unknown = reference_ranking(held_out, seen, top)
    assert (result.users, result.unknown_users) == (users, unknown)
    assert result.ndcg == pytest.approx(ndcg, rel=1e-9)
    assert result.precision == pytest.approx(precision, rel=1e-9)


def test_perfect_ranking():
    rows = {1: np.array([1, 0, 0]), 2: np.array([0, 1, 0]), 3: np.array([0, 0, 1])}
    held_out = RatingBlock.from_rows([(u, u, 1.0) for u in rows])
    result = rank_block(as_block(rows), as_block(rows), held_out, RatingBlock.empty(), 1)
    assert (result.ndcg, result.precision) == (1.0, 1.0)
