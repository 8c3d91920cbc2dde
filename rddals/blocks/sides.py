"""The two sides of a rating, by number and by name."""

from __future__ import annotations

__all__ = ["ID_NAMES", "PRODUCTS", "SIDE_NAMES", "USERS"]

USERS, PRODUCTS = 0, 1
#: What the sides are called.
SIDE_NAMES = ("users", "products")
#: What an id of each side is called.
ID_NAMES = ("user", "product")
