"""Exceptions that rddals raises.

Each message gives the offending value and a remedy.
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
    """Base class of all rddals exceptions."""

    # Under `rddals.install` some are Py4J errors too, whose text is that of a Java object.
    __str__ = Exception.__str__


class SettingError(RddalsError, ValueError):
    """An argument or setting is out of its range. Raised before any work starts."""


class RatingError(RddalsError, ValueError):
    """A rating cannot be trained on: wrong type, not finite, or an id outside int32."""


class RatingTypeError(RddalsError, TypeError):
    """An object has the wrong type for a rating or a collection of ratings."""


class InconsistentRatingsError(RddalsError, RuntimeError):
    """The ratings changed between two computations of the same RDD."""


class SingularSystemError(RddalsError, ArithmeticError):
    """The normal equations of some ids have no unique solution.

    Attributes
    ----------
    ids : tuple of int
        Affected ids in ascending order.
    rank : int
        Rank of the training.
    lambda_ : float
        Weight of the penalty.
    """

    def __init__(self, ids: Iterable[int], rank: int, lambda_: float) -> None:
        self.ids = tuple(sorted(ids))
        self.rank = rank
        self.lambda_ = lambda_
        listed = ", ".join(map(str, self.ids[:10])) + (", ..." if len(self.ids) > 10 else "")
        super().__init__(
            f"{len(self.ids)} ids have too few independent ratings for rank {rank}, and "
            f"lambda_={lambda_} does not compensate: {listed}. "
            "Use a larger lambda_, a smaller rank or precision='double'."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.ids, self.rank, self.lambda_)

    @classmethod
    def joined(cls, errors: Iterable[SingularSystemError]) -> SingularSystemError:
        """Combine the errors of one half-step into a single error."""
        errors = list(errors)
        ids = [id_ for error in errors for id_ in error.ids]
        return cls(ids, errors[0].rank, errors[0].lambda_)


class OverflowingRatingsError(RddalsError, ArithmeticError):
    """Ratings are so large that factors, or sums of their squares, are not finite."""


class SourceError(RddalsError, ValueError):
    """Input files do not contain readable ratings."""


class UnknownIdError(RddalsError, LookupError):
    """The model was not trained on an id."""


class ModelExistsError(RddalsError, FileExistsError):
    """A model already exists at the path of a save."""


class ModelReleasedError(RddalsError, RuntimeError):
    """A model or its ratings were unpersisted, or their SparkContext stopped."""


class EventLogError(RddalsError, ValueError):
    """A file is not a Spark event log."""


class MeterError(RddalsError, RuntimeError):
    """A meter cannot measure: it is running, was never started, or has no SparkContext."""


class StudyError(RddalsError, ValueError):
    """A directory cannot store a study: it contains other files or a different study."""


class ModelFormatError(RddalsError, ValueError):
    """A directory does not contain a model that can be loaded."""
