"""The published MovieLens data sets: names and layout of the files of ratings."""

from __future__ import annotations

from collections.abc import Callable

#: Separator and number of fields of the files that have no header.
PUBLISHED = {"u.data": ("\t", 4), "ratings.dat": ("::", 4)}
#: Names of the files of ratings; the last one has a header.
NAMES = (*PUBLISHED, "ratings.csv")


def ratings_inside(path: str, exists: Callable[[str], bool]) -> str:
    """Return the path of the ratings in a MovieLens directory, else the path itself."""
    for name in NAMES:
        inside = f"{path.rstrip('/')}/{name}"
        if not path.endswith(name) and exists(inside):
            return inside
    return path
