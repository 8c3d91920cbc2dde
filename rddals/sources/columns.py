"""Detect the columns of user, item and rating by their names."""

from __future__ import annotations

from collections.abc import Sequence

from rddals.errors import SourceError

ROLES = ("user", "item", "rating")

#: Common names of the columns, in order of preference, without case and punctuation.
SPELLINGS = {
    "user": (
        "user userid uid users customer customerid account accountid visitor visitorid "
        "member memberid listener listenerid"
    ).split(),
    "item": (
        "item itemid iid product productid movie movieid film book bookid artist artistid track "
        "trackid song songid game gameid anime animeid article articleid business businessid"
    ).split(),
    "rating": (
        "rating ratings score stars value preference count counts plays playcount listens "
        "listencount clicks views purchases quantity weight strength overall"
    ).split(),
}


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
    else:
        normalised = ["".join(filter(str.isalnum, name)).casefold() for name in names]
        positions = [
            next((normalised.index(word) for word in SPELLINGS[role] if word in normalised), None)
            for role in ROLES
        ]
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
