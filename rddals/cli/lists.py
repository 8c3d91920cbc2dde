"""Options that hold several values: separated by commas, checked one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from rddals.cli.failures import InputError

__all__ = ["numbers", "whole", "words"]


def words(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Names of what is known, or ``all`` of them."""
    if text == "all":
        return tuple(known)
    found = _listed(option, text)
    for word in found:
        if word not in known:
            raise InputError(f"{option} {word}: pass all, or some of {', '.join(known)}")
    return tuple(dict.fromkeys(found))


def numbers(option: str, text: str, least: int = 1) -> tuple[int, ...]:
    """Positive whole numbers, or -1 where that has a meaning."""
    return tuple(dict.fromkeys(_number(option, word, least) for word in _listed(option, text)))


def whole(option: str, number: float | None) -> int | None:
    """A number that may be written as 1e9."""
    return None if number is None else _number(option, repr(number), 1)


def _listed(option: str, text: str) -> list[str]:
    found = [word.strip() for word in text.split(",")]
    if not all(found):
        raise InputError(f"{option} {text}: pass values separated by commas")
    return found


def _number(option: str, text: str, least: int) -> int:
    with contextlib.suppress(ValueError, OverflowError):
        number = float(text)
        if number == int(number) and number != 0 and number >= least:
            return int(number)
    raise InputError(f"{option} {text}: pass a positive whole number")
