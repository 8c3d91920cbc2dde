"""The method ``train``, which differs between a class and its instances."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any


class TrainMethod:
    """``train``: returns a new model on the class, updates ``model`` on an instance."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, als: Any, owner: type[Any]) -> Callable[..., Any]:
        if als is None:
            return MethodType(self._function, owner)

        # DStream.foreachRDD counts arguments, and counts `self` of a bound method as one.
        def train(ratings: Any) -> None:
            als._train(ratings)

        train.__doc__ = als._train.__doc__
        return train
