"""The two sides of a rating, by number and by name."""

from __future__ import annotations

USERS, PRODUCTS = 0, 1
#: Name of each side.
SIDE_NAMES = ("users", "products")
#: Name of an id of each side.
ID_NAMES = ("user", "product")
