"""Columns of user, item and rating, found by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rddals.errors import SettingError

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
#: Names that Spark gives to columns without a name; they only number them.
NUMBERED = re.compile(r"(_|_c|c|col|column)?\d+", re.IGNORECASE)


def find_columns(names: Sequence[str]) -> list[int | None]:
    """Return the positions of user, item and rating; None for one without a common name."""
    normalised = ["".join(filter(str.isalnum, name)).casefold() for name in names]
    return [
        next((normalised.index(word) for word in SPELLINGS[role] if word in normalised), None)
        for role in ROLES
    ]


def column_places(names: Sequence[str], remedy: str, roles: int = 3) -> list[int]:
    """Return the positions of user, item and rating (of the first two `roles`, if there are two).

    Columns that are only numbered are taken by position. Other names of which one is not common,
    or that repeat, raise `SettingError` with the remedy.
    """
    if all(map(NUMBERED.fullmatch, names)):
        return list(range(roles))
    found = find_columns(names)[:roles]
    missing = [role for role, place in zip(ROLES, found, strict=False) if place is None]
    if missing:
        raise SettingError(
            f"None of {list(names)} is a common name for {' or '.join(missing)}. {remedy}"
        )
    places = [place for place in found if place is not None]
    folded = [name.casefold() for name in names]
    for place in places:
        if folded.count(folded[place]) > 1:
            raise SettingError(f"Several of {list(names)} are named {names[place]!r}. {remedy}")
    return places
