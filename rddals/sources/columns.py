"""Which columns hold user, item and rating, told from their names."""

from __future__ import annotations

from collections.abc import Sequence

from rddals.errors import SourceError

__all__ = ["ROLES", "pick_columns"]

ROLES = ("user", "item", "rating")

#: What columns are called in practice, in order of preference; case and punctuation don't matter.
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


def pick_columns(names: Sequence[str], asked: Sequence[str] | None = None) -> tuple[int, int, int]:
    """Positions of user, item and rating among the names of columns.

    Raises
    ------
    SourceError
        If one of them is not there.
    """
    present = ", ".join(names)
    if asked:
        positions = [_position(names, name) for name in asked]
        for name, position in zip(asked, positions, strict=True):
            if position is None:
                raise SourceError(f"there is no column {name!r}; there are: {present}")
    else:
        spelt = ["".join(filter(str.isalnum, name)).casefold() for name in names]
        positions = [
            next((spelt.index(word) for word in SPELLINGS[role] if word in spelt), None)
            for role in ROLES
        ]
        for role, position in zip(ROLES, positions, strict=True):
            if position is None:
                raise SourceError(
                    f"no column is called {role} or the like; there are: {present}; "
                    "name yours with --columns USER,ITEM,RATING"
                )
    user, item, rating = (position for position in positions if position is not None)
    folded = [name.casefold() for name in names]
    for position in (user, item, rating):
        if folded.count(folded[position]) > 1:
            raise SourceError(
                f"there are two columns {names[position]!r} among {present}; rename one"
            )
    return user, item, rating


def _position(names: Sequence[str], name: str) -> int | None:
    if name in names:
        return names.index(name)
    folded = [n.casefold() for n in names]
    return folded.index(name.casefold()) if name.casefold() in folded else None
