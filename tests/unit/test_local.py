"""A model in memory. Tests shared with the distributed model: integration/test_recommend.py."""

import pickle

import numpy as np
import pytest

from rddals import SettingError, UnknownIdError
from rddals.blocks.factors import FactorBlock
from rddals.blocks.popularity import Popularity
from rddals.model.local import LocalModel

USERS = FactorBlock(np.array([-3, 2, 7], np.int32), np.array([[1, 0], [0, 1], [2, 1]], np.float32))
PRODUCTS = FactorBlock(
    np.array([10, 11, 15, 23], np.int32), np.array([[1, 0], [0, 2], [1, 1], [3, 0]], np.float32)
)
POPULAR = Popularity(np.array([15, 10], np.int32), np.array([3, 2], np.int32))


@pytest.fixture
def model():
    return LocalModel(USERS, PRODUCTS, POPULAR)


def product_scores(ratings):
    return [(rating.product, rating.rating) for rating in ratings]


def test_predict(model):
    assert model.predict(7, 15) == 3.0
    assert model.predict("7", np.int64(15)) == 3.0  # like the distributed model
    assert type(model.predict(7, 15)) is float


def test_recommend(model):
    assert product_scores(model.recommend(7, 2)) == [(23, 6.0), (15, 3.0)]
    assert [rating.user for rating in model.recommend(7, 2)] == [7, 7]
    assert product_scores(model.recommend(7, 99)) == [(23, 6.0), (15, 3.0), (10, 2.0), (11, 2.0)]
    assert model.recommend(7, 0) == []


def test_exclude_and_candidates(model):
    assert product_scores(model.recommend(7, 2, exclude=[23, 99])) == [(15, 3.0), (10, 2.0)]
    assert product_scores(model.recommend(7, 9, candidates={11, 10, 99}, exclude=[10])) == [
        (11, 2.0)
    ]
    assert model.recommend(7, 9, exclude=PRODUCTS.ids) == []
    assert model.recommend(7, 9, candidates=[]) == []
    assert len(model.recommend(7, 9, exclude=np.array([2**64 - 10], dtype=np.uint64))) == 4
    assert len(model.recommend(7, 9, exclude=(id_ for id_ in (2**70, -1, 10, -(2**63) - 1)))) == 3


def test_popular_fallback_then_average_user(model):
    products, scores = zip(*product_scores(model.recommend(99, 4, fallback="popular")), strict=True)
    assert products == (15, 10, 23, 11)
    assert scores == pytest.approx([5 / 3, 1.0, 3.0, 4 / 3])
    assert product_scores(model.recommend(99, 1, fallback="popular", exclude=[15])) == [(10, 1.0)]
    assert product_scores(model.recommend(99, 9, fallback="popular", candidates=[23, 10])) == [
        (10, 1.0),
        (23, 3.0),
    ]
    assert product_scores(model.recommend(7, 1, fallback="popular")) == [(23, 6.0)]


def test_local_model_pickles(model):
    copied = pickle.loads(pickle.dumps(model))
    assert copied.recommend(7, 3) == model.recommend(7, 3)
    assert (copied.rank, copied.users.ids.tolist()) == (2, [-3, 2, 7])


@pytest.mark.parametrize("unknown", [0, 2**40, -7])
def test_unknown_ids_raise(model, unknown):
    with pytest.raises(UnknownIdError, match=f"userId: {unknown} not found"):
        model.recommend(unknown, 3)
    with pytest.raises(UnknownIdError, match=f"productId: {unknown} not found"):
        model.predict(7, unknown)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"user": "ann", "num": 1}, "user must be an integer but got 'ann'"),
        ({"user": 7, "num": -1}, "num must be a nonnegative integer"),
        ({"user": 7, "num": 1, "exclude": "10"}, "exclude must be a sequence of integer ids"),
        ({"user": 7, "num": 1, "exclude": b"10"}, "exclude must be a sequence of integer ids"),
        ({"user": 7, "num": 1, "exclude": [2**70, True]}, "exclude must be a sequence of integer"),
        ({"user": 7, "num": 1, "exclude": 10}, "exclude must be a sequence of integer ids but"),
        ({"user": 7, "num": 1, "exclude": [1.5]}, "exclude must be a sequence of integer ids but"),
        ({"user": 7, "num": 1, "candidates": [[1]]}, "candidates must be a sequence of integer"),
        ({"user": 7, "num": 1, "candidates": [[1], [2, 3]]}, "candidates must be a sequence of"),
        ({"user": 7, "num": 1, "fallback": "mean"}, "fallback must be 'popular', or None"),
        ({"user": 7, "num": 1, "fallback": True}, "fallback must be 'popular', or None"),
    ],
)
def test_invalid_arguments_raise(model, arguments, words):
    with pytest.raises(SettingError, match=words):
        model.recommend(**arguments)
