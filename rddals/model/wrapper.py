"""What MLlib's model inherits from the wrapper of its Java object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from py4j.java_gateway import JavaObject

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

#: Methods of MLlib's Java object that have another name in Python.
PYTHON_NAMES = {
    "getUserFeatures": "userFeatures",
    "getProductFeatures": "productFeatures",
    "wrappedRecommendProductsForUsers": "recommendProductsForUsers",
    "wrappedRecommendUsersForProducts": "recommendUsersForProducts",
}


class JavaModelWrapper:
    """``call`` without a Java object, and errors for programs that use the object itself."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse a Java object, from which MLlib's class creates a model."""
        if args and isinstance(args[0], JavaObject):
            raise TypeError(
                f"{cls.__name__} cannot be created from a Java model. Save that model, and pass "
                f"its path to {cls.__name__}.load(sc, path)."
            )
        return super().__new__(cls)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call the method that MLlib's Java object has under this name.

        Raises
        ------
        AttributeError
            If there is no such method.
        """
        if name == "predict" and len(arguments) == 1:
            name = "predictAll"  # of an RDD
        method = None if name.startswith("_") else getattr(self, PYTHON_NAMES.get(name, name), None)
        if method is None:
            raise AttributeError(
                f"There is no method {name!r}. This model is a Python object with the methods of "
                "MLlib's model: call them directly."
            )
        return method(*arguments) if callable(method) else method

    @property
    def _java_model(self) -> Any:
        raise AttributeError(
            "This model has no Java object. Call its own methods, or save() it and load it with "
            "pyspark.mllib.recommendation.MatrixFactorizationModel, which has one."
        )
