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
    SourceError,
    StudyError,
    UnknownIdError,
)

BUILT_IN = {
    EventLogError: ValueError,
    SourceError: ValueError,
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


def test_every_error_is_exported():
    classes = {
        c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
    }
    assert classes == {RddalsError, *BUILT_IN}
    assert sorted(c.__name__ for c in classes) == sorted(errors.__all__)


@pytest.mark.parametrize("error", BUILT_IN)
def test_every_error_derives_from_a_built_in_one(error):
    assert issubclass(error, RddalsError)
    assert issubclass(error, BUILT_IN[error])


@pytest.mark.parametrize("error", [e for e in BUILT_IN if e is not SingularSystemError])
@pytest.mark.parametrize("duplicate", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])
def test_errors_pickle_and_copy(error, duplicate):
    copied = duplicate(error("userId: 7 not found in the model"))
    assert type(copied) is error
    assert str(copied) == "userId: 7 not found in the model"  # a KeyError would quote it


@pytest.mark.parametrize("duplicate", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])
def test_singular_system_error_pickles_and_copies(duplicate):
    error = SingularSystemError([7, -3, 2], 10, 0.25)
    copied = duplicate(error)
    assert type(copied) is SingularSystemError
    assert (copied.ids, copied.rank, copied.lambda_) == ((-3, 2, 7), 10, 0.25)
    assert str(copied) == str(error)


def test_singular_system_error_names_ids_and_settings():
    message = str(SingularSystemError([7, -3, 2], 10, 0.25))
    assert message.startswith("3 ids ")
    assert "-3, 2, 7." in message
    assert "rank 10" in message
    assert "lambda_=0.25" in message


def test_singular_system_error_names_at_most_ten_ids():
    error = SingularSystemError(range(100, 0, -1), 3, 0.0)
    assert error.ids == tuple(range(1, 101))
    assert "100 ids" in str(error)
    assert "9, 10, ..." in str(error)
    assert "11" not in str(error)


def test_singular_system_errors_of_blocks_are_joined():
    joined = SingularSystemError.joined(
        SingularSystemError(ids, 4, 0.5) for ids in ([9, 1], [5], [3])
    )
    assert (joined.ids, joined.rank, joined.lambda_) == ((1, 3, 5, 9), 4, 0.5)
