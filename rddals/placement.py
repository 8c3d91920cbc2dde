"""Where ids are to live, as asked for, and as fitted to ratings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from partitioners import (
    DegreeBalancedPartitioner,
    FunctionPartitioner,
    HashPartitioner,
    Partitioner,
    RangePartitioner,
)
from rddals.errors import SettingError
from rddals.rdds.degrees import Degrees

__all__ = ["PARTITIONERS", "Placement", "checked_placement"]

#: Those that have a name; all but the first are fitted to the ratings.
PARTITIONERS = ("hash", "range", "balanced")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the ids of one side are to live.

    Attributes
    ----------
    asked : Partitioner, callable or str
        A partitioner, a function from id to block, or one of `PARTITIONERS`.
    blocks : int or None
        None where nothing is said.
    """

    asked: Any
    blocks: int | None

    @property
    def fitted(self) -> bool:
        """Whether it depends on how many ratings each id has."""
        return self.asked in ("range", "balanced") if isinstance(self.asked, str) else False

    @property
    def name(self) -> str:
        """What to call it."""
        if isinstance(self.asked, str):
            return self.asked
        if isinstance(self.asked, Partitioner):
            return type(self.asked).__name__
        return str(getattr(self.asked, "__name__", type(self.asked).__name__))

    def partitioner(self, default: int, degrees: Degrees | None) -> Partitioner:
        """The partitioner.

        Parameters
        ----------
        default : int
            How many blocks, if nothing is said.
        degrees : Degrees or None
            What it is `fitted` to, if it is.
        """
        blocks = self.blocks or default
        if isinstance(self.asked, Partitioner):
            return self.asked
        if self.asked == "hash":
            return HashPartitioner(blocks)
        if callable(self.asked):
            return FunctionPartitioner(blocks, self.asked)
        assert degrees is not None
        if self.asked == "range":
            return RangePartitioner.fit(degrees.ids, blocks)
        return DegreeBalancedPartitioner.fit(degrees.ids, degrees.counts, blocks)


def checked_placement(name: str, asked: Any, blocks: int | None, blocks_name: str) -> Placement:
    """What a caller passed, or a `SettingError` that says what to pass.

    Parameters
    ----------
    name, blocks_name : str
        What the caller knows the partitioner and the number of blocks by.
    """
    if isinstance(asked, Partitioner):
        if blocks is not None and blocks != asked.num_blocks:
            raise SettingError(
                f"{name} has {asked.num_blocks} blocks but {blocks} were asked for; "
                f"leave out {blocks_name}, or make them agree."
            )
        return Placement(asked, asked.num_blocks)
    if asked is None:
        return Placement("hash", blocks)
    if callable(asked) or (isinstance(asked, str) and asked in PARTITIONERS):
        return Placement(asked, blocks)
    raise SettingError(
        f"{name} must be a Partitioner, a function from id to block, or one of "
        f"{', '.join(PARTITIONERS)}, but got {asked!r}."
    )
