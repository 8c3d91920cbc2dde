"""What can go wrong, by name.

Every message quotes the offending value and ends with what to do about it.
"""

from __future__ import annotations

__all__ = [
    "InconsistentRatingsError",
    "ModelFormatError",
    "RatingError",
    "RatingTypeError",
    "RddalsError",
    "SettingError",
    "SingularSystemError",
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
        The ids concerned, ascending; at most the first few when there are many.
    """

    def __init__(self, message: str, ids: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.ids = ids

    def __reduce__(self) -> tuple[type[SingularSystemError], tuple[str, tuple[int, ...]]]:
        return type(self), (str(self), self.ids)


class UnknownIdError(RddalsError, LookupError):
    """An id that the model was not trained on."""


class ModelFormatError(RddalsError, ValueError):
    """A directory does not hold a model that can be loaded."""
