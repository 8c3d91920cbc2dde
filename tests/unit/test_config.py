import dataclasses
import pickle
from decimal import Decimal
from fractions import Fraction
from typing import get_args

import numpy as np
import pytest

from rddals import config
from rddals.config import Objective, Settings, block_count
from rddals.errors import SettingError

GIVEN = {"rank": 10, "iterations": 5, "lambda_": 0.01, "nonnegative": False, "seed": 1}


def checked(**changes):
    return Settings.checked(**GIVEN | changes)


def test_settings_hold_the_given_values():
    assert checked(
        rank=7,
        iterations=3,
        lambda_=0.5,
        nonnegative=True,
        seed=11,
        implicit=True,
        alpha=40.0,
        exchange="join",
        precision="single",
        checkpoint_interval=4,
        tol=1e-3,
        init="id",
    ) == Settings(
        objective=Objective(7, 0.5, True, 40.0, True, "single"),
        iterations=3,
        seed=11,
        exchange="join",
        init="id",
        checkpoint_interval=4,
        tol=1e-3,
    )


def test_defaults():
    settings = checked()
    assert settings == Settings(Objective(10, 0.01), seed=1)
    assert (settings.exchange, settings.init, settings.tol) == ("auto", "mllib", 0.0)
    assert (settings.objective.alpha, settings.objective.precision) == (0.01, "double")
    assert settings.checkpoint_interval == 10


def test_settings_are_frozen_and_pickle():
    settings = checked()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.seed = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.objective.rank = 2
    assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize(("precision", "dtype"), [("double", np.float64), ("single", np.float32)])
def test_dtype_of_a_precision(precision, dtype):
    assert checked(precision=precision).objective.dtype == dtype


# MLlib's messages, for code that matches them, some with a remedy added.
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": 0}, "Rank of the feature matrices must be positive but got 0"),
        ({"rank": -3}, "Rank of the feature matrices must be positive but got -3"),
        ({"rank": 2**31}, "Rank of the feature matrices must be at most 65535 but got 2147483648"),
        ({"iterations": -1}, "Number of iterations must be nonnegative but got -1"),
        ({"lambda_": -0.5}, "Regularization parameter must be nonnegative but got -0.5"),
        ({"implicit": True, "alpha": -1}, "alpha must be nonnegative but got -1"),
        ({"checkpoint_interval": 0}, "checkpointInterval must be positive"),
        ({"checkpoint_interval": -2}, "but got -2"),
        ({"tol": -1e-9}, "tol must be nonnegative but got -1e-09"),
        ({"exchange": "carrier pigeon"}, "'join' or 'local' but got 'carrier pigeon'"),
        ({"precision": "half"}, "precision must be 'double' or 'single' but got 'half'"),
        ({"init": "zeros"}, "init must be 'mllib' or 'id' but got 'zeros'"),
        ({"nonnegative": 1}, "nonnegative must be True or False but got 1"),
        ({"nonnegative": "no"}, "but got 'no'"),
        ({"nonnegative": None}, "but got None"),
        ({"rank": 2.5}, "Rank of the feature matrices must be an integer but got 2.5"),
        ({"rank": 10**400 + Fraction(1, 2)}, "must be an integer"),
        ({"iterations": 1.5}, "Number of iterations must be an integer but got 1.5"),
        ({"seed": "1"}, "seed must be a number but got '1'; leave it out"),
        ({"seed": None}, "seed must be a number but got None"),
        ({"seed": float("nan")}, "seed must be a number but got nan"),
        ({"seed": float("inf")}, "seed must be a number but got inf"),
        ({"seed": True}, "seed must be a number but got True"),
    ],
)
def test_out_of_range_values_raise(changes, words):
    with pytest.raises(SettingError, match=words):
        checked(**changes)


NUMBERS = ["rank", "iterations", "lambda_", "alpha", "checkpoint_interval", "tol"]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value",
    [
        *(None, "10", "", float("nan"), float("inf"), -float("inf"), 1j, [10], (), {}, True),
        *(np.bool_(True), np.nan, np.array([10]), np.array(10), Decimal(10), object()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_non_numbers_raise(name, value):
    with pytest.raises(SettingError, match="but got"):
        checked(**{name: value})


@pytest.mark.parametrize("name", ["exchange", "precision", "init"])
@pytest.mark.parametrize("value", [None, "", "AUTO", "doubl", 1, ["auto"], np.array(["double"])])
def test_unknown_choices_raise(name, value):
    with pytest.raises(SettingError, match=f"{name} must be '"):
        checked(**{name: value})


@pytest.mark.parametrize("kind", [int, float, np.int8, np.uint64, np.float32, np.float64, Fraction])
def test_numbers_of_any_type_are_accepted(kind):
    settings = checked(
        rank=kind(3),
        iterations=kind(4),
        lambda_=kind(1),
        seed=kind(9),
        alpha=kind(2),
        checkpoint_interval=kind(6),
        tol=kind(0),
    )
    assert settings == checked(
        rank=3, iterations=4, lambda_=1.0, seed=9, alpha=2.0, checkpoint_interval=6
    )
    objective = settings.objective
    assert {type(v) for v in (objective.lambda_, objective.alpha, settings.tol)} == {float}
    whole = (objective.rank, settings.iterations, settings.seed, settings.checkpoint_interval)
    assert set(map(type, whole)) == {int}


def test_integers_beyond_the_float_range():
    # Integers have no upper limit; settings that are floats reject large ones.
    assert checked(iterations=10**400).iterations == 10**400
    with pytest.raises(SettingError, match="Regularization parameter"):
        checked(lambda_=10**400)


@pytest.mark.parametrize("value", [True, np.bool_(True)])
def test_python_and_numpy_booleans_are_accepted(value):
    assert checked(nonnegative=value).objective.nonnegative is True


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (0, 0),
        (-1, 2**64 - 1),
        (2**63 + 5, 2**63 + 5),
        (2**64 + 5, 5),
        (10**400, 10**400 % 2**64),
        (3.9, 3),
        (-3.9, 2**64 - 3),
        (np.int64(-2), 2**64 - 2),
        (np.uint64(2**64 - 1), 2**64 - 1),
    ],
)
def test_seeds_are_taken_modulo_2_to_the_64(seed, expected):
    assert checked(seed=seed).seed == expected


def test_smallest_allowed_values():
    settings = checked(iterations=0, lambda_=0, tol=0, rank=1)
    assert (settings.iterations, settings.tol) == (0, 0.0)
    assert (settings.objective.lambda_, settings.objective.rank) == (0.0, 1)


def test_explicit_feedback_ignores_alpha():
    assert checked(alpha=-1).objective.implicit is False


def test_alpha_of_zero_is_allowed():
    assert checked(implicit=True, alpha=0).objective.alpha == 0.0


def test_minus_one_is_the_default_checkpoint_interval():
    # MLlib: -1 switches checkpoints off; without any the lineage would overflow.
    assert checked(checkpoint_interval=-1).checkpoint_interval == 10


def test_choices():
    exchanges = get_args(config.Exchange)
    assert exchanges == ("auto", "broadcast", "shuffle", "join", "local")
    assert get_args(config.Kernels) == ("auto", "native", "numpy")
    assert get_args(config.Precision) == ("double", "single")
    assert "id" in get_args(config.Init)
    for exchange in exchanges:
        assert checked(exchange=exchange).exchange == exchange


@pytest.mark.parametrize(("value", "expected"), [(-1, None), (1, 1), (7.0, 7), (np.int64(3), 3)])
def test_block_count(value, expected):
    assert block_count("userBlocks", value) == expected


@pytest.mark.parametrize("value", [0, -2, 1.5, "3", None, True, float("nan")])
def test_invalid_block_count_raises(value):
    with pytest.raises(SettingError, match=r"userBlocks must be .* but got"):
        block_count("userBlocks", value)


def test_block_count_error_matches_mllib():
    with pytest.raises(SettingError, match="Number of blocks must be -1 or positive but got 0"):
        block_count("Number of blocks", 0)
