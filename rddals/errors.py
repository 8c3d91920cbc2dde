"""What can go wrong, by name.

Every message quotes the offending value and ends with what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = [
    "EventLogError",
    "InconsistentRatingsError",
    "MeterError",
    "ModelExistsError",
    "ModelFormatError",
    "ModelReleasedError",
    "OverflowingRatingsError",
    "RatingError",
    "RatingTypeError",
    "RddalsError",
    "SettingError",
    "SingularSystemError",
    "SourceError",
    "StudyError",
    "UnknownIdError",
]


class RddalsError(Exception):
    """Base class of every error that rddals raises on purpose."""


class SettingError(RddalsError, ValueError):
    """A setting is out of its range; raised before any work starts."""


class RatingError(RddalsError, ValueError):
    """A rating cannot be trained on: wrong type, not finite, or an id outside int32."""


class RatingTypeError(RddalsError, TypeError):
    """What should hold ratings, or be one, is something else."""


class InconsistentRatingsError(RddalsError, RuntimeError):
    """The ratings changed between two readings of the same RDD."""


class SingularSystemError(RddalsError, ArithmeticError):
    """The normal equations of some ids have no unique solution.

    Attributes
    ----------
    ids : tuple of int
        The ids concerned, ascending.
    rank : int
    lambda_ : float
    """

    def __init__(self, ids: Iterable[int], rank: int, lambda_: float) -> None:
        self.ids = tuple(sorted(ids))
        self.rank = rank
        self.lambda_ = lambda_
        named = ", ".join(map(str, self.ids[:10])) + (", ..." if len(self.ids) > 10 else "")
        super().__init__(
            f"{len(self.ids)} ids have too few independent ratings for rank {rank}, and "
            f"lambda_={lambda_} does not make up for it: {named}. "
            "Use a larger lambda_, a smaller rank or precision='double'."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.ids, self.rank, self.lambda_)

    @classmethod
    def joined(cls, errors: Iterable[SingularSystemError]) -> SingularSystemError:
        """One error for the ids of several, of the same half-step."""
        errors = list(errors)
        ids = [id_ for error in errors for id_ in error.ids]
        return cls(ids, errors[0].rank, errors[0].lambda_)


class OverflowingRatingsError(RddalsError, ArithmeticError):
    """Ratings are so large that factors, or sums of their squares, are not finite."""


class SourceError(RddalsError, ValueError):
    """Files do not hold ratings that can be read."""


class UnknownIdError(RddalsError, LookupError):
    """An id that the model was not trained on."""


class ModelExistsError(RddalsError, FileExistsError):
    """There is a model already where one is to be saved."""


class ModelReleasedError(RddalsError, RuntimeError):
    """The factors of a model are gone: it was unpersisted, or its SparkContext stopped."""


class EventLogError(RddalsError, ValueError):
    """A file holds no events of Spark."""


class MeterError(RddalsError, RuntimeError):
    """A meter cannot measure: it is on already, or has nothing to measure."""


class StudyError(RddalsError, ValueError):
    """A folder cannot take a study: it holds something else, or another one."""


class ModelFormatError(RddalsError, ValueError):
    """A directory does not hold a model that can be loaded."""
