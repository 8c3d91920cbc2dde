import copy
import inspect
import pickle

import pytest

from rddals import errors
from rddals.errors import (
    EventLogError,
    InconsistentRatingsError,
    MeterError,
    ModelExistsError,
    ModelFormatError,
    ModelReleasedError,
    OverflowingRatingsError,
    RatingError,
    RatingTypeError,
    RddalsError,
    SettingError,
    SingularSystemError,
    StudyError,
    UnknownIdError,
)

BUILT_IN = {
    EventLogError: ValueError,
    StudyError: ValueError,
    InconsistentRatingsError: RuntimeError,
    MeterError: RuntimeError,
    ModelExistsError: FileExistsError,
    ModelFormatError: ValueError,
    ModelReleasedError: RuntimeError,
    OverflowingRatingsError: ArithmeticError,
    RatingError: ValueError,
    RatingTypeError: TypeError,
    SettingError: ValueError,
    SingularSystemError: ArithmeticError,
    UnknownIdError: LookupError,
}


def test_every_error_is_listed_here_and_exported():
    classes = {
        c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
    }
    assert classes == {RddalsError, *BUILT_IN}
    assert sorted(c.__name__ for c in classes) == sorted(errors.__all__)


@pytest.mark.parametrize("error", BUILT_IN)
def test_every_error_is_ours_and_a_built_in_one(error):
    assert issubclass(error, RddalsError)
    assert issubclass(error, BUILT_IN[error])


@pytest.mark.parametrize("error", [e for e in BUILT_IN if e is not SingularSystemError])
@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])
def test_errors_travel(error, again):
    travelled = again(error("userId: 7 not found in the model"))
    assert type(travelled) is error
    assert str(travelled) == "userId: 7 not found in the model"  # a KeyError would quote it


@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])
def test_singular_systems_travel_with_their_ids(again):
    error = SingularSystemError([7, -3, 2], 10, 0.25)
    travelled = again(error)
    assert type(travelled) is SingularSystemError
    assert (travelled.ids, travelled.rank, travelled.lambda_) == ((-3, 2, 7), 10, 0.25)
    assert str(travelled) == str(error)


def test_a_singular_system_names_ids_and_numbers():
    message = str(SingularSystemError([7, -3, 2], 10, 0.25))
    assert message.startswith("3 ids ")
    assert "-3, 2, 7." in message
    assert "rank 10" in message
    assert "lambda_=0.25" in message


def test_of_many_singular_ids_the_message_names_ten():
    error = SingularSystemError(range(100, 0, -1), 3, 0.0)
    assert error.ids == tuple(range(1, 101))
    assert "100 ids" in str(error)
    assert "9, 10, ..." in str(error)
    assert "11" not in str(error)


def test_singular_systems_of_several_blocks_are_one():
    joined = SingularSystemError.joined(
        SingularSystemError(ids, 4, 0.5) for ids in ([9, 1], [5], [3])
    )
    assert (joined.ids, joined.rank, joined.lambda_) == ((1, 3, 5, 9), 4, 0.5)
