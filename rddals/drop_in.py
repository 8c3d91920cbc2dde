"""Replacement of ``pyspark.mllib.recommendation`` in programs that import it."""

from __future__ import annotations

import sys
from types import ModuleType

from py4j.protocol import Py4JJavaError
from pyspark import mllib
from pyspark.mllib import recommendation

from rddals.als import ALS
from rddals.errors import ModelExistsError, ModelFormatError, UnknownIdError
from rddals.model.matrix import MatrixFactorizationModel

__all__ = ["install", "uninstall"]

#: Errors in place of MLlib's ``Py4JJavaError``.
JAVA_ERRORS: tuple[type[Exception], ...] = (ModelExistsError, ModelFormatError, UnknownIdError)

# A separate module, because MLlib's classes look each other up in the original one.
_replacement = ModuleType(recommendation.__name__, recommendation.__doc__)
vars(_replacement).update(
    vars(recommendation) | {"ALS": ALS, "MatrixFactorizationModel": MatrixFactorizationModel}
)


class JavaError:
    """Java exception of an error that rddals raises in place of a Java one."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def getMessage(self) -> str:
        """Return the message of the error."""
        return str(self._error)

    toString = __str__ = getMessage


def install() -> None:
    """Make ``pyspark.mllib.recommendation`` provide the classes of rddals.

    The change affects imports made after this call; names that are already imported stay as they
    are. `Rating` remains PySpark's own class. Errors for which MLlib raises ``Py4JJavaError``, such
    as an unknown id, can be caught as such. Calling this function twice has no further effect.

    Examples
    --------
    >>> import rddals
    >>> rddals.install()
    >>> from pyspark.mllib.recommendation import ALS
    >>> ALS is rddals.ALS
    True
    >>> rddals.uninstall()
    """
    for error in JAVA_ERRORS:
        if not issubclass(error, Py4JJavaError):
            error.__bases__ += (Py4JJavaError,)
            error.java_exception = property(JavaError)  # type: ignore[attr-defined]
    _set_module(_replacement)


def uninstall() -> None:
    """Make ``pyspark.mllib.recommendation`` provide MLlib's own classes again."""
    for error in JAVA_ERRORS:
        if "java_exception" in vars(error):
            del error.java_exception  # type: ignore[attr-defined]
        error.__bases__ = tuple(base for base in error.__bases__ if base is not Py4JJavaError)
    _set_module(recommendation)


def _set_module(module: ModuleType) -> None:
    sys.modules[recommendation.__name__] = module
    mllib.recommendation = module
