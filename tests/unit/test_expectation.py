"""Plans without ratings, checked by hand and against random ratings."""

from __future__ import annotations

import numpy as np
import pytest

from partitioners import HashPartitioner
from rddals.errors import SettingError
from rddals.planning.expectation import ExpectedSide, degree_quantiles, expected_plan
from rddals.planning.footprint import footprints
from rddals.planning.forecast import half_steps, load_of, sizes_of_footprints, traffic_of_footprints

SIZES = dict(users=1_000, products=500, ratings=20_000, rank=10, executors=3)


def test_replication():
    # A user with 20 ratings is needed by 8 (1 - (7/8)^20) of 8 blocks, a product with 40 by nearly
    # all, and an id with one rating by one.
    (placement,) = expected_plan(**SIZES, degrees="constant", blocks=8).placements
    users_send, products_send = placement.half_steps["shuffle"]
    assert users_send.replication == pytest.approx(8 * (1 - (7 / 8) ** 20), abs=1e-3)
    assert products_send.replication == pytest.approx(8 * (1 - (7 / 8) ** 40), abs=2e-3)
    assert users_send.payload == users_send.rows_sent * 4 * 10
    assert users_send.records == 64
    single = expected_plan(**SIZES | {"products": 20_000}, degrees="constant", blocks=(1, 64))
    one, many = (placement.half_steps["shuffle"] for placement in single.placements)
    assert one[0].replication == one[1].replication == 1
    assert many[1].replication == 1


def test_broadcast_and_join_sizes():
    (placement,) = expected_plan(**SIZES, degrees="constant", blocks=8).placements
    assert placement.half_steps["broadcast"][0].payload == 1_000 * 40 * (1 + 3)
    join = placement.half_steps["join"][1]
    assert join.least_bytes == 20_000 * (40 + 12) < join.most_bytes
    assert placement.users.ratings.mean == placement.products.ratings.mean == 20_000 / 8
    assert placement.users.ratings.most == pytest.approx(20_000 / 8)  # all equal


@pytest.mark.parametrize("degrees", ["constant", "lognormal:1", "pareto:3"])
@pytest.mark.parametrize("blocks", [4, 32])
def test_expected_plan_matches_random_ratings(degrees, blocks):
    rng = np.random.default_rng(8)
    users, products, ratings, rank = 20_000, 20_000, 300_000, 10
    shape = degree_quantiles(degrees)
    # Repeat each id by its degree, then pair users and products at random.
    rating, rated = (
        rng.permutation(np.repeat(np.arange(own, dtype=np.int32), np.resize(counts, own)))
        for own, other in ((users, products), (products, users))
        for counts in [np.rint(ExpectedSide.of(own, ratings, other, 1, shape).degrees).astype(int)]
    )
    size = min(len(rating), len(rated))
    rating, rated = rating[:size], rated[:size]
    keep = np.unique(rating.astype(np.int64) * products + rated, return_index=True)[1]
    rating, rated = rating[keep], rated[keep]
    pair = (HashPartitioner(blocks), HashPartitioner(blocks))
    real = (
        footprints(rating, rated, [pair], rank)[0],
        footprints(rated, rating, [pair], rank)[0],
    )
    (expected,) = expected_plan(
        users=users,
        products=products,
        ratings=len(rating),
        rank=rank,
        executors=1,
        degrees=degrees,
        blocks=blocks,
    ).placements
    for predicted, actual in zip(
        expected.half_steps["shuffle"],
        half_steps(
            "shuffle", sizes_of_footprints(real, rank, 1), traffic_of_footprints(real, rank)
        ),
        strict=True,
    ):
        assert predicted.rows_sent == pytest.approx(actual.rows_sent, rel=0.03)
        assert predicted.most_bytes == pytest.approx(actual.most_bytes, rel=0.03)
        assert predicted.records == pytest.approx(actual.records, rel=0.03)
    for predicted, solved in ((expected.users, 0), (expected.products, 1)):
        actual = load_of(real[solved], real[1 - solved], rank, 1e-9)
        assert predicted.ratings.mean == pytest.approx(actual.ratings.mean, rel=0.01)
        assert predicted.ratings.most == pytest.approx(actual.ratings.most, rel=0.15)
        assert predicted.rows.mean == pytest.approx(actual.rows.mean, rel=0.03)
        assert predicted.task_bytes.mean == pytest.approx(actual.task_bytes.mean, rel=0.05)


@pytest.mark.parametrize("shape", ["constant", "lognormal:0.5", "lognormal:4", "pareto:1.1"])
def test_degrees_have_the_requested_mean(shape):
    side = ExpectedSide.of(10_000, 300_000, 2_000, 4, degree_quantiles(shape))
    assert side.degrees.mean() == pytest.approx(30, rel=1e-6)
    assert side.degrees.min() >= 1 and side.degrees.max() <= 2_000


def test_plan_for_a_billion_users():
    plan = expected_plan(
        users=1e9, products=1e8, ratings=1e11, rank=100, executors=2_000, degrees="lognormal:1.2"
    )
    assert [p.blocks[0] for p in plan.placements] == [2_000, 8_000, 32_000]
    assert all(p.choice.exchange == "shuffle" for p in plan.placements)
    assert plan.seconds < 60


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"users": 0}, "users must be a positive whole number but got 0"),
        ({"products": 1.5}, r"products must be a positive whole number but got 1\.5"),
        ({"executors": float("nan")}, "executors must be a positive whole number but got nan"),
        ({"blocks": [4, -1]}, "blocks must be a positive whole number but got -1"),
        ({"ratings": 999}, "ratings must be from 1000 .* to 500000 .* but got 999"),
        ({"ratings": 500_001}, "but got 500001"),
        ({"degrees": "lognormal"}, "must be constant, lognormal:SIGMA .* but got 'lognormal'"),
        ({"degrees": "lognormal:-1"}, "but got 'lognormal:-1'"),
        ({"degrees": "pareto:1"}, "but got 'pareto:1'"),
        ({"degrees": "constant:2"}, "but got 'constant:2'"),
        ({"degrees": "zipf:2"}, "but got 'zipf:2'"),
        ({"exchanges": "post"}, "of shuffle, broadcast, join, local, but got 'post'"),
        ({"rank": 0}, "must be positive but got 0"),
    ],
)
def test_invalid_arguments_raise(wrong, words):
    with pytest.raises(SettingError, match=words):
        expected_plan(**SIZES | wrong)
