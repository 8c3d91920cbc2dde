"""Taking the place of ``pyspark.mllib.recommendation`` in programs that import it."""

from __future__ import annotations

from typing import Any

from pyspark.mllib import recommendation

from rddals.als import ALS
from rddals.model import MatrixFactorizationModel

__all__ = ["install", "uninstall"]

OURS: dict[str, Any] = {"ALS": ALS, "MatrixFactorizationModel": MatrixFactorizationModel}
MLLIBS: dict[str, Any] = {name: getattr(recommendation, name) for name in OURS}


def install() -> None:
    """Make ``pyspark.mllib.recommendation`` give ours, however it is imported from now on.

    Names that were imported from it before stay what they were. `Rating` is PySpark's own in
    either case. Installing twice is installing once.

    Examples
    --------
    >>> import rddals
    >>> rddals.install()
    >>> from pyspark.mllib.recommendation import ALS
    >>> ALS is rddals.ALS
    True
    >>> rddals.uninstall()
    """
    for name, ours in OURS.items():
        setattr(recommendation, name, ours)


def uninstall() -> None:
    """Give ``pyspark.mllib.recommendation`` its own classes back."""
    for name, mllibs in MLLIBS.items():
        setattr(recommendation, name, mllibs)
