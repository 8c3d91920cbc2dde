"""Detect the columns of user, item and rating by their names."""

from __future__ import annotations

from collections.abc import Sequence

from rddals.blocks.column_names import ROLES, find_columns
from rddals.errors import SourceError


def pick_columns(
    names: Sequence[str], requested: Sequence[str] | None = None
) -> tuple[int, int, int]:
    """Return the positions of the columns user, item and rating.

    They have the `requested` names, else common ones. A column that is missing or ambiguous raises
    `SourceError`.
    """
    present = ", ".join(names)
    if requested:
        positions = [_position(names, name) for name in requested]
        for name, position in zip(requested, positions, strict=True):
            if position is None:
                raise SourceError(f"there is no column {name!r}; the columns are: {present}")
        if len(set(positions)) < len(positions):
            raise SourceError(
                f"{', '.join(requested)} name one column for two purposes; the columns are: "
                f"{present}"
            )
    else:
        positions = find_columns(names)
        for role, position in zip(ROLES, positions, strict=True):
            if position is None:
                raise SourceError(
                    f"no column has a common name for {role}; the columns are: {present}; "
                    "name the three with --columns USER,ITEM,RATING"
                )
    user, item, rating = (position for position in positions if position is not None)
    folded = [name.casefold() for name in names]
    for position in (user, item, rating):
        if folded.count(folded[position]) > 1:
            raise SourceError(
                f"several columns are named {names[position]!r}, among {present}; rename one"
            )
    return user, item, rating


def _position(names: Sequence[str], name: str) -> int | None:
    if name in names:
        return names.index(name)
    folded = [n.casefold() for n in names]
    return folded.index(name.casefold()) if name.casefold() in folded else None
