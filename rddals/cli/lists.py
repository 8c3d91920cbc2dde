"""Options with several comma-separated values."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from rddals.cli.failures import InputError
from rddals.planning.forecast import NAMES
from rddals.rdds.placement import PARTITIONERS
from rddals.study.grid import Grid


def parsed_grid(
    exchanges: str,
    partitioners: str,
    blocks: str,
    ranks: str | int,
    *,
    mllib: bool = False,
    least: int = 1,
) -> Grid:
    """Return the combinations of settings in comma-separated lists; `least` is for blocks."""
    return Grid(
        words("--exchange", exchanges, NAMES),
        words("--partitioner", partitioners, PARTITIONERS),
        numbers("--blocks", blocks, least),
        numbers("--rank", str(ranks)),
        mllib,
    )


def words(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Return the names in `text`, all of `known` for ``all``; reject unknown names."""
    if text == "all":
        return tuple(known)
    names = _listed(option, text)
    for word in names:
        if word not in known:
            raise InputError(f"{option} {word}: pass all, or some of {', '.join(known)}")
    return tuple(dict.fromkeys(names))


def numbers(option: str, text: str, least: int = 1) -> tuple[int, ...]:
    """Return the whole numbers in `text`, which are positive, or -1 if `least` is -1."""
    return tuple(dict.fromkeys(_number(option, word, least) for word in _listed(option, text)))


def whole(option: str, number: float | None) -> int | None:
    """Return a positive whole number, which may be written as 1e9."""
    return None if number is None else _number(option, repr(number), 1)


def _listed(option: str, text: str) -> list[str]:
    values = [word.strip() for word in text.split(",")]
    if not all(values):
        raise InputError(f"{option} {text}: pass values separated by commas")
    return values


def _number(option: str, text: str, least: int) -> int:
    with contextlib.suppress(ValueError, OverflowError):
        number = float(text)
        if number == int(number) and number != 0 and number >= least:
            return int(number)
    raise InputError(f"{option} {text}: pass a positive whole number")
