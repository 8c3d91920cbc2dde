"""ALS matrix factorisation on Spark's RDD API, in Python and NumPy."""

from __future__ import annotations

from rddals.java import find_java

find_java()

from pyspark.mllib.recommendation import Rating  # noqa: E402 - PySpark may need Java found first

from rddals.als import ALS  # noqa: E402
from rddals.blocks.ratings import RatingBlock  # noqa: E402
from rddals.errors import (  # noqa: E402
    InconsistentRatingsError,
    ModelExistsError,
    ModelFormatError,
    ModelReleasedError,
    OverflowingRatingsError,
    RatingError,
    RatingTypeError,
    RddalsError,
    SettingError,
    SingularSystemError,
    UnknownIdError,
)
from rddals.model import MatrixFactorizationModel  # noqa: E402
from rddals.training import HalfStepDone, LinksBuilt, TrainingDone  # noqa: E402

__all__ = [
    "ALS",
    "HalfStepDone",
    "InconsistentRatingsError",
    "LinksBuilt",
    "MatrixFactorizationModel",
    "ModelExistsError",
    "ModelFormatError",
    "ModelReleasedError",
    "OverflowingRatingsError",
    "Rating",
    "RatingBlock",
    "RatingError",
    "RatingTypeError",
    "RddalsError",
    "SettingError",
    "SingularSystemError",
    "TrainingDone",
    "UnknownIdError",
]
