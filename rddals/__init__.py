"""ALS matrix factorisation on Spark's RDD API, in Python and NumPy.

Public names are imported on first use. Workers import this package to unpickle functions and need
few of its modules: importing PySpark's `Rating` alone loads pandas, which takes every new worker
about a second.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rddals.java import find_java
from rddals.local_workers import use_this_python

if TYPE_CHECKING:
    from pyspark.mllib.recommendation import Rating

    from rddals.als import ALS
    from rddals.blocks.ratings import RatingBlock
    from rddals.drop_in import install, uninstall
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
    from rddals.model.matrix import MatrixFactorizationModel
    from rddals.planning.planner import plan
    from rddals.streaming.als import StreamingALS
    from rddals.streaming.batch import BatchLearned
    from rddals.streaming.model import StreamingModel
    from rddals.training.events import HalfStepDone, LinksBuilt, TrainingDone

__all__ = [
    "ALS",
    "BatchLearned",
    "EventLogError",
    "HalfStepDone",
    "InconsistentRatingsError",
    "LinksBuilt",
    "MatrixFactorizationModel",
    "MeterError",
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
    "SourceError",
    "StreamingALS",
    "StreamingModel",
    "StudyError",
    "TrainingDone",
    "UnknownIdError",
    "install",
    "plan",
    "uninstall",
]

#: Modules of the public names other than errors.
_MODULES = {
    "ALS": "rddals.als",
    "BatchLearned": "rddals.streaming.batch",
    "HalfStepDone": "rddals.training.events",
    "LinksBuilt": "rddals.training.events",
    "MatrixFactorizationModel": "rddals.model.matrix",
    "Rating": "pyspark.mllib.recommendation",
    "RatingBlock": "rddals.blocks.ratings",
    "StreamingALS": "rddals.streaming.als",
    "StreamingModel": "rddals.streaming.model",
    "TrainingDone": "rddals.training.events",
    "install": "rddals.drop_in",
    "plan": "rddals.planning.planner",
    "uninstall": "rddals.drop_in",
}

find_java()  # before PySpark starts a JVM
use_this_python()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, "rddals.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
