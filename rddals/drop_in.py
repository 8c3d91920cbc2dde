"""Taking the place of ``pyspark.mllib.recommendation`` in programs that import it."""

from __future__ import annotations

import sys
from types import ModuleType

from pyspark import mllib
from pyspark.mllib import recommendation as mllibs

from rddals.als import ALS
from rddals.model.matrix import MatrixFactorizationModel

__all__ = ["install", "uninstall"]

# A module of its own: MLlib's classes look each other up in theirs, which stays as it is.
_ours = ModuleType(mllibs.__name__, mllibs.__doc__)
vars(_ours).update(
    vars(mllibs) | {"ALS": ALS, "MatrixFactorizationModel": MatrixFactorizationModel}
)


def install() -> None:
    """Make ``pyspark.mllib.recommendation`` give ours, however it is imported from now on.

    What was imported before stays what it was. `Rating` is PySpark's own in either case.
    Installing twice is installing once.

    Examples
    --------
    >>> import rddals
    >>> rddals.install()
    >>> from pyspark.mllib.recommendation import ALS
    >>> ALS is rddals.ALS
    True
    >>> rddals.uninstall()
    """
    _give(_ours)


def uninstall() -> None:
    """Give ``pyspark.mllib.recommendation`` its own classes back."""
    _give(mllibs)


def _give(module: ModuleType) -> None:
    sys.modules[mllibs.__name__] = module
    mllib.recommendation = module
