"""Ratings as columns, validated once.

After this module, no Python object is made per rating.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.column_names import column_places, find_columns
from rddals.blocks.sides import ID_NAMES
from rddals.errors import RatingError, RatingTypeError

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

ROW_TYPES = (tuple, list, np.ndarray)
_ROW_REMEDY = (
    "Pass Rating(user, product, rating) or a tuple/list of these three. Batches are a RatingBlock "
    "or a tuple of three NumPy arrays."
)


@dataclass(frozen=True, slots=True)
class RatingBlock:
    """Batch of ratings in columns.

    Attributes
    ----------
    users, products : ndarray of int32, shape (n,)
    ratings : ndarray of float32, shape (n,)
        Finite values.
    """

    users: NDArray[np.int32]
    products: NDArray[np.int32]
    ratings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ratings)

    @classmethod
    def empty(cls) -> RatingBlock:
        """Return a batch without ratings."""
        ids = np.empty(0, dtype=np.int32)
        return cls(ids, ids, np.empty(0, dtype=np.float32))

    @classmethod
    def concatenate(cls, blocks: Sequence[RatingBlock]) -> RatingBlock:
        """Concatenate batches in the given order."""
        if not blocks:
            return cls.empty()
        if len(blocks) == 1:
            return blocks[0]
        return cls(
            np.concatenate([b.users for b in blocks]),
            np.concatenate([b.products for b in blocks]),
            np.concatenate([b.ratings for b in blocks]),
        )

    def combined(self, duplicates: str) -> RatingBlock:
        """Combine duplicates, so that each user and product has one rating.

        Parameters
        ----------
        duplicates : {"keep", "last", "mean", "sum"}
            How to combine the ratings of a product by a user: the last in the batch, or their mean
            or sum, added in the order of the batch. "keep" returns all ratings unchanged.

        Raises
        ------
        RatingError
            If a sum is not finite in float32.
        """
        if duplicates == "keep":
            return self
        cells = self.users.astype(np.int64) << 32 | self.products.view(np.uint32)
        order = np.argsort(cells, kind="stable")
        new = np.ones(len(order), dtype=bool)
        new[1:] = np.diff(cells[order]) != 0
        firsts, pairs = order[new], np.cumsum(new) - 1
        if duplicates == "last":
            ratings = self.ratings[order[np.append(new[1:], True)]] if len(order) else self.ratings
        else:
            sums = np.asarray(np.bincount(pairs, weights=self.ratings[order]), dtype=np.float64)
            if duplicates == "mean":
                sums = sums / np.bincount(pairs)
            with np.errstate(over="ignore"):
                ratings = sums.astype(np.float32)
        if not np.isfinite(ratings).all():
            first = firsts[np.argmin(np.isfinite(ratings))]
            raise RatingError(
                f"The ratings of product {self.products[first]} by user {self.users[first]} add up "
                "to more than a 32-bit float can hold. Scale the ratings down."
            )
        return RatingBlock(self.users[firsts], self.products[firsts], ratings)

    @classmethod
    def from_columns(
        cls, users: Any, products: Any, ratings: Any, *, origin: str = "the batch"
    ) -> RatingBlock:
        """Validate columns and return them as a batch.

        Ids may be of any real type if their values are whole.

        Parameters
        ----------
        users, products, ratings : array_like, shape (n,)
        origin : str
            Origin of the columns, for error messages.

        Raises
        ------
        RatingError
            If columns differ in length or shape, are not numeric, hold an id that is fractional or
            outside int32, or a rating that is not finite in float32. The message gives the first
            such value.
        """
        columns = [np.asarray(column) for column in (users, products, ratings)]
        if any(np.ma.is_masked(column) for column in (users, products, ratings)):
            raise RatingError(f"{origin}: some values are masked. Drop these ratings first.")
        shapes = [column.shape for column in columns]
        if any(len(shape) != 1 for shape in shapes) or len(set(shapes)) != 1:
            raise RatingError(
                f"{origin}: users, products and ratings have shapes {shapes}. "
                "Pass three one-dimensional arrays of equal length."
            )
        return cls(
            _id_column("user", columns[0], origin),
            _id_column("product", columns[1], origin),
            _rating_column(columns[2], origin),
        )

    @classmethod
    def from_rows(
        cls, rows: Sequence[Any], *, origin: str = "the ratings", first_row: int = 0
    ) -> RatingBlock:
        """Convert ``Rating`` rows, tuples or lists of (user, product, rating) to columns.

        Rows whose fields have names, such as Spark's ``Row``, are read by name.

        Parameters
        ----------
        rows : sequence
            ``Rating`` objects, tuples or lists.
        origin : str
            Origin of the rows, for error messages.
        first_row : int
            Number of the first row within `origin`.

        Raises
        ------
        RatingError
            If a row is not three numbers, or as in `from_columns`. The message gives row and value.
        RatingTypeError
            If a row is not a ``Rating``, tuple, list or array.
        SettingError
            If the names of a row's fields are unknown.
        """
        if not rows:
            return cls.empty()
        kinds = set(map(type, rows))
        rows = in_order(rows, kinds)
        try:
            if not all(issubclass(kind, ROW_TYPES) for kind in kinds):
                raise TypeError
            if set(map(len, rows)) != {3}:
                raise ValueError
            # Not zip(*rows): it makes an iterator per row, which triggers the garbage collector.
            users, products, ratings = ([row[i] for row in rows] for i in range(3))
            block = cls.from_columns(
                whole_numbers(users),
                whole_numbers(products),
                # Converts Python numbers and numeric strings as float() does, in one pass.
                np.array(ratings, dtype=np.float64),
            )
        except (TypeError, ValueError, OverflowError):
            raise first_bad_row(rows, origin, first_row) from None
        return block


def in_order(rows: Sequence[Any], kinds: set[type], roles: int = 3) -> Sequence[Any]:
    """Return rows, which are of these types, with their values in the order user, product, rating.

    Rows whose fields have names are read by name. If the names are not common ones, a named tuple
    is taken by position, as its author wrote it, and a ``Row`` raises `SettingError`. Two `roles`
    are those of a pair (user, product), which is then taken by position too.
    """
    named = kinds.difference(ROW_TYPES)
    if all(hasattr(kind, "_fields") and not _order(kind._fields, roles, True) for kind in named):
        return rows
    return [_ordered(row, roles) for row in rows]


def _ordered(row: Any, roles: int) -> Any:
    fields = getattr(row, "__fields__", None) or getattr(row, "_fields", None)
    order = None if fields is None else _order(tuple(fields), roles, hasattr(row, "_fields"))
    return row if order is None else tuple(row[place] for place in order)


@cache
def _order(fields: tuple[str, ...], roles: int, is_named_tuple: bool) -> list[int] | None:
    """Return the places of fields to read; None to read them as they are."""
    found = find_columns(fields)[:roles]
    in_place = all(place in (None, role) for role, place in enumerate(found))
    if (is_named_tuple or roles == 2) and None in found and in_place:
        return None
    remedy = "Name the fields user, item and rating, or pass tuples in this order."
    places = column_places(fields, remedy, roles)
    return None if places == list(range(len(fields))) else places


def whole_number(value: Any) -> int:
    """Return a number or numeric text as an integer.

    Raise `ValueError` if it is fractional, and `ValueError`, `TypeError` or `OverflowError` if it
    is not a number.
    """
    try:
        number = int(value)
    except ValueError:
        if not isinstance(value, str):  # NaN
            raise
        value = float(value)  # "1.0"
        number = int(value)
    if not isinstance(value, str) and number != value:
        raise ValueError(f"{value!r} is fractional")
    return number


def whole_numbers(values: list[Any]) -> NDArray[np.int64]:
    """Return numbers or numeric texts as integers; raise as `whole_number` does."""
    try:
        return np.frombuffer(array("q", values), dtype=np.int64)  # of integers
    except (TypeError, OverflowError):
        column = np.array(values)
    if column.dtype.kind != "f":
        return np.array([whole_number(value) for value in values], dtype=np.int64)
    if not (np.isfinite(column) & (column == np.trunc(column))).all():
        raise ValueError("a number is fractional or not finite")
    return column.astype(np.int64)


def _id_column(name: str, column: NDArray[Any], origin: str) -> NDArray[np.int32]:
    if column.dtype == np.int32:
        return column
    if column.dtype.kind not in "iuf":
        raise RatingError(
            f"{origin}: {name} ids are of type {column.dtype}. Pass integers; rddals.indexer "
            "converts other keys."
        )
    wide = column.astype(np.float64) if column.dtype.kind == "f" else column
    fits = (wide >= INT32_MIN) & (wide <= INT32_MAX)  # false for NaN
    if column.dtype.kind == "f":
        fits &= wide == np.trunc(wide)
    if not fits.all():
        row = int(np.argmin(fits))
        raise RatingError(f"{origin}, row {row}: {_id_error(name, column[row].item())}")
    return wide.astype(np.int32)


def _rating_column(column: NDArray[Any], origin: str) -> NDArray[np.float32]:
    if column.dtype.kind not in "iufb":
        raise RatingError(f"{origin}: ratings are of type {column.dtype}. Pass numbers.")
    with np.errstate(over="ignore"):
        ratings = column.astype(np.float32, copy=False)
    finite = np.isfinite(ratings)
    if not finite.all():
        row = int(np.argmin(finite))
        raise RatingError(f"{origin}, row {row}: {_rating_error(column[row].item())}")
    return ratings


def _id_error(name: str, value: Any) -> str:
    if value != value:
        return f"{name} id is {value}. Every rating needs a user id and a product id."
    if INT32_MIN <= value <= INT32_MAX:
        return f"{name} id {value} is not a whole number. Correct it, or drop the rating."
    bound = f"exceeds max integer value of {INT32_MAX}"
    if value < INT32_MIN:
        bound = f"is below min integer value of {INT32_MIN}"
    return f"Ratings id {value} {bound} ({name}). Convert such ids with rddals.indexer."


def _rating_error(value: Any) -> str:
    return (
        f"rating {value!r} is not a finite 32-bit float, so no factor computed from it would be "
        "finite. Drop or correct it."
    )


def first_bad_row(
    rows: Sequence[Any],
    origin: str,
    first_row: int,
    *,
    find_id_error: Callable[[str, Any], str | None] | None = None,
    remedy: str = _ROW_REMEDY,
) -> RatingError | RatingTypeError:
    """Return the error for the first invalid row; at least one row is invalid.

    `origin` and the number of the first row are for the message. `find_id_error` returns what is
    wrong with an id of a "user" or "product"; by default it must fit int32.
    """
    find_id_error = find_id_error or _find_id_error
    for number, row in enumerate(rows, start=first_row):
        position = f"{origin}, row {number}"
        if not isinstance(row, ROW_TYPES):
            return RatingTypeError(
                f"Expect a Rating or a tuple/list, but got {type(row)} ({position}): {row!r}. "
                f"{remedy}"
            )
        try:
            user, product, rating = row
        except (TypeError, ValueError):
            return RatingError(f"{position}: {row!r} is not a rating. {remedy}")
        for name, id_ in zip(ID_NAMES, (user, product), strict=True):
            id_error = find_id_error(name, id_)
            if id_error is not None:
                return RatingError(f"{position}: {id_error}")
        try:
            with np.errstate(over="ignore"):
                finite = np.ndim(rating) == 0 and np.isfinite(np.float32(float(rating)))
        except OverflowError:
            finite = False
        except (TypeError, ValueError):
            return RatingError(f"{position}: rating {rating!r} is not a number. {remedy}")
        if np.ndim(rating) != 0:
            return RatingError(f"{position}: rating {rating!r} is not a number. {remedy}")
        if not finite:
            return RatingError(f"{position}: {_rating_error(rating)}")
    return RatingError(f"{origin}: rows from row {first_row} on cannot be read. {remedy}")


def _find_id_error(name: str, value: Any) -> str | None:
    try:
        id_ = whole_number(value)
    except (TypeError, ValueError, OverflowError):
        return f"{name} id {value!r} is not an integer. Convert other keys with rddals.indexer."
    return None if INT32_MIN <= id_ <= INT32_MAX else _id_error(name, id_)
